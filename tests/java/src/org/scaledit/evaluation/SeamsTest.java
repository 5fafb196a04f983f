package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.Locale;
import java.util.Random;
import org.junit.jupiter.api.Test;

class SeamsTest {
    private static final int SIDE = 96;

    private static byte[] noise(int brighter) {
        Random random = new Random(1);
        byte[] rgb = new byte[3 * SIDE * SIDE];
        for (int i = 0; i < rgb.length; i++) {
            boolean second = i / 3 % SIDE >= 32 && i / 3 % SIDE < 64; // windows of 32 pixels
            rgb[i] = (byte) (random.nextInt(64) + (second ? brighter : 0));
        }
        return rgb;
    }

    @Test
    void noiseHasNoneAndAWindowThatIsBrighterHasSome() {
        Seams none = new Seams();
        none.add(noise(0), SIDE, 32);
        assertThat(none.ratio().orElseThrow().value()).isCloseTo(1, within(0.03));
        Seams some = new Seams();
        some.add(noise(0), SIDE, 32);
        some.add(noise(150), SIDE, 32);
        // Mean differences: 21.3 of noise, 150 of the step, across half of the borders of one of two pictures.
        assertThat(some.ratio().orElseThrow().value()).isCloseTo((0.75 * 21.3 + 0.25 * 150) / 21.3, within(0.1));
    }

    /** What is far from borders does not count, be it much: an object there is no seam. */
    @Test
    void onlyWhatIsBesideABorderIsComparedWithIt() {
        byte[] rgb = new byte[3 * SIDE * SIDE];
        for (int i = 0; i < rgb.length; i++) {
            int x = i / 3 % SIDE;
            rgb[i] = (byte) (x < 32 ? x : x < 40 ? x + 2 : x == 48 ? 255 : 90); // 3 from 31 to 32, 1 about it
        }
        Seams seams = new Seams();
        seams.add(rgb, SIDE, 32);
        // Columns: 3 at 32, 0 at 64; 1 at each of 27 to 37, 0 from 59 to 69. Rows are alike.
        assertThat(seams.ratio().orElseThrow().value()).isCloseTo(3, within(1e-9));
    }

    @Test
    void aPictureOfOneWindowAndAFlatOneSayNothing() {
        Seams one = new Seams();
        one.add(noise(0), SIDE, SIDE);
        assertThat(one.ratio()).isEmpty();
        Seams flat = new Seams();
        flat.add(new byte[3 * SIDE * SIDE], SIDE, 32);
        assertThat(flat.ratio()).isEmpty();
    }

    /** Painted in windows of 64, looked at where windows of 32 would have borders: at 32, not at 64. */
    @Test
    void betweenBordersOfLargerWindowsAreThoseOfSmallerOnes() {
        byte[] rgb = new byte[3 * SIDE * SIDE];
        for (int i = 0; i < rgb.length; i++) {
            int x = i / 3 % SIDE;
            rgb[i] = (byte) (x < 32 ? x : x < 64 ? x + 2 : x + 9); // 3 from 31 to 32, 8 from 63 to 64, 1 elsewhere
        }
        Seams both = new Seams();
        both.add(rgb, SIDE, 32);
        assertThat(both.ratio().orElseThrow().value()).isCloseTo((3 + 8) / 2.0, within(1e-9));
        Seams between = new Seams();
        between.addBetween(rgb, SIDE, 32, 64);
        assertThat(between.ratio().orElseThrow().value()).isCloseTo(3, within(1e-9));
        Seams none = new Seams();
        none.addBetween(rgb, SIDE, 32, 32);
        assertThat(none.ratio()).isEmpty();
    }

    /** The standard error is what the value's spread over many draws of pictures is. */
    @Test
    void theErrorIsTheSpreadOfTheValue() {
        Random random = new Random(2);
        double[] values = new double[300];
        double error = 0;
        for (int draw = 0; draw < values.length; draw++) {
            Seams seams = new Seams();
            for (int picture = 0; picture < 8; picture++) {
                byte[] rgb = new byte[3 * 32 * 32];
                random.nextBytes(rgb);
                seams.add(rgb, 32, 16);
            }
            Seams.Ratio ratio = seams.ratio().orElseThrow();
            values[draw] = ratio.value();
            error += ratio.error() / values.length;
        }
        double mean = Arrays.stream(values).average().orElseThrow();
        double spread = Math.sqrt(
                Arrays.stream(values).map(value -> Math.pow(value - mean, 2)).sum() / (values.length - 1));
        assertThat(error).isCloseTo(spread, within(0.12 * spread));
    }

    @Test
    void onePictureHasNoError() {
        Seams seams = new Seams();
        seams.add(noise(0), SIDE, 32);
        assertThat(seams.ratio().orElseThrow().error()).isNaN();
        assertThat(seams.ratio().orElseThrow().words())
                .isEqualTo(String.format(
                        Locale.ROOT, "%.3f", seams.ratio().orElseThrow().value()));
        assertThat(new Seams.Ratio(1.0078, 0.0041).words()).isEqualTo("1.008 ± 0.004");
    }
}
