package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.assertj.core.api.Assertions.withinPercentage;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.GpuMemory.Picture;
import org.scaledit.GpuMemory.Setting;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Cuda;
import org.scaledit.transformer.FluxConfig;

class GpuMemoryTest {
    private static final double GIB = 1L << 30;
    private static final long TEXT_ENCODERS = 4_885_371_136L; // T5-XXL and CLIP-L

    private static final long T5_BLOCK = 192_946_176;

    private static final GpuMemory DEV = new GpuMemory(FluxConfig.DEV, TEXT_ENCODERS, T5_BLOCK, true);

    private static Picture picture(int width, int height, Precision precision, boolean low, boolean loaded) {
        return new Picture(
                TokenGrid.ofPixels(width, height),
                512,
                false,
                AttentionWindow.DEFAULT,
                new Setting(precision, low),
                3,
                loaded);
    }

    private static Picture square(int side, Precision precision) {
        return picture(side, side, precision, false, false);
    }

    private static String sentence(Picture picture, double freeGib, double totalGib) {
        return DEV.sentence(picture, new Cuda.Memory((long) (freeGib * GIB), (long) (totalGib * GIB)));
    }

    /** As README and java/NOTES.md have them. */
    @ParameterizedTest
    @CsvSource({"BFLOAT16, 23.8e9, 2005", "FP8, 15.2e9, 1817"})
    void theCountOfFluxDevIsThatOfTheNotes(Precision precision, double weights, double above) {
        assertThat((double) DEV.weights(new Setting(precision, false))).isCloseTo(weights, within(0.05e9));
        assertThat((double) (DEV.aboveWeights(square(4096, precision)) >> 20)).isCloseTo(above, withinPercentage(2));
    }

    /** So pictures are painted by GPUs that paint others together. */
    @Test
    void twoGroupsOfHeadsTakeMore() {
        Picture usual = square(4096, Precision.BFLOAT16);
        Picture two = new Picture(usual.grid(), 512, false, AttentionWindow.DEFAULT, usual.setting(), 2, false);
        assertThat((double) (DEV.aboveWeights(two) >> 20)).isCloseTo(2330, withinPercentage(2));
    }

    @Test
    void guidanceThatIsKeptTakesItsKeysAndValues() {
        long kept = 57L * 4096 * 2 * 3072;
        assertThat(aboveWeights(false, false) - aboveWeights(false, true)).isEqualTo(kept);
        assertThat(aboveWeights(true, false) - aboveWeights(true, true)).isEqualTo(2 * kept);
    }

    @Test
    void aNegativeTextTakesItsTokensAndAVelocity() {
        assertThat(aboveWeights(true, true) - aboveWeights(false, true))
                .isEqualTo(512L * 3072 * 2 + 65_536L * 64 * Float.BYTES);
    }

    private static long aboveWeights(boolean negative, boolean guidanceSeesText) {
        AttentionWindow window = AttentionWindow.DEFAULT;
        Picture usual = square(4096, Precision.BFLOAT16);
        return DEV.aboveWeights(new Picture(
                usual.grid(),
                512,
                negative,
                new AttentionWindow(
                        window.ratio(),
                        window.window(),
                        window.reach(),
                        window.guidanceMargin(),
                        window.guidanceAttention(),
                        guidanceSeesText),
                usual.setting(),
                3,
                false));
    }

    @Test
    void theSentenceSaysWhatWouldFit() {
        assertThat(sentence(square(4096, Precision.BFLOAT16), 22, 23.6))
                .isEqualTo(
                        "out of GPU memory: 4096 × 4096 pixels in bfloat16 take about 24.12 GiB, and of the GPU's 23.60"
                                + " GiB 22.00 are free for them; what would fit: the same size with --precision fp8, or the same"
                                + " size with --memory low");
        assertThat(sentence(square(8192, Precision.FP8), 18, 24))
                .isEqualTo(
                        "out of GPU memory: 8192 × 8192 pixels in fp8 take about 21.01 GiB, and of the GPU's 24.00 GiB"
                                + " 18.00 are free for them; what would fit: up to 6080 × 6080 pixels, or the same size with"
                                + " --memory low");
    }

