package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** The reference's pictures and latents on a GPU. */
@Tag("gpu")
class AutoencoderKlGpuTest {
    @BeforeAll
    static void requireGpu() {
        CudaAttention.requireGpu();
    }

    @Test
    void float32IsTheReference() {
        assertNear(Gpu.FLOAT32, 2e-4);
    }

    @Test
    void bfloat16StaysNear() {
        assertNear(Gpu.BFLOAT16, 0.03);
    }

    private static void assertNear(Placement placement, double limit) {
        try (AutoencoderKl vae = AutoencoderKl.load(Golden.tinyFlux().resolve("vae"), placement);
                Golden golden = Golden.open("vae/vae")) {
            Tensors.run(() -> {
                Tensor image = vae.decode(golden.float32("tiled_decode_latent").squeeze(0), TileListener.NONE);
                assertThat(Golden.relativeL2(
                                image, golden.float32("tiled_decode_image").squeeze(0)))
                        .isLessThan(limit);
                Tensor latent =
                        vae.encode(AutoencoderKlTest.signed(golden.tensor("tiled_encode_image")), TileListener.NONE);
                assertThat(Golden.relativeL2(
                                latent, golden.float32("tiled_encode_mean").squeeze(0)))
                        .isLessThan(limit);
            });
        }
    }
}
