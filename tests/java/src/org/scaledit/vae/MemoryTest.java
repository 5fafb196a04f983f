package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.scaledit.image.PixelSource;
import org.scaledit.image.Resize;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.ProcessMemory;

/**
 * The process's memory while large pictures pass through. One tile of this model makes about 20 MiB of activations; all
 * of the picture would be 95 MiB.
 */
@EnabledOnOs(OS.LINUX)
class MemoryTest {
    private static final long BOUND = 16L << 20;

    private final AutoencoderKl vae = AutoencoderKl.load(Golden.tinyFlux().resolve("vae"), Placement.FLOAT32_CPU);
    private long atFirst;
    private long peak;

    @AfterEach
    void close() {
        vae.close();
    }

    @Test
    void decodingHoldsOneTileAndOneBand() {
        Tensors.run(() -> {
            Tensor latent = torch.randn(16, 10_800, 12); // 900 tiles, 95 MiB as a float picture
            long[] rows = {0};

            vae.decode(latent, this::watch, (firstRow, band) -> rows[0] += band.size(1));

            assertThat(rows[0]).isEqualTo(8 * 10_800);
        });
        assertThat(peak - atFirst).isLessThan(BOUND);
    }

    @Test
    void encodingAnEnlargedPictureHoldsOneTile() {
        Tensors.run(() -> {
            Tensor small = torch.rand(3, 10_800, 12);
            PixelSource picture = Resize.enlarged(small, 8, 8 * 10_800, 8 * 12); // 95 MiB as a float picture

            Tensor latent = vae.encode(picture, this::watch);

            assertThat(latent.shape()).containsExactly(16, 10_800, 12);
        });
        assertThat(peak - atFirst).isLessThan(BOUND);
    }

    /**
     * The most of the first ninth is what a tile needs, with what the allocator keeps from one to the next; from then on
     * nothing may be added.
     */
    private void watch(int finished, int tiles) {
        if (finished % 10 != 0) {
            return;
        }
        peak = Math.max(peak, ProcessMemory.residentBytes());
        if (finished <= tiles / 9) {
            atFirst = peak;
        }
    }
}
