package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class LatentsTest {
    private final PointerScope scope = new PointerScope();

    @AfterEach
    void closeScope() {
        scope.close();
    }

    @Test
    void packsPatchesInRasterOrderByChannelRowAndColumn() {
        int height = 3;
        int width = 5;
        Tensor latent = torch.randn(16, 2 * height, 2 * width);

        Tensor tokens = Latents.pack(latent);

        assertThat(tokens.shape()).containsExactly(15, 64);
        float[] packed = Tensors.floats(tokens);
        float[] map = Tensors.floats(latent);
        for (int channel = 0; channel < 16; channel++) {
            for (int y = 0; y < 2 * height; y++) {
                for (int x = 0; x < 2 * width; x++) {
                    int token = y / 2 * width + x / 2;
                    int value = channel * 4 + y % 2 * 2 + x % 2;
                    assertThat(packed[token * 64 + value]).isEqualTo(map[(channel * 2 * height + y) * 2 * width + x]);
                }
            }
        }
    }

    @Test
    void unpackingUndoesPacking() {
        Tensor latent = torch.randn(16, 14, 6);

        Tensor again = Latents.unpack(Latents.pack(latent), 7, 3);

        assertThat(Golden.maxAbsoluteDifference(again, latent)).isZero();
    }

    @Test
    void scalesByTheConfigsFactors() {
        VaeConfig config = new VaeConfig(List.of(8, 8, 8, 8), 1, 4, 16, 128, 0.3611, 0.1159, true);
        Tensor raw = Tensors.of(new float[] {0.1159f, 1.1159f, -2}, 3);

        Tensor scaled = Latents.scale(raw, config);

        assertThat(Tensors.floats(scaled)[0]).isCloseTo(0, within(1e-7f));
        assertThat(Tensors.floats(scaled)[1]).isCloseTo(0.3611f, within(1e-6f));
        assertThat(Tensors.floats(scaled)[2]).isCloseTo(-0.76405f, within(1e-5f));
        assertThat(Golden.maxAbsoluteDifference(Latents.unscale(scaled, config), raw))
                .isLessThan(1e-6f);
    }
}
