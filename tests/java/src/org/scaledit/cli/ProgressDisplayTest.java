package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.PrintWriter;
import java.io.StringWriter;
import org.junit.jupiter.api.Test;

class ProgressDisplayTest {
    private final StringWriter text = new StringWriter();
    private final ProgressDisplay lines = new ProgressDisplay.Lines(new PrintWriter(text, true));

    private void encode(long each, long all) {
        for (long step = each; step <= all; step += each) {
            lines.show("encode", step, all, "pictures");
        }
    }

    @Test
    void thereIsALineAPercentHoweverManyStepsAreDoneAtATime() {
        encode(32, 9600);
        assertThat(text.toString().lines())
                .hasSize(100)
                .startsWith("encode 96/9600, pictures")
                .endsWith("encode 9600/9600, pictures");
    }

    @Test
    void aStageOfFewerStepsHasALineForEach() {
        encode(1, 3);
        assertThat(text.toString().lines())
                .containsExactly("encode 1/3, pictures", "encode 2/3, pictures", "encode 3/3, pictures");
    }

    @Test
    void aStageThatBeginsAgainIsShownFromItsBeginning() {
        encode(1, 2);
        encode(1, 2);
        encode(5, 10);
        assertThat(text.toString().lines())
                .containsExactly(
                        "encode 1/2, pictures",
                        "encode 2/2, pictures",
                        "encode 1/2, pictures",
                        "encode 2/2, pictures",
                        "encode 5/10, pictures",
                        "encode 10/10, pictures");
    }

    /** As a training does that is resumed. */
    @Test
    void oneThatGoesOnSaysNothingOfWhatWasBefore() {
        lines.show("train", 501, 1000, "loss");
        lines.show("train", 502, 1000, "loss");
        lines.show("train", 510, 1000, "loss");
        assertThat(text.toString().lines()).containsExactly("train 510/1000, loss");
    }
}
