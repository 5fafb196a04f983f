package org.scaledit.judge;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.DrawnJudge;

class DetectorConfigTest {
    private static final DetectorConfig CONFIG =
            new DetectorConfig(64, List.of(8, 16, 24), 1, 4, DrawnJudge.VOCABULARY);

    @Test
    void aPictureIsHalvedOnceForEachLevel() {
        assertThat(CONFIG.stride()).isEqualTo(8);
        assertThat(CONFIG.grid()).isEqualTo(8);
        assertThat(CONFIG.outputs()).isEqualTo(1 + 4 + 9 + 4);
        Map<String, long[]> shapes = CONFIG.expectedTensors();
        assertThat(shapes.get("stem.weight")).containsExactly(8, 3, 3, 3);
        assertThat(shapes.get("levels.2.blocks.0.conv2.weight")).containsExactly(24, 24, 3, 3);
        assertThat(shapes.get("head.weight")).containsExactly(18, 24, 1, 1);
    }

    @Test
    @SuppressWarnings("try") // the scope works by being open
    void everyCellHasItsPredictions() {
        try (PointerScope scope = new PointerScope()) {
            Map<String, Tensor> weights = new java.util.HashMap<>();
            CONFIG.expectedTensors()
                    .forEach((name, shape) -> weights.put(name, torch.ones(shape, Placement.FLOAT32_CPU.options())));
            Tensor pictures = torch.rand(new long[] {2, 3, 64, 64}, Placement.FLOAT32_CPU.options());
            Detector.Predictions predictions = new Detector(CONFIG, weights, Placement.FLOAT32_CPU).predict(pictures);
            assertThat(predictions.presence().shape()).containsExactly(2, 8, 8);
            assertThat(predictions.edges().shape()).containsExactly(2, 4, 8, 8);
            assertThat(predictions.colours().shape()).containsExactly(2, 9, 8, 8);
            assertThat(predictions.objects().shape()).containsExactly(2, 4, 8, 8);
        }
    }
}
