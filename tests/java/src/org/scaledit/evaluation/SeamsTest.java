package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
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
        none.add(noise(0), SIDE, 2);
        assertThat(none.windows().orElseThrow().value()).isCloseTo(1, within(0.03));
        Seams some = new Seams();
        some.add(noise(0), SIDE, 2);
        some.add(noise(150), SIDE, 2);
        // Mean differences: 21.3 of noise, 150 of the step, across half of the borders of one of two pictures.
        assertThat(some.windows().orElseThrow().value()).isCloseTo((0.75 * 21.3 + 0.25 * 150) / 21.3, within(0.1));
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
        seams.add(rgb, SIDE, 2);
        // Columns: 3 at 32, 0 at 64; 1 at each of 27 to 37, 0 from 59 to 69. Rows are alike.
        assertThat(seams.windows().orElseThrow().value()).isCloseTo(3, within(1e-9));
    }

    @Test
    void aPictureOfOneWindowAndAFlatOneSayNothing() {
        Seams one = new Seams();
        one.add(noise(0), SIDE, SIDE / 16);
        assertThat(one.windows()).isEmpty();
        Seams flat = new Seams();
        flat.add(new byte[3 * SIDE * SIDE], SIDE, 2);
        assertThat(flat.windows()).isEmpty();
    }

    /** Windows of two tokens: their borders at 32 and 64, other borders of tokens at 16, 48 and 80. */
    @Test
    void bordersOfTokensInsideWindowsAreToldBesideThem() {
        byte[] rgb = new byte[3 * SIDE * SIDE];
        for (int i = 0; i < rgb.length; i++) {
            int x = i / 3 % SIDE;
            rgb[i] = (byte)
                    (x + (x >= 32 ? 2 : 0) + (x >= 48 ? 6 : 0) + (x >= 64 ? 7 : 0)); // 3, 7 and 8 at these, 1 elsewhere
        }
        Seams seams = new Seams();
        seams.add(rgb, SIDE, 2);
        assertThat(seams.windows().orElseThrow().value()).isCloseTo((3 + 8) / 2.0, within(1e-9));
        assertThat(seams.tokens().orElseThrow().value()).isCloseTo((1 + 7 + 1) / 3.0, within(1e-9));
    }

    /** As renders may have: a border five pixels or fewer before the end. */
    @Test
    void aSideThatIsNoMultipleOfATokenIsLookedAtToItsEnd() {
        byte[] rgb = new byte[3 * 65 * 65];
        for (int i = 0; i < rgb.length; i++) {
            int x = i / 3 % 65;
            rgb[i] = (byte) (x + (x >= 64 ? 2 : 0)); // 1 anywhere, 3 from 63 to 64
        }
        Seams seams = new Seams();
        seams.add(rgb, 65, 2);
        assertThat(seams.windows().orElseThrow().value()).isCloseTo((1 + 3) / 2.0, within(1e-9));
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
                byte[] rgb = new byte[3 * 48 * 48];
                random.nextBytes(rgb);
                seams.add(rgb, 48, 2);
            }
            Seams.Ratio ratio = seams.windows().orElseThrow();
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
        for (int seed = 0; seed < 1000; seed++) { // the difference to itself is 1e-16 for some
            byte[] rgb = new byte[3 * 64 * 64];
            new Random(seed).nextBytes(rgb);
            Seams seams = new Seams();
            seams.add(rgb, 64, 2);
            assertThat(seams.windows().orElseThrow().error()).isNaN();
        }
        assertThat(new Seams.Ratio(0.98765, Double.NaN).words()).isEqualTo("0.988");
        assertThat(new Seams.Ratio(1.0078, 0.0041).words()).isEqualTo("1.008 ± 0.004");
    }
}
