package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.image.ImageFile;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Tensors;

class BucketTest {
    @ParameterizedTest
    @CsvSource({"1024,4", "1024,8", "512,1", "128,4", "64,4", "192,2", "4096,8", "1152,4"})
    void bucketsAreWholeGuidanceTokensOfAboutTheArea(int resolution, int ratio) {
        List<Bucket> buckets = Bucket.of(resolution, ratio);
        TokenGrid square = TokenGrid.ofPixels(resolution, resolution);
        assertThat(buckets).contains(new Bucket(square)).doesNotHaveDuplicates();
        for (Bucket bucket : buckets) {
            TokenGrid grid = bucket.grid();
            TokenGrid guidance = grid.guidance(ratio);
            assertThat(guidance.width() * ratio).isEqualTo(grid.width());
            assertThat(guidance.height() * ratio).isEqualTo(grid.height());
            assertThat((double) grid.tokens() / square.tokens()).isBetween(0.8, 1.2);
            assertThat(Math.max(grid.width(), grid.height())).isLessThanOrEqualTo(2 * square.width());
            assertThat(buckets).contains(new Bucket(new TokenGrid(grid.height(), grid.width())));
        }
    }

    @ParameterizedTest
    @CsvSource({
        "1000,1000,64,64",
        "4000,3000,72,56",
        "3000,4000,56,72",
        "1920,1080,84,48",
        "1080,1920,48,84",
        "9000,100,128,32",
        "1,1,64,64"
    })
    void aPictureGoesWhereItsShapeIsNearest(int width, int height, int columns, int rows) {
        assertThat(Bucket.nearest(Bucket.of(1024, 4), new ImageFile.Size(width, height))
                        .grid())
                .isEqualTo(new TokenGrid(columns, rows));
    }

    @ParameterizedTest
    @CsvSource({"1000,4,64", "0,4,64", "-64,4,64", "1024,3,48", "16384,1,16"})
    void aResolutionThatIsNoWholeNumberOfGuidanceTokensIsRefused(int resolution, int ratio, int step) {
        assertThatThrownBy(() -> Bucket.of(resolution, ratio))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("resolution is " + resolution + ", expected a multiple of " + step
                        + " (16 times the ratio) from " + step + " to 8192");
    }

    /** A ramp from left to right: what is cropped are its ends, evenly. */
    @Test
    void aPictureIsResizedAndCroppedAroundItsMiddle() {
        Tensors.run(() -> {
            float[] ramp = new float[3 * 128 * 256];
            for (int i = 0; i < ramp.length; i++) {
                ramp[i] = i % 256 / 127.5f - 1;
            }
            Tensor image = Tensors.of(ramp, 3, 128, 256);
            Tensor fitted = new Bucket(new TokenGrid(4, 4)).fit(image);
            assertThat(fitted.shape()).containsExactly(3, 64, 64);
            float[] values = Tensors.floats(fitted.select(0, 0).select(0, 30));
            for (int x = 0; x < 64; x++) {
                // Half the size: the middle of pixel x is that of 2x and 2x + 1, 64 to the right.
                assertThat(values[x]).isCloseTo((64 + 2 * x + 0.5f) / 127.5f - 1, within(1e-3f));
            }
            Tensor same = new Bucket(new TokenGrid(16, 8)).fit(image);
            assertThat(same.equal(image)).isTrue();
        });
    }
}
