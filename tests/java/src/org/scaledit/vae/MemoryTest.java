package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
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

/**
 * The process's memory while large pictures pass through. One tile of this model makes about 20 MiB of activations, and
 * the allocator was seen to keep that much more from one tile to the next; the picture itself would be 95 MiB.
 */
@EnabledOnOs(OS.LINUX)
class MemoryTest {
    private static final long BOUND = 48L << 20;

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

    /** What is there after ten tiles is what a tile needs; from then on nothing may be added. */
    private void watch(int finished, int tiles) {
        if (finished == 10) {
            atFirst = residentBytes();
        } else if (finished % 10 == 0) {
            peak = Math.max(peak, residentBytes());
        }
    }

    private static long residentBytes() {
        try {
            String pages = Files.readString(Path.of("/proc/self/statm")).split(" ")[1];
            return Long.parseLong(pages) * 4096;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
