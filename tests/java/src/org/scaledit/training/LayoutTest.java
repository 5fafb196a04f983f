package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.HashMap;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.scaledit.scenes.Sightings;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** What T5's states are asked in training. */
class LayoutTest {
    private static final int WIDTH = 32;
    private static final int CELLS = 2;

    private final Map<String, Tensor> weights = new HashMap<>();

    private Layout layout() {
        ModelRecipe.Layout recipe = new ModelRecipe.Layout(CELLS, 0.5);
        try (InitialWeights random = new InitialWeights(5)) {
            Layout.expectedTensors(recipe, WIDTH)
                    .forEach((name, shape) -> weights.put(
                            name,
                            Tensors.outlive(
                                    () -> random.of(Layout.PREFIX + name, shape).set_requires_grad(true))));
        }
        return new Layout(recipe, 4, weights, Placement.FLOAT32_CPU);
    }

    @AfterEach
    void close() {
        weights.values().forEach(Tensor::close);
    }

    /** Of two captions of five tokens. */
    private static Tensor states() {
        float[] numbers = new float[2 * 5 * WIDTH];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = (float) Math.sin(12.9898 * i * i + 78.233 * i);
        }
        return Tensors.of(numbers, 2, 5, WIDTH);
    }

    @Test
    void itSaysNothingAtFirst() {
        long classes = Sightings.background(SceneSource.VOCABULARY) + 1;
        Tensors.run(() -> {
            Tensor objects = Tensors.of(new long[] {3, 4, 5, 6, 4, 3, 6, 5}, 2, CELLS * CELLS);
            Layout layout = layout();
            assertThat(layout.weight()).isEqualTo(0.5);
            assertThat(layout.loss(states(), objects).item_double()).isCloseTo(Math.log(classes), within(1e-5));
        });
    }

    /** The same four objects stand elsewhere: only each cell's own reading of its caption can tell. */
    @Test
    void itLearnsWhereObjectsAreAndTellsTheStates() {
        Layout layout = layout();
        Tensors.run(() -> {
            Tensor states = states().set_requires_grad(true);
            Tensor objects = Tensors.of(new long[] {3, 4, 5, 6, 4, 3, 6, 5}, 2, CELLS * CELLS);
            try (AdamW optimizer = new AdamW(weights, 0.02, 0)) {
                for (int step = 0; step < 150; step++) {
                    Tensors.run(() -> layout.loss(states, objects).backward());
                    optimizer.step();
                    weights.values().forEach(weight -> weight.mutable_grad().zero_());
                }
            }
            assertThat(layout.loss(states, objects).item_double()).isLessThan(0.05);
            assertThat(states.grad().norm().item_double()).isPositive();
        });
    }
}
