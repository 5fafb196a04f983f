package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.ScaledLora;

/** Whole trainings on the tiny model. */
class LoraTrainingTest {
    @TempDir
    Path folder;

    private static Recipe recipe() {
        return new Recipe(
                64,
                Integer.getInteger("t.ratio", 1),
                Integer.getInteger("t.rank", 16),
                Integer.getInteger("t.rank", 16),
                LoraTargets.valueOf(System.getProperty("t.targets", "QKV")),
                Recipe.Scope.valueOf(System.getProperty("t.scope", "GUIDANCE")),
                OptionalInt.of(8),
                1,
                Recipe.OptimizerKind.PRODIGY,
                1,
                Recipe.Timesteps.LOGIT_NORMAL,
                OptionalDouble.empty(),
                Recipe.AttentionKind.NATIVE,
                7);
    }

    private static final class Quiet implements TrainingListener {
        final List<LossLog.Row> rows = new ArrayList<>();

        @Override
        public void encoded(int done, int all) {}

        @Override
        public void stepped(LossLog.Row row, long steps, Pace pace) {
            rows.add(row);
        }

        @Override
        public void saved(long step) {}
    }

    @Test
    void threeHundredStepsLowerTheLoss() {
        Path data = DrawnPictures.in(folder.resolve("data"), 16, 64, 64);
        LoraTraining.Run run = new LoraTraining.Run(
                Golden.tinyFlux(),
                data,
                folder.resolve("cache"),
                folder.resolve("lora.safetensors"),
                recipe(),
                300,
                100,
                false,
                Placement.FLOAT32_CPU);
        Quiet quiet = new Quiet();
        long begun = System.nanoTime();
        LoraTraining.run(run, quiet);
        System.err.println("seconds " + (System.nanoTime() - begun) * 1e-9);
        for (int i = 0; i < 300; i += 20) System.err.println(quiet.rows.get(i));
        TrainingSet set = new TrainingSet(
                Example.of(data),
                new TrainingSet.Encoding(
                        ModelDirectory.open(Golden.tinyFlux()), 64, recipe().ratio(), 8, Placement.FLOAT32_CPU),
                new ExampleCache(run.cache()));
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        try (FluxTransformer plain = FluxTransformer.load(directory, Placement.FLOAT32_CPU);
                Lora lora = Lora.load(run.output());
                FluxTransformer adapted = plain.withLoras(
                        List.of(new ScaledLora(lora, 1)), recipe().scope().ofTransformer())) {
            double before = loss(set, plain);
            double after = loss(set, adapted);
            System.err.println(before + " -> " + after);
            assertThat(after).isLessThan(0.8 * before);
        }
    }

    private static double loss(TrainingSet set, FluxTransformer transformer) {
        AttentionWindow window =
                new AttentionWindow(recipe().ratio(), 16, 1, 3, AttentionWindow.GuidanceAttention.GLOBAL, true);
        try (FlowMatching matching = new FlowMatching(transformer, Recipe.AttentionKind.NATIVE, window)) {
            double sum = 0;
            for (int sample = 0; sample < set.size(); sample++) {
                for (double sigma : new double[] {0.2, 0.5, 0.8}) {
                    int current = sample;
                    sum += Tensors.compute(() -> matching.loss(
                            set.bucket(current).grid(),
                            set.inputs(current),
                            new FlowMatching.Noising(sigma, 99 + current)));
                }
            }
            return sum / (3 * set.size());
        }
    }
}
