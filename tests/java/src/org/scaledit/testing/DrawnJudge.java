package org.scaledit.testing;

import java.util.List;
import org.scaledit.scenes.Vocabulary;

/** What a judge of four drawn objects is trained with in seconds. */
public final class DrawnJudge {
    /** Of all sorts of pairs and colours some are held out, and some are not. */
    private static final List<String> ICONS = List.of("tulip", "dragon", "fish", "bird");

    public static final Vocabulary VOCABULARY = new Vocabulary(Vocabulary.standard().objects().stream()
            .filter(object -> ICONS.contains(object.icon()))
            .toList());

    /** To be changed by a test. */
    public static final String CONFIG = """
            {
              "seed": 3,
              "data": {"scenes": 100000},
              "network": {"size": 64, "channels": [16, 32, 32], "layers": 1, "groups": 4},
              "augmentation": {"blur": 0.2, "noise": 0.05},
              "exam": 40,
              "training": {
                "learning_rate": 3e-3, "floor": 0.05, "warmup_steps": 50, "weight_decay": 0.01, "average": 0.98,
                "clip_norm": 5, "save_every": 200,
                "phases": [{"size": 64, "batch": 16, "steps": 600}]
              }
            }
            """;

    private DrawnJudge() {}
}
