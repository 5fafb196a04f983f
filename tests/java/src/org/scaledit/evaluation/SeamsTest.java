package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

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
        Seams none = new Seams(32);
        none.add(noise(0), SIDE);
        assertThat(none.ratio().orElseThrow()).isCloseTo(1, within(0.03));
        Seams some = new Seams(32);
        some.add(noise(0), SIDE);
        some.add(noise(150), SIDE);
        // Mean differences: 21.3 of noise, 150 of the step, across half of the borders of one of two pictures.
        assertThat(some.ratio().orElseThrow()).isCloseTo((0.75 * 21.3 + 0.25 * 150) / 21.3, within(0.1));
    }

    @Test
    void aPictureOfOneWindowAndAFlatOneSayNothing() {
        Seams one = new Seams(SIDE);
        one.add(noise(0), SIDE);
        assertThat(one.ratio()).isEmpty();
        Seams flat = new Seams(32);
        flat.add(new byte[3 * SIDE * SIDE], SIDE);
        assertThat(flat.ratio()).isEmpty();
    }
}
