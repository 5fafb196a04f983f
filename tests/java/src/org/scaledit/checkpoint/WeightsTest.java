package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.Golden;

class WeightsTest {
    private static final Path TRANSFORMER = Golden.tinyFlux().resolve("transformer");

    private static Safetensors open() {
        return Safetensors.openModel(TRANSFORMER, "diffusion_pytorch_model");
    }

    @Test
    void loadsToThePlacement() {
        try (Weights weights = Weights.of(open(), Placement.FLOAT32_CPU);
                PointerScope scope = new PointerScope()) {
            assertThat(weights.loadedBytes()).isZero();
            Tensor weight = weights.at("transformer_blocks.0.attn").load("to_q.weight", 256, 256);
            assertThat(weight.scalar_type().intern()).isEqualTo(torch.ScalarType.Float);
            assertThat(weight.shape()).containsExactly(256, 256);
            assertThat(weights.loadedBytes()).isEqualTo(256 * 256 * 4);
        }
    }

    @Test
    void golden() {
        try (Golden golden = Golden.open("text_encoders/text");
                PointerScope scope = new PointerScope()) {
            assertThat(Golden.maxAbsoluteDifference(golden.float32("t5_0"), golden.tensor("t5_0")))
                    .isZero();
        }
    }
}
