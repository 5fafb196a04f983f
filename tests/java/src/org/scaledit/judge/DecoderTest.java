package org.scaledit.judge;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.scaledit.scenes.Box;
import org.scaledit.scenes.Colour;

class DecoderTest {
    private static final int CELLS = 64;

    private float[] values;

    @BeforeEach
    void nothing() {
        values = new float[HandMade.CONFIG.outputs() * CELLS];
        Arrays.fill(values, 0, CELLS, -20);
    }

    /** A prediction of a box around a cell's middle. */
    private void put(int row, int column, double presence, int object, int colour, double reach) {
        int cell = row * 8 + column;
        values[cell] = (float) presence;
        for (int edge = 0; edge < 4; edge++) {
            values[(DetectorConfig.EDGES + edge) * CELLS + cell] = (float) Math.log(reach);
        }
        values[(DetectorConfig.COLOURS + colour) * CELLS + cell] = 5;
        values[(DetectorConfig.OBJECTS + object) * CELLS + cell] = 10;
    }

    private List<Detection> decoded() {
        return new Decoder(HandMade.CONFIG).detections(values);
    }

    @Test
    void aCellSaysWhatIsThere() {
        assertThat(decoded()).isEmpty();
        put(2, 5, 3, 1, Colour.BLUE.ordinal(), 0.125);
        assertThat(decoded()).hasSize(1);
        Detection detection = decoded().get(0);
        assertThat(detection.object()).isEqualTo(HandMade.SECOND);
        assertThat(detection.colour()).contains(Colour.BLUE);
        Box box = detection.box();
        assertThat(new double[] {box.left(), box.top(), box.right(), box.bottom()})
                .containsExactly(new double[] {0.5625, 0.1875, 0.8125, 0.4375}, within(1e-6));
        // 1 / (1 + e⁻³), and e¹⁰ of e¹⁰ + 3
        assertThat(detection.score()).isCloseTo(0.952574 * 0.999864, within(1e-5));
        assertThat(detection.words()).isEqualTo("blue " + HandMade.SECOND.name() + " 0.95 at 0.69 0.31");
    }

    @Test
    void theSurestOfOverlappingBoxesIsKept() {
        put(3, 3, 1, 0, Colour.values().length, 0.25);
        put(3, 4, 2, 1, Colour.values().length, 0.25);
        put(4, 4, 3, 2, Colour.values().length, 0.25);
        put(0, 0, 2, 0, Colour.values().length, 0.1);
        assertThat(decoded()).extracting(Detection::object).containsExactly(HandMade.THIRD, HandMade.FIRST);
        assertThat(decoded().get(0).colour()).isEqualTo(Optional.empty());
    }

    @Test
    void whatIsNotSureIsNothing() {
        put(1, 1, -1, 0, 0, 0.1); // 0.27
        put(6, 6, -0.8, 0, 0, 0.1); // 0.31
        put(6, 1, 2, 0, 0, 0.1); // 0.88, but it may be any object
        values[(DetectorConfig.OBJECTS) * CELLS + 6 * 8 + 1] = 0;
        assertThat(decoded()).hasSize(1);
        assertThat(decoded().get(0).score()).isCloseTo(0.31, within(0.005));
    }
}
