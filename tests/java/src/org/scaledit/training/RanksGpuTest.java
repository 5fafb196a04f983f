package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;
import org.scaledit.testing.TinyModel;

/** Ranks on two GPUs, over NCCL, make the step of one. */
@Tag("gpus")
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RanksGpuTest {
    private static final int RANKS = 2;
    private static final int STEPS = 10;

    @TempDir
    static Path folder;

    private static Path data;

    @BeforeAll
    static void draw() {
        CudaAttention.requireGpus(RANKS);
        data = DrawnPictures.in(folder.resolve("data"), 4, 64, 64);
    }

    @Test
    void eachRankHasAGpuAndSumsAreTheSameOnAll() {
        int count = 1 << 20;
        Map<Integer, float[]> seen = new ConcurrentHashMap<>();
        Ranks.run(
                RANKS,
                true,
                exchange -> Tensors.run(() -> {
                    Tensor tensor = torch.arange(new Scalar(count), Gpu.FLOAT32.options());
                    assertThat(tensor.device().index()).isEqualTo((byte) exchange.rank());
                    Tensor moved = Gpu.FLOAT32.place(torch.ones(new long[] {count}, Placement.FLOAT32_CPU.options()));
                    assertThat(moved.device().index()).isEqualTo((byte) exchange.rank());
                    if (exchange.rank() == 1) {
                        tensor.add_(moved);
                    }
                    exchange.sum(tensor);
                    Tensor own = moved.mul(new Scalar(5 + exchange.rank()));
                    exchange.share(own);
                    seen.put(exchange.rank(), Tensors.floats(Placement.FLOAT32_CPU.place(tensor.mul(own))));
                }));
        assertThat(seen).hasSize(RANKS);
        for (float[] values : seen.values()) {
            for (int i = 0; i < count; i++) {
                assertThat(values[i]).isEqualTo(5 * (2f * i + 1));
            }
        }
    }

    @Test
    void aRankThatFailsEndsBoth() {
        for (int failing = 0; failing < RANKS; failing++) {
            int current = failing;
            assertThatThrownBy(() -> Ranks.run(
                            RANKS,
                            true,
                            exchange -> Tensors.run(() -> {
                                Tensor tensor = torch.ones(new long[] {4}, Gpu.FLOAT32.options());
                                exchange.sum(tensor);
                                if (exchange.rank() == current) {
                                    throw new TrainingException("the loss is NaN");
                                }
                                exchange.sum(tensor);
                            })))
                    .isInstanceOf(TrainingException.class)
                    .hasMessage("the loss is NaN");
        }
    }

    private static LoraTraining.Run run(
            String name, Recipe.AttentionKind attention, Placement placement, int ranks, int steps, boolean resume)
            throws Exception {
        Recipe recipe = new Recipe(
                64,
                4,
                8,
                8,
                LoraTargets.RELEASED,
                Recipe.Scope.RELEASED,
                OptionalInt.of(8),
                4,
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
                steps,
                STEPS,
                resume,
                placement,
                ranks,
                Optional.empty());
        LoraTraining.run(run, SilentListener.NONE);
        return run;
    }

    private static void assertNear(LoraTraining.Run run, LoraTraining.Run expected, double limit) {
        List<LossLog.Row> rows = LossLog.read(run.lossLog());
        List<LossLog.Row> ones = LossLog.read(expected.lossLog());
        assertThat(rows).hasSize(STEPS);
        // The matrices are the same as yet: what differs is the order of sums.
        assertThat(rows.get(0).loss() / ones.get(0).loss()).isBetween(1 - 1e-5, 1 + 1e-5);
        assertThat(rows.get(0).gradientNorm() / ones.get(0).gradientNorm()).isBetween(1 - 1e-4, 1 + 1e-4);
        for (int i = 0; i < STEPS; i++) {
            assertThat(rows.get(i).loss() / ones.get(i).loss())
                    .as("%s", rows.get(i))
                    .isBetween(1 - limit, 1 + limit);
        }
        try (Safetensors lora = Safetensors.open(run.output());
                Safetensors one = Safetensors.open(expected.output())) {
            Tensors.run(() -> {
                double squares = 0;
                double differences = 0;
                for (String name : one.names()) {
                    Tensor values = one.tensor(name);
                    squares += Math.pow(values.norm().item_double(), 2);
                    differences += Math.pow(lora.tensor(name).sub(values).norm().item_double(), 2);
                }
                assertThat(Math.sqrt(differences / squares)).isLessThan(10 * limit);
            });
        }
    }

    @Test
    void aTrainingOnTwoGpusIsNearThatOnOne() throws Exception {
        Recipe.AttentionKind dense = Recipe.AttentionKind.DENSE;
        assertNear(
                run("float32-two", dense, Gpu.FLOAT32, RANKS, STEPS, false),
                run("float32-one", dense, Gpu.FLOAT32, 1, STEPS, false),
                1e-4);
        Recipe.AttentionKind core = Recipe.AttentionKind.NATIVE;
        LoraTraining.Run one = run("bfloat16-one", core, Gpu.BFLOAT16, 1, STEPS, false);
        assertNear(run("bfloat16-two", core, Gpu.BFLOAT16, RANKS, STEPS, false), one, 2e-2);
        run("mixed", core, Gpu.BFLOAT16, RANKS, STEPS / 2, false);
        assertNear(run("mixed", core, Gpu.BFLOAT16, 1, STEPS, true), one, 2e-2);
    }

    private static List<List<LossLog.Row>> modelRows(String name, int ranks) throws Exception {
        Path config = folder.resolve("model.json");
        Files.writeString(
                config,
                TinyModel.CONFIG
                        .replace("\"batch\": 3,", "\"batch\": 3, \"accumulate\": 2,")
                        .replace("\"batch\": 2, \"steps\"", "\"batch\": 2, \"accumulate\": 2, \"steps\""));
        Path output = Files.createDirectories(folder.resolve(name));
        ModelTraining.Run run = new ModelTraining.Run(
                ModelRecipe.read(config), output, output.resolve("cache"), Optional.empty(), false, Gpu.FLOAT32, ranks);
        ModelTraining.run(run, stage -> SilentListener.NONE);
        return Stream.of(ModelTraining.Stage.values())
                .map(stage -> LossLog.read(run.lossLog(stage)))
                .toList();
    }

    @Test
    void aModelTrainedOnTwoGpusIsNearThatOfOne() throws Exception {
        List<List<LossLog.Row>> two = modelRows("model-two", RANKS);
        List<List<LossLog.Row>> one = modelRows("model-one", 1);
        for (int stage = 0; stage < one.size(); stage++) {
            assertThat(two.get(stage)).hasSameSizeAs(one.get(stage));
            for (int i = 0; i < one.get(stage).size(); i++) {
                assertThat(two.get(stage).get(i).loss() / one.get(stage).get(i).loss())
                        .isBetween(1 - 1e-2, 1 + 1e-2);
            }
        }
    }
}
