package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.TinyModel;

/** What a recipe must still say when a training goes on. */
class TrainingCheckpointTest {
    @TempDir
    private Path folder;

    private Map<String, String> settings(String recipe) {
        return TinyRuns.recipe(folder, recipe).settings("text", "transformer");
    }

    private TrainingCheckpoint checkpoint(String recipe) {
        Path file = folder.resolve("checkpoint.safetensors");
        try (Tensor weight = Tensors.outlive(() -> Tensors.of(new float[] {1, 2}, 2));
                Optimizer optimizer = new AdamW(Map.of("weight", weight), 1e-3, 0)) {
            TrainingCheckpoint.write(file, 3, settings(recipe), Map.of("weight", weight), optimizer);
        }
        return TrainingCheckpoint.open(file);
    }

    /** Nothing else tells the two recipes apart. */
    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
            `, "layout": {"cells": 2, "weight": 0.2}` | transformer.layout.cells 2
            `, {"batches": [{"size": 64, "batch": 2}, {"size": 96, "batch": 1}], "steps": 2}` | transformer.training.phases[2].batches
            `, {"size": 96, "batch": 1}` | transformer.training.phases[2].batches[1].size 96
            """)
    void whatIsTakenAwayIsNamed(String taken, String named) {
        String whole = TinyModel.RECOGNISING
                .replace("\"tile\": 64", "\"tile\": 96")
                .replace(
                        "\"steps\": 4, \"samples\": 3}",
                        "\"steps\": 4, \"samples\": 3}, {\"batches\": [{\"size\": 64, \"batch\": 2}, {\"size\": 96, \"batch\": 1}], \"steps\": 2}");
        assertThat(whole).contains(taken);
        try (TrainingCheckpoint checkpoint = checkpoint(whole)) {
            checkpoint.requireOrigin(settings(whole));
            assertThatThrownBy(() -> checkpoint.requireOrigin(settings(whole.replace(taken, ""))))
                    .isInstanceOf(TrainingException.class)
                    .hasMessage(folder.resolve("checkpoint.safetensors") + " was made with " + named
                            + ", expected the same instead of none");
        }
    }
}
