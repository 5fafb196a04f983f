package org.scaledit.training;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import org.scaledit.tensor.Placement;

/** Trainings on the CPU, of what tests write. */
final class TinyRuns {
    private TinyRuns() {}

    /** @param folder that the recipe's paths are relative to */
    static ModelRecipe recipe(Path folder, String json) {
        try {
            Path file = Files.createTempFile(folder, "config", ".json");
            Files.writeString(file, json);
            return ModelRecipe.read(file);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static ModelTraining.Run run(ModelRecipe recipe, Path output, Path sprites, boolean resume, int ranks) {
        try {
            Files.createDirectories(output);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return new ModelTraining.Run(
                recipe, output, output.resolve("cache"), Optional.of(sprites), resume, Placement.FLOAT32_CPU, ranks);
    }
}
