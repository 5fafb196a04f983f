package org.scaledit.checkpoint;

import java.nio.file.Files;
import java.nio.file.Path;

/**
 * A FLUX.1 checkpoint in the layout of diffusers: {@code model_index.json} and a folder for each part ({@code
 * transformer}, {@code vae}, {@code text_encoder}, {@code text_encoder_2}, {@code tokenizer}, {@code tokenizer_2},
 * {@code scheduler}).
 */
public final class ModelDirectory {
    private static final String PIPELINE = "FluxPipeline";

    private final Path path;

    private ModelDirectory(Path path) {
        this.path = path;
    }

    /** @throws CheckpointException if the folder is missing or is not that of a FLUX.1 model */
    public static ModelDirectory open(Path path) {
        if (!Files.isDirectory(path)) {
            throw new CheckpointException(path + (Files.exists(path) ? " is not a folder" : " does not exist")
                    + ", expected the folder of a FLUX.1 model");
        }
        Config index = Config.read(path.resolve("model_index.json"));
        index.require("_class_name", PIPELINE);
        return new ModelDirectory(path);
    }

    public Path path() {
        return path;
    }

    /** @throws CheckpointException if the model has no such part */
    public Path part(String name) {
        Path part = path.resolve(name);
        if (!Files.isDirectory(part)) {
            throw new CheckpointException(path + " has no folder " + name + ", a part that a FLUX.1 model needs");
        }
        return part;
    }

    /** The {@code config.json} of a part. */
    public Config config(String part) {
        return Config.read(part(part).resolve("config.json"));
    }
}
