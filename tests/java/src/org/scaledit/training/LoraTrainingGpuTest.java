package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** A GPU's losses are the CPU's. */
@Tag("gpu")
class LoraTrainingGpuTest {
    private static final int STEPS = 10;

    @TempDir
    static Path folder;

    private static Path data;

    @BeforeAll
    static void draw() {
        CudaAttention.requireGpu();
        data = DrawnPictures.in(folder.resolve("data"), 4, 64, 64);
    }

    /** AdamW moves the matrices at once, so that wrong gradients would show. */
    private static List<LossLog.Row> rows(String name, Recipe.AttentionKind attention, Placement placement)
            throws Exception {
        Recipe recipe = new Recipe(
                64,
                4,
                8,
                8,
                LoraTargets.RELEASED,
                Recipe.Scope.RELEASED,
                OptionalInt.of(8),
                2,
                Recipe.OptimizerKind.ADAMW,
                1e-3,
                Recipe.Timesteps.LOGIT_NORMAL,
                OptionalDouble.empty(),
                OptionalDouble.empty(),
                attention,
                7);
        LoraTraining.Run run = new LoraTraining.Run(
                Golden.tinyFlux(),
                data,
                folder.resolve("cache"),
                Files.createDirectories(folder.resolve(name)).resolve("lora.safetensors"),
                recipe,
                STEPS,
                STEPS,
                false,
                placement,
                1,
                Optional.empty());
        LoraTraining.run(run, SilentListener.NONE);
        return LossLog.read(run.lossLog());
    }

    private static void assertNear(List<LossLog.Row> rows, List<LossLog.Row> expected, double limit) {
        for (int i = 0; i < STEPS; i++) {
            LossLog.Row row = rows.get(i);
            assertThat(row.loss() / expected.get(i).loss()).as("%s", row).isBetween(1 - limit, 1 + limit);
            assertThat(row.gradientNorm() / expected.get(i).gradientNorm())
                    .as("%s", row)
                    .isBetween(1 - 10 * limit, 1 + 10 * limit);
        }
    }

    @Test
    void lossesAndGradientsAreThoseOfTheCpu() throws Exception {
        List<LossLog.Row> expected = rows("cpu", Recipe.AttentionKind.NATIVE, Placement.FLOAT32_CPU);
        assertNear(rows("float32", Recipe.AttentionKind.DENSE, Gpu.FLOAT32), expected, 2e-3);
        assertNear(rows("bfloat16", Recipe.AttentionKind.NATIVE, Gpu.BFLOAT16), expected, 2e-2);
    }
}
