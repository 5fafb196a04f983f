package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** Weights side by side are trained as each would be on its own. */
class ParameterSetTest {
    private static Map<String, long[]> shapes() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put("a.first", new long[] {3, 5});
        shapes.put("a.second", new long[] {7});
        shapes.put("b.third", new long[] {2, 3, 2});
        return shapes;
    }

    private static ParameterSet begun(Placement placement) {
        ParameterSet parameters = new ParameterSet(shapes(), placement, 3);
        torch.manual_seed(5);
        parameters.begin((name, shape) -> torch.randn(shape));
        return parameters;
    }

    private static Tensor leaf(ParameterSet parameters, String name) {
        return Objects.requireNonNull(parameters.leaves("").get(name));
    }

    private static void backward(ParameterSet parameters) {
        Tensors.run(() -> leaf(parameters, "a.first")
                .square()
                .sum()
                .add(leaf(parameters, "b.third").sin().sum())
                .backward());
        parameters.gather();
    }

    @Test
    void stepsAreThoseOfEachWeightOnItsOwn() {
        try (ParameterSet parameters = begun(Placement.FLOAT32_CPU);
                AdamW whole = new AdamW(parameters.whole(), step -> 0.01 * step, 0.1)) {
            Map<String, Tensor> apart = new LinkedHashMap<>();
            parameters.leaves("").forEach((name, leaf) -> {
                Tensor copy = Tensors.outlive(() -> leaf.detach().clone());
                copy.set_requires_grad(true);
                apart.put(name, copy);
            });
            try (AdamW each = new AdamW(apart, step -> 0.01 * step, 0.1)) {
                for (int step = 1; step <= 3; step++) {
                    parameters.clearGradients();
                    backward(parameters);
                    backward(parameters); // gradients add up
                    apart.forEach((name, tensor) -> Tensors.run(() -> tensor.mutable_grad()
                            .put(leaf(parameters, name).grad().clone())));
                    assertThat(whole.learningRate()).isEqualTo(0.01 * step);
                    whole.step();
                    each.step();
                    parameters.update();
                }
            }
            apart.forEach((name, tensor) -> {
                assertThat(leaf(parameters, name).equal(tensor)).as(name).isTrue();
                tensor.close();
            });
            assertThat(parameters.count()).isEqualTo(15 + 7 + 12);
            assertThat(parameters.leaves("a.").keySet()).containsExactly("first", "second");
        }
    }

    /** Of a quarter of the way each time. */
    @Test
    void theAverageFollows() {
        try (ParameterSet parameters = begun(Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                Tensor before = leaf(parameters, "a.second").detach().clone();
                Tensor values = Objects.requireNonNull(parameters.state().get("values"));
                Tensors.withoutGradients(() -> values.add_(new Scalar(1)));
                parameters.follow(0.75);
                parameters.follow(0.75);
                Tensor average =
                        Objects.requireNonNull(parameters.averages("a.").get("second"));
                Tensor expected = before.add(new Scalar(1 - 0.75 * 0.75));
                assertThat(Golden.maxAbsoluteDifference(average, expected)).isLessThan(1e-6f);
            });
        }
    }

    /** What is smaller than bfloat16 can show of a weight is not lost. */
    @ParameterizedTest
    @ValueSource(doubles = {1e-4, 1e-3})
    void inBfloat16WeightsAreChangedInFloat32(double rate) {
        try (ParameterSet parameters = begun(Placement.BFLOAT16_CPU);
                AdamW optimizer = new AdamW(parameters.whole(), rate, 0)) {
            Tensor leaf = leaf(parameters, "a.first");
            assertThat(leaf.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
            Tensor values = Objects.requireNonNull(parameters.state().get("values"));
            Tensors.run(() -> {
                Tensor before = values.clone();
                for (int step = 0; step < 10; step++) {
                    parameters.clearGradients();
                    backward(parameters);
                    optimizer.step();
                    parameters.update();
                }
                double moved = before.sub(values).narrow(0, 0, 15).abs().mean().item_double();
                assertThat(moved / (10 * rate)).isBetween(0.8, 1.2);
                assertThat(leaf.equal(values.narrow(0, 0, 15).view(3, 5).to(torch.ScalarType.BFloat16)))
                        .isTrue();
            });
        }
    }

    @Test
    void gradientsAreMeasuredAndShortenedTogether() {
        try (ParameterSet parameters = begun(Placement.FLOAT32_CPU)) {
            parameters.clearGradients();
            backward(parameters);
            double norm = norm(parameters);
            shorten(parameters, 2 * norm);
            assertThat(norm(parameters)).isEqualTo(norm);
            shorten(parameters, norm / 2);
            assertThat(norm(parameters) / norm).isBetween(0.499999, 0.500001);
            parameters.clearGradients();
            assertThat(norm(parameters)).isZero();
            shorten(parameters, 1);
            assertThat(norm(parameters)).isZero();
        }
    }

    private static double norm(ParameterSet parameters) {
        return Tensors.compute(() -> parameters.gradientNorm().item_double());
    }

    private static void shorten(ParameterSet parameters, double most) {
        Tensors.run(() -> parameters.shortenGradients(parameters.gradientNorm(), most));
    }

    @Test
    void lossesLieBehindTheGradients() {
        try (ParameterSet parameters = begun(Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                parameters.clearGradients();
                backward(parameters);
                double norm = norm(parameters);
                parameters.noteLosses(2, torch.full(new long[] {1}, new Scalar(3)));
                parameters.noteLosses(0, torch.full(new long[] {1}, new Scalar(5)));
                assertThat(Tensors.floats(parameters.losses(3, 1))).containsExactly(5, 0, 3);
                assertThat(norm(parameters)).isEqualTo(norm);
                Tensor summed = parameters.summed();
                assertThat(Tensors.floats(summed.narrow(0, summed.numel() - 3, 3)))
                        .containsExactly(5, 0, 3);
                parameters.clearGradients();
                assertThat(Tensors.floats(parameters.losses(3, 1))).containsExactly(0, 0, 0);
            });
        }
    }
}
