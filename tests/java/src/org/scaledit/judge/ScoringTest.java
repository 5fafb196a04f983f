package org.scaledit.judge;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.scaledit.scenes.Box;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.Probe;
import org.scaledit.scenes.Relation;
import org.scaledit.scenes.Scene;

class ScoringTest {
    private static final Detection FIRST = HandMade.seen(HandMade.FIRST, 0.2, 0.5);
    private static final Detection SECOND = HandMade.seen(HandMade.SECOND, 0.8, 0.6);
    private static final Detection THIRD = HandMade.seen(HandMade.THIRD, 0.5, 0.1);

    private static boolean isRight(Probe probe, Scene scene, Detection... seen) {
        return Scoring.isRight(probe, scene, List.of(seen));
    }

    @Test
    void oneAndTwoAreSeenWhateverElseIs() {
        Scene one = HandMade.scene(Optional.empty(), HandMade.item(HandMade.FIRST));
        assertThat(isRight(Probe.ONE, one, FIRST)).isTrue();
        assertThat(isRight(Probe.ONE, one, SECOND, FIRST, FIRST)).isTrue();
        assertThat(isRight(Probe.ONE, one, SECOND)).isFalse();
        assertThat(isRight(Probe.ONE, one)).isFalse();
        Scene two = HandMade.scene(Optional.empty(), HandMade.item(HandMade.FIRST), HandMade.item(HandMade.SECOND));
        assertThat(isRight(Probe.TWO, two, SECOND, THIRD, FIRST)).isTrue();
        assertThat(isRight(Probe.TWO, two, FIRST, FIRST)).isFalse();
    }

    @Test
    void aCountIsExact() {
        Scene three = HandMade.scene(
                Optional.empty(),
                HandMade.item(HandMade.FIRST),
                HandMade.item(HandMade.FIRST),
                HandMade.item(HandMade.FIRST));
        assertThat(isRight(Probe.COUNT, three, FIRST, FIRST, FIRST)).isTrue();
        assertThat(isRight(Probe.COUNT, three, FIRST, SECOND, FIRST, FIRST)).isTrue();
        assertThat(isRight(Probe.COUNT, three, FIRST, FIRST)).isFalse();
        assertThat(isRight(Probe.COUNT, three, FIRST, FIRST, FIRST, FIRST)).isFalse();
        assertThat(isRight(Probe.COUNT, three, FIRST, FIRST, SECOND)).isFalse();
    }

    @Test
    void aColourIsThatOfTheObject() {
        Box box = new Box(0, 0, 0.5, 0.5);
        Scene red = HandMade.scene(Optional.empty(), HandMade.item(HandMade.FIRST, Optional.of(Colour.RED), box));
        Detection asked = new Detection(HandMade.FIRST, Optional.of(Colour.RED), box, 0.5);
        Detection another = new Detection(HandMade.SECOND, Optional.of(Colour.RED), box, 0.5);
        assertThat(isRight(Probe.COLOUR, red, another, FIRST, asked)).isTrue();
        assertThat(isRight(Probe.COLOUR, red, another, FIRST)).isFalse();
    }

    @Test
    void aPositionIsThatOfTheBoxes() {
        for (Relation relation : Relation.values()) {
            Scene scene = HandMade.scene(
                    Optional.of(relation), HandMade.item(HandMade.FIRST), HandMade.item(HandMade.SECOND));
            boolean expected = relation == Relation.LEFT_OF || relation == Relation.NEXT_TO;
            assertThat(isRight(Probe.POSITION, scene, FIRST, SECOND))
                    .as("%s", relation)
                    .isEqualTo(expected);
            assertThat(isRight(Probe.POSITION, scene, FIRST, THIRD)).isFalse();
            Detection below = HandMade.seen(HandMade.SECOND, 0.25, 0.9);
            assertThat(isRight(Probe.POSITION, scene, FIRST, below))
                    .as("%s", relation)
                    .isEqualTo(relation == Relation.ABOVE);
        }
    }

    @Test
    void sharesAreOfEachProbeAndTheirMean() {
        Shares shares = Shares.of(Stream.of(
                new Shares.Mark(Probe.COUNT, true),
                new Shares.Mark(Probe.COUNT, false),
                new Shares.Mark(Probe.COUNT, false),
                new Shares.Mark(Probe.ONE, true)));
        assertThat(shares.overall()).isEqualTo((1 + 1 / 3.0) / 2);
        assertThat(shares.words()).isEqualTo("one 1.000, count 0.333, overall 0.667");
        ObjectNode json = new ObjectMapper().createObjectNode();
        shares.write(json);
        assertThat(json).hasToString("{\"one\":1.0,\"count\":0.3333,\"overall\":0.6667}");
    }
}
