package org.scaledit.testing;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.judge.DetectorConfig;
import org.scaledit.judge.Judge;
import org.scaledit.judge.Shares;
import org.scaledit.scenes.Probe;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

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

    /** Writes one whose weights are nothing, and which says that it is right about half of all pictures. */
    public static void writeUntrained(Path folder, DetectorConfig config) {
        Shares half =
                new Shares(Stream.of(Probe.values()).collect(Collectors.toMap(Function.identity(), probe -> 0.5)));
        Tensors.run(() -> {
            Map<String, Tensor> weights = new LinkedHashMap<>();
            config.expectedTensors()
                    .forEach((name, shape) -> weights.put(name, torch.zeros(shape, Placement.FLOAT32_CPU.options())));
            Judge.write(folder, config, weights, new Judge.Accuracy(half, half));
        });
    }
}
