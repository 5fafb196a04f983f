package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.assertj.core.api.Assumptions.assumeThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.TreeMap;
import java.util.concurrent.CancellationException;
import java.util.function.UnaryOperator;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.image.ImageException;
import org.scaledit.image.ImageFile;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.ScaledLora;

/** Whole trainings on the tiny model, of pictures that are drawn here. */
class LoraTrainingTest {
    private static final int TEXT_TOKENS = 8;

    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static Path data;
    private static Path cache;

    @BeforeAll
    static void draw() {
        data = DrawnPictures.in(shared.resolve("data"), 16, 64, 64);
        cache = shared.resolve("cache");
    }

    private static Recipe recipe(Recipe.OptimizerKind optimizer, int accumulate, OptionalDouble clipNorm) {
        return new Recipe(
                64,
                4,
                16,
                16,
                LoraTargets.QKV,
                Recipe.Scope.GUIDANCE,
                OptionalInt.of(TEXT_TOKENS),
                accumulate,
                optimizer,
                optimizer.defaultLearningRate(),
                Recipe.Timesteps.LOGIT_NORMAL,
                clipNorm,
                OptionalDouble.empty(),
                Recipe.AttentionKind.NATIVE,
                7);
    }

    private static Recipe prodigy() {
        return recipe(Recipe.OptimizerKind.PRODIGY, 1, OptionalDouble.empty());
    }

    private LoraTraining.Run run(String name, Recipe recipe, int steps, int saveEvery) {
        return new LoraTraining.Run(
                Golden.tinyFlux(),
                data,
                cache,
                made(folder.resolve(name)).resolve("lora.safetensors"),
                recipe,
                steps,
                saveEvery,
                false,
                Placement.FLOAT32_CPU,
                1,
                Optional.empty());
    }