    /** The largest size of a sentence does fit, and the next one does not. */
    @ParameterizedTest
    @CsvSource({"BFLOAT16, 25.3", "BFLOAT16, 31", "FP8, 15.8", "FP8, 20"})
    void theLargestSizeIsTheLargest(Precision precision, double freeGib) {
        String sentence = sentence(square(16_384, precision), freeGib, 80);
        int side = Integer.parseInt(sentence.replaceAll(".*up to (\\d+) ×.*", "$1"));
        assertThat(DEV.bytes(square(side, precision)) / GIB).isLessThanOrEqualTo(freeGib);
        assertThat(DEV.bytes(square(side + 64, precision)) / GIB).isGreaterThan(freeGib);
    }

    @Test
    void twoOptionsAreNamedWhereNeitherAloneHelps() {
        assertThat(sentence(square(16_384, Precision.BFLOAT16), 30, 40))
                .endsWith("pixels, or the same size with --precision fp8 --memory low");
        assertThat(sentence(square(16_384, Precision.BFLOAT16), 33, 40))
                .contains("or the same size with --memory low")
                .doesNotContain("fp8");
    }

    @Test
    void aGpuWithoutFp8IsNotToldOfIt() {
        GpuMemory ampere = new GpuMemory(FluxConfig.DEV, TEXT_ENCODERS, T5_BLOCK, false);
        assertThat(ampere.sentence(square(4096, Precision.BFLOAT16), new Cuda.Memory(22L << 30, 24L << 30)))
                .endsWith("what would fit: the same size with --memory low");
    }

    @Test
    void whereNothingWouldFitTheSentenceSaysSo() {
        assertThat(sentence(picture(2048, 1024, Precision.FP8, true, false), 1, 8))
                .startsWith("out of GPU memory: 2048 × 1024 pixels in fp8 with --memory low take about 2.62 GiB")
                .endsWith("1.00 are free for them; no smaller size would fit either");
    }

    /** Two places of double blocks' size and one of a single block's, and what is outside the blocks. */
    @ParameterizedTest
    @CsvSource({"BFLOAT16, 1.77e9, 3.61", "FP8, 1.21e9, 2.90"})
    void lowMemoryTakesThreePlacesForBlocks(Precision precision, double weights, double gib) {
        assertThat((double) DEV.weights(new Setting(precision, true))).isCloseTo(weights, withinPercentage(1));
        assertThat(DEV.bytes(picture(4096, 4096, precision, true, true)) / GIB).isCloseTo(gib, withinPercentage(1));
    }

    @Test
    void aLowMemoryThatIsTooSmallForASizeHasASmallerOne() {
        assertThat(sentence(picture(8192, 8192, Precision.FP8, true, true), 1, 8))
                .isEqualTo(
                        "out of GPU memory: 8192 × 8192 pixels in fp8 with --memory low take about 7.98 GiB, and of the"
                                + " GPU's 8.00 GiB 2.12 are free for them; what would fit: up to 832 × 832 pixels");
    }

    /** The count is not the whole truth: what should have fitted and did not is halved. */
    @Test
    void aPictureThatShouldHaveFittedIsHalved() {
        assertThat(sentence(square(4096, Precision.FP8), 16, 24))
                .contains("15.91 GiB", "what would fit: up to 2880 × 2880 pixels");
    }

    /** Then free is what the loaded weights take, too, and the text encoders come beside them. */
    @Test
    void theWeightsOfALoadedModelCountAsFree() {
        assertThat(sentence(picture(4096, 4096, Precision.BFLOAT16, false, true), 1, 24))
                .contains("take about 31.27 GiB", "23.17 are free for them", "the same size with --memory low");
    }
}
