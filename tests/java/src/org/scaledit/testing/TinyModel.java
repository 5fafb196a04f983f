package org.scaledit.testing;

/** The recipe of a model that is trained in seconds. */
public final class TinyModel {
    /** Of the smallest model: to be changed by a test. */
    public static final String CONFIG = """
            {
              "seed": 3,
              "data": {"folder": "data"},
              "text": {
                "tokens": 12,
                "clip": {"tokens": 16, "width": 16, "layers": 1, "heads": 2},
                "t5": {"width": 16, "layers": 1, "heads": 2, "hidden": 32}
              },
              "vae": {
                "channels": [8, 8, 16, 16],
                "layers": 1,
                "groups": 4,
                "attention": true,
                "tile": 64,
                "divergence": 1e-4,
                "gradient": 0.5,
                "picture_sizes": [64, 80],
                "training": {
                  "learning_rate": 3e-3, "floor": 0.1, "warmup_steps": 2, "weight_decay": 0.01, "average": 0.9,
                  "clip_norm": 1, "save_every": 3,
                  "phases": [{"size": 32, "batch": 2, "steps": 3}, {"size": 64, "batch": 1, "accumulate": 2, "steps": 3}]
                }
              },
              "transformer": {
                "heads": 1, "head_dim": 64, "axes": [16, 24, 24], "double_blocks": 1, "single_blocks": 1,
                "guidance": false, "caption_dropout": 0.2, "timesteps": "logit-normal", "checkpointing": false,
                "training": {
                  "learning_rate": 3e-3, "floor": 0.1, "warmup_steps": 2, "weight_decay": 0.01, "average": 0.9,
                  "clip_norm": 1, "save_every": 3,
                  "phases": [{"size": 32, "batch": 3, "steps": 4}, {"size": 64, "batch": 2, "accumulate": 2, "steps": 4, "samples": 3}]
                }
              }
            }
            """;

    /** The same of scenes, by Muon: it learns to recognise objects, in the first phase, and to tell a layout. */
    public static final String RECOGNISING = CONFIG.replace("\"folder\": \"data\"", "\"scenes\": 5")
            .replace("\"picture_sizes\": [64, 80]", "\"picture_sizes\": [64, 128]")
            .replace("\"size\": 32, \"batch\": 3", "\"size\": 64, \"batch\": 3, \"samples\": 3")
            .replace(
                    "\"phases\": [{\"size\": 64, \"batch\": 3",
                    "\"optimizer\": \"muon\", \"phases\": [{\"size\": 64, \"batch\": 3")
            .replace(
                    "\"timesteps\"",
                    "\"recognition\": {\"block\": 1, \"weight\": 0.1, \"emphasis\": 3, \"phases\": 1},"
                            + " \"layout\": {\"cells\": 2, \"weight\": 0.2}, \"timesteps\"");

    private TinyModel() {}
}
