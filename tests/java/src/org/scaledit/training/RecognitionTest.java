package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.scaledit.scenes.Sightings;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

class RecognitionTest {

    /** A picture without noise, whose one object counts three times, and one with so much that it counts little more than once. */
    @Test
    void objectsCountMoreTheLessNoiseThereIs() {
        Placement placement = new Placement(torch.ScalarType.Float, false);
        Recognition recognition = new Recognition(new ModelRecipe.Recognition(1, 0.1, 3, 1), Map.of(), placement);
        long none = Sightings.background(SceneSource.VOCABULARY);
        double loss = Tensors.compute(() -> {
            Tensor objects = Tensors.of(new long[] {none, 5, none, none, 7, 7}, 2, 3);
            Tensor squares = Tensors.of(new float[] {1, 2, 4, 8, 16, 32}, 2, 3);
            try (Recognition.Shown shown = new Recognition.Shown(Tensors.keep(objects), Tensors.keep(objects))) {
                return recognition
                        .emphasised(squares, Tensors.of(new float[] {0, 0.9f}, 2), shown)
                        .item_double();
            }
        });
        double noisy = 1 + 2 * 0.1 * 0.1;
        double shares = 1 + 3 + 1 + 1 + 2 * noisy;
        assertThat(loss).isCloseTo((1 + 3 * 2 + 4 + 8 + noisy * (16 + 32)) / shares, within(1e-5));
    }
}
