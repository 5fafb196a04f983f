package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.file.Reasons;

/** Tensors in files that are named by the hash of what they were computed from. An entry is there whole or not at all. */
record ExampleCache(Path folder) {

    /** @throws TrainingException if the folder cannot be made */
    static ExampleCache in(Path folder) {
        try {
            Files.createDirectories(folder);
            return new ExampleCache(folder);
        } catch (IOException e) {
            throw new TrainingException("cache " + folder + " cannot be made: " + Reasons.of(e), e);
        }
    }

    boolean has(String key) {
        return Files.exists(file(key));
    }

    /** @throws org.scaledit.checkpoint.CheckpointException if the entry cannot be written */
    void put(String key, Map<String, Tensor> tensors) {
        SafetensorsWriter.write(file(key), new TreeMap<>(tensors), Map.of());
    }

    /** @throws org.scaledit.checkpoint.CheckpointException if the entry has gone or is damaged */
    Safetensors open(String key) {
        return Safetensors.open(file(key));
    }

    private Path file(String key) {
        return folder.resolve(key + ".safetensors");
    }
}
