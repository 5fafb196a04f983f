package org.scaledit.judge;

import java.util.List;
import java.util.Optional;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.Probe;
import org.scaledit.scenes.Relation;
import org.scaledit.scenes.Scene;
import org.scaledit.scenes.SceneObject;

/** Whether a picture shows what was asked for, by GenEval's rules (arXiv 2310.11513): what else it shows does not count. */
public final class Scoring {
    private Scoring() {}

    /**
     * @param scene composed for the probe; the picture was painted from its caption
     * @param seen in the picture
     */
    public static boolean isRight(Probe probe, Scene scene, List<Detection> seen) {
        Scene.Item first = scene.items().get(0);
        return switch (probe) {
            case ONE -> count(seen, first.object()) > 0;
            case TWO ->
                count(seen, first.object()) > 0
                        && count(seen, scene.items().get(1).object()) > 0;
            case COUNT -> count(seen, first.object()) == scene.items().size();
            case COLOUR -> isSeen(seen, first.object(), first.colour());
            case POSITION ->
                isSeen(
                        seen,
                        first.object(),
                        scene.relation().orElseThrow(),
                        scene.items().get(1).object());
        };
    }

    private static long count(List<Detection> seen, SceneObject object) {
        return seen.stream()
                .filter(detection -> detection.object().equals(object))
                .count();
    }

    private static boolean isSeen(List<Detection> seen, SceneObject object, Optional<Colour> colour) {
        return seen.stream()
                .anyMatch(detection ->
                        detection.object().equals(object) && detection.colour().equals(colour));
    }

    private static boolean isSeen(List<Detection> seen, SceneObject first, Relation relation, SceneObject second) {
        return seen.stream()
                .filter(detection -> detection.object().equals(first))
                .anyMatch(one -> seen.stream()
                        .filter(detection -> detection.object().equals(second))
                        .anyMatch(other -> relation.isSeen(one.box(), other.box())));
    }
}
