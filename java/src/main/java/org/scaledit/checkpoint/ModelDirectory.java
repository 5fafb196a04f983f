package org.scaledit.checkpoint;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeMap;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Reasons;

/**
 * A FLUX.1 checkpoint in the layout of diffusers: {@code model_index.json} and a folder for each part ({@code
 * transformer}, {@code vae}, {@code text_encoder}, {@code text_encoder_2}, {@code tokenizer}, {@code tokenizer_2},
 * {@code scheduler}).
 */
public final class ModelDirectory {
    private static final String PIPELINE = "FluxPipeline";

    /** The parts that have weights, and the name of their files without its ending. */
    private static final Map<String, String> STEMS = new TreeMap<>(Map.of(
            "transformer", "diffusion_pytorch_model",
            "vae", "diffusion_pytorch_model",
            "text_encoder", "model",
            "text_encoder_2", "model"));

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

    /** Tells what paints apart from that of other models, whatever folder it is in; of large files a part is read. */
    public String contentHash() {
        ContentHash hash = new ContentHash();
        for (String name : List.of("transformer", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")) {
            try {
                hash.text(name).model(part(name));
            } catch (IOException e) {
                throw new CheckpointException(part(name) + " cannot be read: " + Reasons.of(e), e);
            }
        }
        return hash.hex();
    }

    /** The names of the parts that have weights. */
    public static Set<String> weighted() {
        return Collections.unmodifiableSet(STEMS.keySet());
    }

    /** What the safetensors file of a part is called, where it is one file. */
    static String weightsFile(String part) {
        return STEMS.get(part) + ".safetensors";
    }

    /**
     * The weights of a part, of its one file or of its shards.
     *
     * @throws CheckpointException if a file is missing or damaged
     */
    public Safetensors weights(String part) {
        return Safetensors.openModel(part(part), Objects.requireNonNull(STEMS.get(part)));
    }

    /** The {@code config.json} of a part. */
    public Config config(String part) {
        return Config.read(part(part).resolve("config.json"));
    }
}
