package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.Drawings;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Gpu;
import org.scaledit.testing.TinyModel;
import org.scaledit.training.ModelTraining.Stage;

/** A GPU's losses are the CPU's. */
@Tag("gpu")
class ModelTrainingGpuTest {
    @TempDir
    static Path folder;

    @BeforeAll
    static void draw() throws IOException {
        CudaAttention.requireGpu();
        DrawnPictures.in(folder.resolve("data"), 4, 64, 64);
        Drawings.write(Files.createDirectories(folder.resolve("sprites")));
    }

    private static ModelTraining.Run run(String name, Placement placement, boolean checkpointing) throws Exception {
        String json = TinyModel.CONFIG.replace("\"checkpointing\": false", "\"checkpointing\": " + checkpointing);
        return run(name, placement, json);
    }

    private static ModelTraining.Run run(String name, Placement placement, String json) throws Exception {
        Path config = folder.resolve("model.json");
        Files.writeString(config, json);
        Path output = Files.createDirectories(folder.resolve(name));
        ModelTraining.Run run = new ModelTraining.Run(
                ModelRecipe.read(config),
                output,
                output.resolve("cache"),
                Optional.of(folder.resolve("sprites")),
                false,
                placement,
                1);
        ModelTraining.run(run, stage -> SilentListener.NONE);
        return run;
    }

    private static void assertNear(ModelTraining.Run run, ModelTraining.Run expected, double limit) {
        for (Stage stage : Stage.values()) {
            List<LossLog.Row> rows = LossLog.read(run.lossLog(stage));
            List<LossLog.Row> ofCpu = LossLog.read(expected.lossLog(stage));
            for (int i = 0; i < rows.size(); i++) {
                assertThat(rows.get(i).loss() / ofCpu.get(i).loss())
                        .as("%s %s", stage, rows.get(i))
                        .isBetween(1 - limit, 1 + limit);
            }
        }
    }

    @Test
    void lossesAreThoseOfTheCpu() throws Exception {
        ModelTraining.Run expected = run("cpu", Placement.FLOAT32_CPU, false);
        assertNear(run("float32", Gpu.FLOAT32, false), expected, 1e-2);
        assertNear(run("bfloat16", Gpu.BFLOAT16, false), expected, 5e-2);
        assertNear(run("checkpointing", Gpu.BFLOAT16, true), expected, 5e-2);
    }

    @Test
    void scenesThatTheGpuPaintsTeachTheSame() throws Exception {
        ModelTraining.Run expected = run("scenes-cpu", Placement.FLOAT32_CPU, TinyModel.RECOGNISING);
        assertNear(run("scenes", Gpu.FLOAT32, TinyModel.RECOGNISING), expected, 1e-2);
    }
}
