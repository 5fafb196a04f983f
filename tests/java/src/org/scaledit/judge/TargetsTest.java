package org.scaledit.judge;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.scaledit.scenes.Box;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.Scene;
import org.scaledit.scenes.SceneObject;
import org.scaledit.scenes.Vocabulary;

/** On 8 × 8 cells: their middles are at 1/16, 3/16 … of the side. */
class TargetsTest {
    private static int[] cellsOf(Targets targets, long object) {
        return IntStream.range(0, 64)
                .filter(cell -> targets.objects()[cell] == object)
                .toArray();
    }

    @Test
    void anObjectIsInTheCellsWhoseMiddlesAreInTheMiddleHalfOfItsBox() {
        Box box = new Box(0.25, 0.5, 0.75, 1); // its middle half: 0.375 … 0.625, 0.625 … 0.875
        Scene scene = HandMade.scene(Optional.empty(), HandMade.item(HandMade.SECOND, Optional.of(Colour.GREEN), box));
        Targets targets = Targets.of(scene, HandMade.CONFIG);
        assertThat(cellsOf(targets, 1)).containsExactly(5 * 8 + 3, 5 * 8 + 4, 6 * 8 + 3, 6 * 8 + 4);
        assertThat(cellsOf(targets, Targets.NOTHING)).hasSize(60);
        assertThat(targets.colours()[5 * 8 + 3]).isEqualTo(Colour.GREEN.ordinal());
        assertThat(targets.colours()[0]).isEqualTo(Targets.NOTHING);
        // from (7/16, 11/16) to the edges
        float[] expected = {0.1875f, 0.1875f, 0.3125f, 0.3125f};
        for (int edge = 0; edge < 4; edge++) {
            assertThat(targets.edges()[edge * 64 + 5 * 8 + 3]).isCloseTo(expected[edge], within(1e-6f));
            assertThat(targets.edges()[edge * 64]).isZero();
        }
    }

    /** It has the cell that its middle is in, though that cell's own middle is beside it. */
    @Test
    void aSlenderObjectHasACell() {
        Box box = new Box(0.501, 0.2, 0.521, 0.8);
        Targets targets = Targets.of(
                HandMade.scene(Optional.empty(), HandMade.item(HandMade.FIRST, Optional.empty(), box)),
                HandMade.CONFIG);
        assertThat(cellsOf(targets, 0)).containsExactly(3 * 8 + 4, 4 * 8 + 4);
        assertThat(targets.colours()[3 * 8 + 4]).isEqualTo(Colour.values().length); // its own
        assertThat(targets.edges()[2 * 64 + 3 * 8 + 4]).isCloseTo(0.0125f, within(1e-6f)); // a tenth of a cell
    }

    @Test
    void whatDoesNotComeInColoursHasNoColour() {
        SceneObject ant = new SceneObject("ant", List.of(new SceneObject.Name("ant", "ants")), false);
        DetectorConfig config = new DetectorConfig(
                64,
                List.of(8, 8, 8),
                1,
                4,
                new Vocabulary(List.of(HandMade.FIRST, HandMade.SECOND, HandMade.THIRD, ant)));
        Targets targets = Targets.of(HandMade.scene(Optional.empty(), HandMade.item(ant)), config);
        assertThat(cellsOf(targets, 3)).hasSize(16);
        assertThat(targets.colours()).containsOnly(Targets.NOTHING);
    }

    @Test
    void ofTwoObjectsACellHasTheNearerOne() {
        Scene scene = HandMade.scene(
                Optional.empty(),
                HandMade.item(HandMade.FIRST, Optional.empty(), new Box(0, 0, 1, 1)),
                HandMade.item(HandMade.THIRD, Optional.empty(), new Box(0.2, 0.2, 0.45, 0.45)));
        Targets targets = Targets.of(scene, HandMade.CONFIG);
        assertThat(targets.objects()[2 * 8 + 2]).isEqualTo(2);
        assertThat(targets.objects()[4 * 8 + 4]).isZero();
        assertThat(cellsOf(targets, 0)).hasSize(16 - cellsOf(targets, 2).length);
    }
}
