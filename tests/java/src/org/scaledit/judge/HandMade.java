package org.scaledit.judge;

import java.util.List;
import java.util.Optional;
import org.scaledit.scenes.Background;
import org.scaledit.scenes.Box;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.Material;
import org.scaledit.scenes.Relation;
import org.scaledit.scenes.Scene;
import org.scaledit.scenes.SceneObject;
import org.scaledit.scenes.Style;
import org.scaledit.testing.DrawnJudge;

/** Scenes and detections without a picture. */
final class HandMade {
    /** 8 × 8 cells. */
    static final DetectorConfig CONFIG = new DetectorConfig(64, List.of(8, 8, 8), 1, 4, DrawnJudge.VOCABULARY);

    static final SceneObject FIRST = DrawnJudge.VOCABULARY.objects().get(0);
    static final SceneObject SECOND = DrawnJudge.VOCABULARY.objects().get(1);
    static final SceneObject THIRD = DrawnJudge.VOCABULARY.objects().get(2);

    private HandMade() {}

    static Scene scene(Optional<Relation> relation, Scene.Item... items) {
        return new Scene(0, Style.CARTOON, Background.PLAIN, relation, List.of(items), "", "");
    }

    static Scene.Item item(SceneObject object, Optional<Colour> colour, Box box) {
        return new Scene.Item(object, colour, Material.NONE, false, 0, 0.5, 0.5, 0.5, box);
    }

    static Scene.Item item(SceneObject object) {
        return item(object, Optional.empty(), new Box(0, 0, 1, 1));
    }

    /** A box of a tenth of the side. */
    static Detection seen(SceneObject object, double x, double y) {
        return new Detection(object, Optional.empty(), new Box(x - 0.05, y - 0.05, x + 0.05, y + 0.05), 0.9);
    }
}
