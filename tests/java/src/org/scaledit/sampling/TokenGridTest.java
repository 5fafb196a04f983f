package org.scaledit.sampling;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class TokenGridTest {
    /** In pixels: the picture, its ratio, what plain FLUX paints well; and which guidance image it begins with. */
    @ParameterizedTest
    @CsvSource({
        "4096, 4096, 4, 256, 256, 256",
        "4096, 4096, 4, 1024, 1024, 1024",
        "2048, 2048, 4, 256, 512, 512", // twice as large is near enough
        "16384, 8192, 4, 1024, 1024, 512",
        "16384, 8192, 4, 256, 256, 128",
        "65536, 65536, 2, 16, 32, 32",
        "4112, 4096, 4, 256, 1040, 1024", // 257 tokens are no multiple of 4
        "1040, 1024, 4, 16, 272, 256",
        "512, 512, 1, 16, 512, 512"
    })
    void aPictureBeginsWithOneThatPlainFluxPaintsWell(
            int width, int height, int ratio, int plainSize, int guidanceWidth, int guidanceHeight) {
        TokenGrid grid = TokenGrid.ofPixels(width, height);
        int before = grid.levelsBefore(ratio, plainSize);
        TokenGrid first = grid.reduced(ratio, before);
        assertThat(first.guidance(ratio)).isEqualTo(TokenGrid.ofPixels(guidanceWidth, guidanceHeight));
        for (int level = 0; level < before; level++) {
            first = first.enlarged(ratio);
        }
        assertThat(first).isEqualTo(grid);
    }

    /** A model that paints 256² well: 1024² and 4096², by way of 1024², have it with the usual ratio. */
    @ParameterizedTest
    @CsvSource({
        "1024, 1024, 4",
        "4096, 4096, 4",
        "1024, 512, 4",
        "2048, 1280, 8",
        "2048, 2048, 8",
        "512, 512, 2",
        "256, 256, 1",
        "16384, 16384, 4",
        "768, 768, 4",
        "32, 16, 1"
    })
    void theRatioIsTheOneThatEndsAtAPictureThatIsPaintedWell(int width, int height, int ratio) {
        assertThat(TokenGrid.ofPixels(width, height).ratioFor(256)).isEqualTo(ratio);
    }
}