    private static Path made(Path folder) {
        try {
            return Files.createDirectories(folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static LoraTraining.Run resumed(LoraTraining.Run run) {
        return resumed(run, run.recipe(), run.data(), run.steps());
    }

    private static LoraTraining.Run resumed(LoraTraining.Run run, Recipe recipe, Path data, long steps) {
        return new LoraTraining.Run(
                run.model(),
                data,
                run.cache(),
                run.output(),
                recipe,
                steps,
                run.saveEvery(),
                true,
                run.placement(),
                run.ranks(),
                Optional.empty());
    }

    private static void assertSameFile(Path a, Path b) {
        try {
            assertThat(Files.mismatch(a, b)).as("%s and %s", a, b).isEqualTo(-1);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static void assertSame(LoraTraining.Run a, LoraTraining.Run b) {
        assertSameFile(a.output(), b.output());
        assertSameFile(a.lossLog(), b.lossLog());
        assertSameFile(a.checkpoint(), b.checkpoint());
    }

    @Test
    void threeHundredStepsOfProdigyLowerTheLossByAFifthAtLeast() {
        LoraTraining.Run run = run("loss", prodigy(), 300, 300);
        List<Double> rates = new ArrayList<>();
        LoraTraining.run(run, new SilentListener() {
            @Override
            public void stepped(LossLog.Row row, long steps, Pace pace) {
                rates.add(row.learningRate());
                assertThat(pace.samplesPerSecond()).isPositive();
                assertThat(pace.remaining().isNegative()).isFalse();
            }
        });
        assertThat(rates).hasSize(300).startsWith(1e-6);
        assertThat(rates.get(299)).isGreaterThan(1e-4); // Prodigy has found its step size
        try (FluxTransformer plain = FluxTransformer.load(model(), Placement.FLOAT32_CPU);
                Lora lora = Lora.load(run.output());
                FluxTransformer adapted = plain.withLoras(
                        List.of(new ScaledLora(lora, 1)), run.recipe().scope().ofTransformer())) {
            double before = loss(plain);
            double after = loss(adapted);
            assertThat(before).isBetween(2.0, 4.0);
            assertThat(after).isLessThan(0.8 * before);
        }
    }

    private static ModelDirectory model() {
        return ModelDirectory.open(Golden.tinyFlux());
    }

    private static TrainingSet set() {
        return new TrainingSet(
                Example.of(data),
                new TrainingSet.Encoding(model(), 64, 4, TEXT_TOKENS, Placement.FLOAT32_CPU),
                ExampleCache.in(cache));
    }

    /** Of all pictures, at noise levels and with noise that are always the same. */
    private static double loss(FluxTransformer transformer) {
        TrainingSet set = set();
        try (FlowMatching matching =
                new FlowMatching(transformer, Recipe.AttentionKind.NATIVE, AttentionWindow.DEFAULT)) {
            double sum = 0;
            for (int sample = 0; sample < set.size(); sample++) {
                for (double sigma : new double[] {0.2, 0.5, 0.8}) {
                    int current = sample;
                    sum += Tensors.compute(() -> matching.loss(
                            set.bucket(current).grid(),
                            set.inputs(current),
                            new FlowMatching.Noising(
                                    sigma,
                                    SeededNoise.draw(
                                            1000 + current, set.bucket(current).grid())),
                            () -> {}));
                }
            }
            return sum / (3 * set.size());
        }
    }

    /** A run, the same again, and the same stopped twice: once by an interrupt, once by an exception after a checkpoint. */
    @ParameterizedTest
    @EnumSource
    void aRunThatIsStoppedAndResumedIsBitForBitTheOneThatIsNot(Recipe.OptimizerKind optimizer) {
        Recipe recipe = replaced(recipe(optimizer, 2, OptionalDouble.of(0.02)), 16, OptionalDouble.of(0.9), 7);
        LoraTraining.Run whole = run("whole", recipe, 12, 5);
        LoraTraining.run(whole, SilentListener.NONE);
        List<LossLog.Row> rows = LossLog.read(whole.lossLog());
        assertThat(rows).hasSize(12).allMatch(row -> row.gradientNorm() > 0.02); // so that it was clipped
        LoraTraining.Run again = run("again", recipe, 12, 5);
        LoraTraining.run(again, SilentListener.NONE);
        assertSame(again, whole);

        LoraTraining.Run stopped = run("stopped", recipe, 12, 5);
        assertThatThrownBy(() -> LoraTraining.run(stopped, new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        if (row.step() == 3) {
                            Thread.currentThread().interrupt();
                        }
                    }
                }))
                .isInstanceOf(CancellationException.class)
                .hasMessage("the training was stopped after 3 steps; --resume goes on from there");
        assertThat(LossLog.read(stopped.lossLog())).isEqualTo(rows.subList(0, 3));
        assertThatThrownBy(() -> LoraTraining.run(resumed(stopped), new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        assertThat(row.step()).isGreaterThan(3);
                        if (row.step() == 9) {
                            throw new IllegalStateException("killed");
                        }
                    }
                }))
                .hasMessage("killed");
        List<Long> made = new ArrayList<>();
        LoraTraining.run(resumed(stopped), new SilentListener() {
            @Override
            public void stepped(LossLog.Row row, long steps, Pace pace) {
                made.add(row.step());
            }
        });
        assertThat(made).startsWith(6L).hasSize(7); // from the checkpoint at step 5
        assertSame(stopped, whole);

        LoraTraining.run(resumed(stopped), SilentListener.NONE); // there is nothing left to do
        assertSame(stopped, whole);
        LoraTraining.run(resumed(stopped, recipe, data, 14), SilentListener.NONE);
        assertThat(LossLog.read(stopped.lossLog())).hasSize(14).startsWith(rows.toArray(LossLog.Row[]::new));
    }

    /** Of second matrices, which begin at zero. The steps themselves are what they are without. */
    @Test
    void theAverageOfTheStepsIsWhatIsWritten() {
        Recipe recipe = recipe(Recipe.OptimizerKind.ADAMW, 1, OptionalDouble.empty());
        LoraTraining.Run averaged = run("averaged", replaced(recipe, 16, OptionalDouble.of(0.2), 7), 3, 9);
        LoraTraining.run(averaged, SilentListener.NONE);
        Map<String, float[]> expected = new TreeMap<>();
        double[] stay = {2 / 11.0, 0.2, 0.2}; // of the average, at each step
        for (int step = 1; step <= stay.length; step++) {
            LoraTraining.Run plain = run("plain" + step, recipe, step, 9);
            LoraTraining.run(plain, SilentListener.NONE);
            double stays = stay[step - 1];
            seconds(plain.output()).forEach((name, matrix) -> {
                float[] average = expected.computeIfAbsent(name, any -> new float[matrix.length]);
                for (int i = 0; i < matrix.length; i++) {
                    average[i] = (float) (stays * average[i] + (1 - stays) * matrix[i]);
                }
            });
            if (step == stay.length) {
                assertSameFile(averaged.lossLog(), plain.lossLog());
            }
        }
        Map<String, float[]> written = seconds(averaged.output());
        assertThat(written.keySet()).isEqualTo(expected.keySet());
        written.forEach((name, matrix) -> assertThat(matrix).containsExactly(expected.get(name), within(1e-9F)));
    }

    private static Map<String, float[]> seconds(Path lora) {
        try (Safetensors file = Safetensors.open(lora)) {
            return file.names().stream()
                    .filter(name -> name.endsWith("lora_B.weight"))
                    .collect(Collectors.toMap(
                            name -> name, name -> Tensors.compute(() -> Tensors.floats(file.tensor(name)))));
        }
    }

    @ParameterizedTest
    @EnumSource
    void theLoraIsReadBackAndNamesEveryModule(LoraTargets targets) {
        Recipe usual = prodigy();
        Recipe recipe = new Recipe(
                64,
                4,
                4,
                2,
                targets,
                Recipe.Scope.RELEASED,
                usual.textTokens(),
                1,
                Recipe.OptimizerKind.ADAMW,
                1e-3,
                Recipe.Timesteps.UNIFORM,
                OptionalDouble.empty(),
                OptionalDouble.empty(),
                Recipe.AttentionKind.DENSE,
                1);
        LoraTraining.Run run = run("peft", recipe, 2, 9);
        LoraTraining.run(run, SilentListener.NONE);
        try (Lora lora = Lora.load(run.output());
                Lora expected = Lora.load(Golden.path(
                        targets == LoraTargets.QKV
                                ? "golden/lora/scaledit_lora.safetensors"
                                : "golden/lora/wide_lora.safetensors"));
                FluxTransformer plain = FluxTransformer.load(model(), Placement.FLOAT32_CPU);
                FluxTransformer adapted = plain.withLoras(
                        List.of(new ScaledLora(lora, 1)), recipe.scope().ofTransformer())) {
            assertThat(lora.layers().keySet()).isEqualTo(expected.layers().keySet());
            assertThat(adapted.loraWarnings()).isEmpty();
            lora.layers().forEach((module, layer) -> {
                assertThat(layer.rank()).isEqualTo(4);
                assertThat(layer.scale()).isEqualTo(0.5); // alpha / rank
                assertThat(layer.down().norm().item_double()).isPositive();
            });
            // Apart from what is dropped after the last block, everything was trained.
            assertThat(lora.layers().values().stream()
                            .filter(layer -> layer.up().norm().item_double() > 0)
                            .count())
                    .isGreaterThanOrEqualTo(lora.layers().size() - 3);
        }
        try (Safetensors file = Safetensors.open(run.output())) {
            assertThat(file.names()).allMatch(name -> name.matches("transformer\\..+\\.lora_[AB]\\.weight"));
            assertThat(file.metadata())
                    .containsEntry("format", "pt")
                    .containsEntry("scaledit.rank", "4")
                    .containsEntry("scaledit.alpha", "2")
                    .containsEntry("scaledit.steps", "2")
                    .containsEntry("scaledit.lora-scope", "released")
                    .containsKeys("scaledit.model", "scaledit.data");
            assertThat(file.metadata().get("lora_adapter_metadata"))
                    .startsWith("{\"transformer.r\":4,\"transformer.lora_alpha\":2,\"transformer.target_modules\":[\"")
                    .endsWith("],\"transformer.rank_pattern\":{},\"transformer.alpha_pattern\":{}}");
        }
    }

    /** Made twice, before and after the matrices have moved: the training goes on as without. */
    @Test
    void samplesShowHowFarItHasComeAndDisturbNothing() throws IOException {
        Recipe recipe =
                replaced(recipe(Recipe.OptimizerKind.ADAMW, 1, OptionalDouble.empty()), 16, OptionalDouble.of(0.5), 7);
        LoraTraining.Run without = run("without", recipe, 4, 9);
        LoraTraining.run(without, SilentListener.NONE);
        LoraTraining.Run with = run("with", recipe, 4, 9);
        LoraTraining.run(
                new LoraTraining.Run(
                        with.model(),
                        data,
                        cache,
                        with.output(),
                        recipe,
                        4,
                        9,
                        false,
                        with.placement(),
                        1,
                        Optional.of(new LoraTraining.Samples(2, List.of("a disc", "a fox"), 2, 4.5, 1, 3.5))),
                SilentListener.NONE);
        assertSame(with, without);
        Path samples = with.output().resolveSibling("samples");
        assertThat(entries(samples))
                .containsExactlyInAnyOrder(
                        samples.resolve("step-000002-1.png"),
                        samples.resolve("step-000002-2.png"),
                        samples.resolve("step-000004-1.png"),
                        samples.resolve("step-000004-2.png"));
        for (Path sample : entries(samples)) {
            assertThat(ImageFile.size(sample)).isEqualTo(new ImageFile.Size(64, 64));
        }
        assertThat(Files.mismatch(samples.resolve("step-000002-1.png"), samples.resolve("step-000004-1.png")))
                .isNotEqualTo(-1);
        assertThat(Files.mismatch(samples.resolve("step-000002-1.png"), samples.resolve("step-000002-2.png")))
                .isNotEqualTo(-1);
    }

    /** It closes the file that is being read for them. */
    @Test
    void anInterruptWhileSamplesAreMadeLosesNoStep() {
        LoraTraining.Run run = run("painting", prodigy(), 4, 9);
        LoraTraining.Run sampled = new LoraTraining.Run(
                run.model(),
                data,
                cache,
                run.output(),
                run.recipe(),
                4,
                9,
                false,
                run.placement(),
                1,
                Optional.of(new LoraTraining.Samples(2, List.of("a disc"), 1, 4.5, 1, 3.5)));
        assertThatThrownBy(() -> LoraTraining.run(sampled, new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        if (row.step() == 2) {
                            Thread.currentThread().interrupt();
                        }
                    }
                }))
                .isInstanceOf(CancellationException.class);
        try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint())) {
            assertThat(checkpoint.steps()).isEqualTo(2);
        }
    }

    @Test
    void bfloat16HasALossNearFloat32s() {
        LoraTraining.Run exact = run("exact", prodigy(), 3, 9);
        LoraTraining.run(exact, SilentListener.NONE);
        LoraTraining.Run rounded = new LoraTraining.Run(
                exact.model(),
                data,
                cache,
                made(folder.resolve("bfloat16")).resolve("lora.safetensors"),
                prodigy(),
                3,
                9,
                false,
                Placement.BFLOAT16_CPU,
                1,
                Optional.empty());
        LoraTraining.run(rounded, SilentListener.NONE);
        List<LossLog.Row> expected = LossLog.read(exact.lossLog());
        List<LossLog.Row> rows = LossLog.read(rounded.lossLog());
        for (int i = 0; i < 3; i++) {
            assertThat(rows.get(i).loss() / expected.get(i).loss()).isBetween(0.98, 1.02);
            assertThat(rows.get(i).loss()).isNotEqualTo(expected.get(i).loss());
        }
    }

    @Test
    void encodersAreNotNeededTwice() throws IOException {
        Path ownData = DrawnPictures.in(folder.resolve("two"), 2, 130, 64);
        Path ownCache = folder.resolve("own-cache");
        LoraTraining.Run first = withData(run("first", prodigy(), 1, 9), ownData, ownCache);
        List<Integer> encoded = new ArrayList<>();
        SilentListener counting = new SilentListener() {
            @Override
            public void encoded(int done, int all) {
                encoded.add(all);
            }
        };
        LoraTraining.run(first, counting);
        assertThat(encoded).containsExactly(4, 4, 4, 4); // two pictures, two captions
        encoded.clear();
        Files.writeString(ownData.resolve("picture01.txt"), "another caption");
        LoraTraining.run(withData(run("second", prodigy(), 1, 9), ownData, ownCache), counting);
        assertThat(encoded).containsExactly(1);
    }

    private static LoraTraining.Run withData(LoraTraining.Run run, Path data, Path cache) {
        return new LoraTraining.Run(
                run.model(),
                data,
                cache,
                run.output(),
                run.recipe(),
                run.steps(),
                run.saveEvery(),
                run.resume(),
                run.placement(),
                run.ranks(),
                Optional.empty());
    }

    /** As when there was no memory for the first step. */
    @Test
    void aResultWithoutACheckpointIsToBeRemoved() throws IOException {
        Path checkpoint = folder.resolve("none.checkpoint.safetensors");
        Path result = Files.createDirectory(folder.resolve("begun"));
        for (boolean resume : new boolean[] {false, true}) {
            assertThatThrownBy(() -> TrainingCheckpoint.requireStart(checkpoint, result, resume))
                    .isInstanceOf(TrainingException.class)
                    .hasMessage(result + " exists, but no " + checkpoint
                            + " to go on from: remove it, or choose another output");
        }
    }

    @Test
    void aTrainingIsResumedWithWhatItBeganWith() throws IOException {
        Path ownData = DrawnPictures.in(folder.resolve("own"), 3, 64, 64);
        LoraTraining.Run run = withData(run("origin", prodigy(), 4, 2), ownData, cache);
        assertThatThrownBy(() -> LoraTraining.run(resumed(run), SilentListener.NONE))
                .isInstanceOf(TrainingException.class)
                .hasMessage("there is no " + run.checkpoint() + " to resume from");
        LoraTraining.run(run, SilentListener.NONE);
        assertThatThrownBy(() -> LoraTraining.run(run, SilentListener.NONE))
                .isInstanceOf(TrainingException.class)
                .hasMessage(
                        run.checkpoint() + " exists, expected a folder without another training's files: resume that"
                                + " one, or remove it, or choose another output");
        assertRefused(
                run,
                recipe -> replaced(recipe, 8, recipe.average(), recipe.seed()),
                "rank 16, expected the same instead of 8");
        assertRefused(
                run, recipe -> replaced(recipe, 16, recipe.average(), 8), "seed 7, expected the same instead of 8");
        assertRefused(
                run,
                recipe -> replaced(recipe, 16, OptionalDouble.of(0.9), recipe.seed()),
                "average none, expected the same instead of 0.9");
        assertRefused(
                run,
                recipe -> recipe(Recipe.OptimizerKind.PRODIGY, 3, OptionalDouble.empty()),
                "accumulate 1, expected the same instead of 3");
        assertRefused(
                run,
                recipe -> recipe(Recipe.OptimizerKind.PRODIGY, 1, OptionalDouble.of(0.5)),
                "clip-norm none, expected the same instead of 0.5");
        assertThatThrownBy(() -> LoraTraining.run(resumed(run, run.recipe(), ownData, 3), SilentListener.NONE))
                .hasMessage(run.checkpoint() + " has made 4 steps, expected no more than the 3 to be made");

        Path otherModel = copied(Golden.tinyFlux(), folder.resolve("model"));
        Path config = otherModel.resolve("vae/config.json");
        Files.writeString(config, Files.readString(config) + "\n");
        LoraTraining.Run withOther = new LoraTraining.Run(
                otherModel,
                ownData,
                cache,
                run.output(),
                run.recipe(),
                4,
                2,
                true,
                Placement.FLOAT32_CPU,
                1,
                Optional.empty());
        assertThatThrownBy(() -> LoraTraining.run(withOther, SilentListener.NONE))
                .hasMessage(run.checkpoint() + " was made with another model");

        Files.writeString(ownData.resolve("picture02.txt"), "another caption");
        assertThatThrownBy(() -> LoraTraining.run(resumed(run), SilentListener.NONE))
                .isInstanceOf(TrainingException.class)
                .hasMessage(run.checkpoint()
                        + " was made with other data: a picture or a caption has been changed, added or"
                        + " taken away since");

        Files.delete(run.checkpoint());
        Files.copy(run.output(), run.checkpoint());
        assertThatThrownBy(() -> LoraTraining.run(resumed(run), SilentListener.NONE))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(run.checkpoint() + " is no checkpoint of a training");
    }

    private static Recipe replaced(Recipe recipe, int rank, OptionalDouble average, long seed) {
        return new Recipe(
                recipe.resolution(),
                recipe.ratio(),
                rank,
                recipe.alpha(),
                recipe.targets(),
                recipe.scope(),
                recipe.textTokens(),
                recipe.accumulate(),
                recipe.optimizer(),
                recipe.learningRate(),
                recipe.timesteps(),
                recipe.clipNorm(),
                average,
                recipe.attention(),
                seed);
    }

    private static void assertRefused(LoraTraining.Run run, UnaryOperator<Recipe> change, String sentence) {
        LoraTraining.Run changed = resumed(run, change.apply(run.recipe()), run.data(), run.steps());
        assertThatThrownBy(() -> LoraTraining.run(changed, SilentListener.NONE))
                .isInstanceOf(TrainingException.class)
                .hasMessage(run.checkpoint() + " was made with " + sentence);
    }

    private static Path copied(Path from, Path to) throws IOException {
        try (Stream<Path> files = Files.walk(from)) {
            for (Path file : files.toList()) {
                Path target = to.resolve(from.relativize(file).toString());
                if (Files.isDirectory(file)) {
                    Files.createDirectories(target);
                } else {
                    Files.copy(file, target);
                }
            }
        }
        return to;
    }

    @Test
    void aPictureThatCannotBeReadIsNamed() throws IOException {
        Path ownData = DrawnPictures.in(folder.resolve("damaged"), 3, 64, 64);
        Path damaged = ownData.resolve("picture01.png");
        byte[] bytes = Files.readAllBytes(damaged);
        Files.write(damaged, Arrays.copyOf(bytes, bytes.length / 2));
        LoraTraining.Run run = withData(run("damaged-run", prodigy(), 1, 9), ownData, folder.resolve("cache"));
        assertThatThrownBy(() -> LoraTraining.run(run, SilentListener.NONE))
                .isInstanceOf(ImageException.class)
                .hasMessageStartingWith("cannot read the picture " + damaged + ": ");
        Files.writeString(damaged, "no picture");
        assertThatThrownBy(() -> LoraTraining.run(run, SilentListener.NONE))
                .isInstanceOf(ImageException.class)
                .hasMessage(damaged + " is not a picture that can be read, expected PNG or JPEG");
        assertThat(run.output()).doesNotExist();
        assertThat(run.checkpoint()).doesNotExist();
    }

    @Test
    void aLossThatIsNoNumberStopsAndNamesSampleAndStep() throws IOException {
        Path ownData = DrawnPictures.in(folder.resolve("nan"), 2, 64, 64);
        Path ownCache = folder.resolve("nan-cache");
        LoraTraining.Run run = withData(run("nan-run", prodigy(), 6, 9), ownData, ownCache);
        TrainingSet set = new TrainingSet(
                Example.of(ownData),
                new TrainingSet.Encoding(model(), 64, 4, TEXT_TOKENS, Placement.FLOAT32_CPU),
                ExampleCache.in(ownCache));
        set.fill(List.of(), (done, all) -> {});
        SampleOrder order = new SampleOrder(7, 2, Recipe.Timesteps.LOGIT_NORMAL);
        int bad = order.sample(1); // of the second step
        Tensors.run(() -> {
            Tensor image = set.inputs(bad).image();
            for (Path entry : entries(ownCache)) {
                String key = entry.getFileName().toString().replace(".safetensors", "");
                try (Safetensors content = Safetensors.open(entry)) {
                    if (content.contains("image") && content.tensor("image").equal(image)) {
                        Tensor guidance = content.tensor("guidance").clone();
                        new ExampleCache(ownCache)
                                .put(
                                        key,
                                        Map.of(
                                                "image",
                                                image.clone().fill_(new Scalar(Double.NaN)),
                                                "guidance",
                                                guidance));
                    }
                }
            }
        });
        assertThatThrownBy(() -> LoraTraining.run(run, SilentListener.NONE))
                .isInstanceOf(TrainingException.class)
                .hasMessage("the loss of " + ownData.resolve("picture0" + bad + ".png")
                        + " is NaN at step 2, expected a number");
        assertThat(LossLog.read(run.lossLog())).hasSize(1);
    }

    private static List<Path> entries(Path folder) {
        try (Stream<Path> files = Files.list(folder)) {
            return files.toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** On a disk of its own, which is filled after the first checkpoint. */
    @Test
    void aFullDiskIsOneSentenceAndTheLastCheckpointIsGood() throws IOException, InterruptedException {
        Path disk = made(folder.resolve("disk"));
        assumeThat(mount("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk.toString()))
                .as("may mount a disk")
                .isTrue();
        try {
            Recipe recipe = prodigy();
            LoraTraining.Run run = new LoraTraining.Run(
                    Golden.tinyFlux(),
                    data,
                    cache,
                    disk.resolve("lora.safetensors"),
                    recipe,
                    6,
                    2,
                    false,
                    Placement.FLOAT32_CPU,
                    1,
                    Optional.empty());
            Path filler = disk.resolve("filler");
            assertThatThrownBy(() -> LoraTraining.run(run, new SilentListener() {
                        @Override
                        public void saved(List<LossLog.Row> rows) {
                            fill(filler);
                        }
                    }))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage("cannot write " + run.checkpoint() + ": No space left on device");
            try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint())) {
                assertThat(checkpoint.steps()).isEqualTo(2);
            }
            assertThat(entries(disk)).containsExactlyInAnyOrder(run.checkpoint(), run.output(), run.lossLog(), filler);
            Files.delete(filler);
            LoraTraining.run(resumed(run), SilentListener.NONE);
            LoraTraining.Run whole = run("not-full", recipe, 6, 2);
            LoraTraining.run(whole, SilentListener.NONE);
            assertSame(run, whole);
        } finally {
            mount("umount", disk.toString());
        }
    }

    private static boolean mount(String... command) throws IOException, InterruptedException {
        try {
            return new ProcessBuilder(command).redirectErrorStream(true).start().waitFor() == 0;
        } catch (IOException e) {
            return false; // there is no such program
        }
    }

    /** Leaves less than a page, enough for a few lines. */
    private static void fill(Path filler) {
        try {
            Files.write(filler, new byte[0]);
            byte[] page = new byte[4096];
            for (int pages = 0; pages < 4096; pages++) {
                Files.write(filler, page, StandardOpenOption.APPEND);
            }
            throw new AssertionError("the disk does not get full");
        } catch (IOException full) {
            // As it should be.
        }
    }

    @Test
    void whatCannotBeIsRefusedInOneSentence() {
        assertThatThrownBy(() -> new LoraTraining.Run(
                        Golden.tinyFlux(),
                        data,
                        cache,
                        folder.resolve("lora.bin"),
                        prodigy(),
                        1,
                        1,
                        false,
                        Placement.FLOAT32_CPU,
                        1,
                        Optional.empty()))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("output is " + folder.resolve("lora.bin") + ", expected a name that ends in .safetensors");
        LoraTraining.Run onGpu = new LoraTraining.Run(
                Golden.tinyFlux(),
                data,
                cache,
                folder.resolve("lora.safetensors"),
                prodigy(),
                1,
                1,
                false,
                new Placement(torch.ScalarType.Float, true),
                1,
                Optional.empty());
        assertThatThrownBy(() -> LoraTraining.run(onGpu, SilentListener.NONE))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "attention native on a GPU takes bfloat16 alone, expected precision bfloat16, or attention dense");
    }
}
