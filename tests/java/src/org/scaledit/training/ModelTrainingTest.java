package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.GeneratedImage;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import org.scaledit.attention.Attention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Quantization;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.scenes.Sightings;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Drawings;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.testing.TinyModel;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TextEncoders;
import org.scaledit.training.ModelTraining.Stage;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.vae.AutoencoderKl;

/** Whole trainings of a tiny model, of pictures that are drawn here and of scenes. */
class ModelTrainingTest {
    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static Path sprites;

    @BeforeAll
    static void draw() throws IOException {
        DrawnPictures.in(shared.resolve("data"), 4, 64, 64);
        sprites = Files.createDirectories(shared.resolve("sprites"));
        Drawings.write(sprites);
    }

    private static ModelRecipe recipe(String json) {
        return TinyRuns.recipe(shared, json);
    }

    private ModelTraining.Run run(String name, String json, boolean resume) {
        return run(name, json, resume, 1);
    }

    private ModelTraining.Run run(String name, String json, boolean resume, int ranks) {
        return TinyRuns.run(recipe(json), folder.resolve(name), sprites, resume, ranks);
    }

    private static void assertSame(ModelTraining.Run a, ModelTraining.Run b) throws IOException {
        for (Stage stage : Stage.values()) {
            assertThat(Files.mismatch(a.checkpoint(stage), b.checkpoint(stage))).isEqualTo(-1);
            assertThat(Files.mismatch(a.lossLog(stage), b.lossLog(stage))).isEqualTo(-1);
        }
        try (Stream<Path> files = Files.walk(a.model())) {
            for (Path file : files.filter(Files::isRegularFile).toList()) {
                Path other = b.model().resolve(a.model().relativize(file));
                assertThat(Files.mismatch(file, other)).as("%s", file).isEqualTo(-1);
            }
        }
    }

    /** Stopped in either stage, by an interrupt and by an exception after a checkpoint. */
    @Test
    void aRunThatIsStoppedAndResumedIsBitForBitTheOneThatIsNot() throws IOException {
        ModelTraining.Run whole = run("whole", TinyModel.CONFIG, false);
        ModelTraining.run(whole, stage -> SilentListener.NONE);
        assertThat(LossLog.read(whole.lossLog(Stage.VAE))).hasSize(6);
        assertThat(LossLog.read(whole.lossLog(Stage.TRANSFORMER))).hasSize(8);

        record Stop(Stage stage, long step, boolean interrupt) {}
        boolean resume = false;
        for (Stop stop : List.of(
                new Stop(Stage.VAE, 2, true),
                new Stop(Stage.VAE, 5, false),
                new Stop(Stage.TRANSFORMER, 4, true), // at the end of a phase
                new Stop(Stage.TRANSFORMER, 5, true),
                new Stop(Stage.TRANSFORMER, 7, false))) {
            ModelTraining.Run stopped = run("stopped", TinyModel.CONFIG, resume);
            assertThatThrownBy(() -> ModelTraining.run(stopped, stage -> new SilentListener() {
                        @Override
                        public void stepped(LossLog.Row row, long steps, Pace pace) {
                            if (stage == stop.stage && row.step() == stop.step) {
                                if (!stop.interrupt) {
                                    throw new IllegalStateException("killed");
                                }
                                Thread.currentThread().interrupt();
                            }
                        }
                    }))
                    .isInstanceOf(stop.interrupt ? CancellationException.class : IllegalStateException.class);
            resume = true;
        }
        ModelTraining.Run resumed = run("stopped", TinyModel.CONFIG, true);
        ModelTraining.run(resumed, stage -> SilentListener.NONE);
        assertSame(whole, resumed);
        ModelTraining.run(resumed, stage -> SilentListener.NONE); // there is nothing left to do
        assertSame(whole, resumed);
    }

    private static void assertNear(ModelTraining.Run run, ModelTraining.Run expected) {
        for (Stage stage : Stage.values()) {
            List<LossLog.Row> rows = LossLog.read(run.lossLog(stage));
            List<LossLog.Row> ofOne = LossLog.read(expected.lossLog(stage));
            assertThat(rows).hasSameSizeAs(ofOne);
            for (int i = 0; i < rows.size(); i++) {
                assertThat(rows.get(i).loss() / ofOne.get(i).loss()).isBetween(1 - 1e-4, 1 + 1e-4);
                assertThat(rows.get(i).gradientNorm() / ofOne.get(i).gradientNorm())
                        .isBetween(1 - 1e-3, 1 + 1e-3);
            }
        }
    }

    /** The batches of a step are dealt out to two ranks: the model is nearly that of one, and goes on with another number. */
    @Test
    void ranksThatShareTheBatchesOfAStepTrainNearlyTheModelOfOne() throws IOException {
        String config = TinyModel.CONFIG
                .replace("\"batch\": 3,", "\"batch\": 3, \"accumulate\": 2,")
                .replace("\"batch\": 2, \"steps\"", "\"batch\": 2, \"accumulate\": 4, \"steps\"")
                .replace( // pictures of both sizes in every step
                        "{\"size\": 64, \"batch\": 2, \"accumulate\": 2, \"steps\": 4, \"samples\": 3}",
                        "{\"batches\": [{\"size\": 64, \"batch\": 2, \"samples\": 3}, {\"size\": 32, \"batch\": 3}], \"steps\": 4}");
        ModelTraining.Run one = run("one", config, false);
        ModelTraining.run(one, stage -> SilentListener.NONE);
        ModelTraining.Run two = run("two", config, false, 2);
        ModelTraining.run(two, stage -> SilentListener.NONE);
        assertNear(two, one);

        for (Stage last : Stage.values()) {
            boolean resume = last != Stage.VAE;
            assertThatThrownBy(() ->
                            ModelTraining.run(run("stopped", config, resume, 2), stage -> new SilentListener() {
                                @Override
                                public void stepped(LossLog.Row row, long steps, Pace pace) {
                                    if (stage == last && row.step() == 2) {
                                        Thread.currentThread().interrupt();
                                    }
                                }
                            }))
                    .isInstanceOf(CancellationException.class);
        }
        ModelTraining.Run stopped = run("stopped", config, true, 2);
        ModelTraining.run(stopped, stage -> SilentListener.NONE);
        assertSame(two, stopped);

        ModelTraining.Run mixed = run("mixed", config, false, 2);
        assertThatThrownBy(() -> ModelTraining.run(mixed, stage -> new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        if (stage == Stage.TRANSFORMER && row.step() == 3) {
                            throw new IllegalStateException("killed");
                        }
                    }
                }))
                .isInstanceOf(IllegalStateException.class);
        ModelTraining.run(run("mixed", config, true), stage -> SilentListener.NONE);
        assertNear(mixed, one);

        assertThatThrownBy(() -> run("odd", config, false, 3))
                .hasMessage("a step of a phase of vae has 4 batches, expected a multiple of the 3 GPUs");
        assertThatThrownBy(() -> run("none", config, false, 0)).hasMessage("gpus is 0, expected 1 or more");
    }

    /** The same model with T5 in files that an index lists. */
    private Path sharded(Path model) throws IOException {
        Path copy = folder.resolve("sharded");
        try (Stream<Path> files = Files.walk(model)) {
            for (Path file : files.toList()) {
                Files.copy(file, copy.resolve(model.relativize(file)));
            }
        }
        Path folder = copy.resolve("text_encoder_2");
        StringBuilder index = new StringBuilder();
        try (Safetensors weights = ModelDirectory.open(copy).weights("text_encoder_2")) {
            weights.names()
                    .forEach(name -> index.append(index.isEmpty() ? "" : ",")
                            .append("\"" + name + "\": \"model-00001-of-00001.safetensors\""));
        }
        Files.move(folder.resolve("model.safetensors"), folder.resolve("model-00001-of-00001.safetensors"));
        Files.writeString(
                folder.resolve("model.safetensors.index.json"), "{\"metadata\": {}, \"weight_map\": {" + index + "}}");
        return copy;
    }

    /** A model is trained further: its autoencoder stays, and the rest begins as it is, also if it is stored in INT8. */
    @Test
    void aModelIsTrainedFurther() throws IOException {
        ModelTraining.Run before = run("before", TinyModel.CONFIG, false);
        ModelTraining.run(before, stage -> SilentListener.NONE);
        Quantization.write(List.of(before.model()), folder.resolve("int8"), part -> {});
        for (Path start : List.of(before.model(), folder.resolve("int8"), sharded(before.model()))) {
            String name = "further-" + start.getFileName();
            String config = TinyModel.CONFIG
                    .replace("\"seed\": 3,", "\"seed\": 4, \"start\": \"" + start + "\",")
                    .replace("\"learning_rate\": 3e-3", "\"learning_rate\": 1e-9");
            ModelTraining.Run further = run(name, config, false);
            ModelTraining.run(further, stage -> {
                assertThat(stage).isEqualTo(Stage.TRANSFORMER);
                return SilentListener.NONE;
            });
            assertThat(further.model().resolve("vae/diffusion_pytorch_model.safetensors"))
                    .hasSameBinaryContentAs(start.resolve("vae/diffusion_pytorch_model.safetensors"));
            for (String part : List.of("transformer", "text_encoder", "text_encoder_2")) {
                try (Safetensors made = ModelDirectory.open(further.model()).weights(part);
                        Safetensors begun = ModelDirectory.open(start).weights(part)) {
                    Tensors.run(() -> made.names()
                            .forEach(weight -> assertThat(Tensors.toFloat32(made.tensor(weight))
                                            .sub(Tensors.toFloat32(begun.tensor(weight)))
                                            .abs()
                                            .max()
                                            .item_float())
                                    .as("%s %s", part, weight)
                                    .isLessThan(1e-6f)));
                }
            }
            assertThat(further.model().resolve("text_encoder_2/model.safetensors"))
                    .exists();
            assertThat(further.model().resolve("text_encoder_2/model.safetensors.index.json"))
                    .doesNotExist();
            ModelTraining.run(run(name, config, true), stage -> SilentListener.NONE); // there is nothing left to do
        }
        String started =
                TinyModel.CONFIG.replace("\"seed\": 3,", "\"seed\": 3, \"start\": \"" + before.model() + "\",");
        for (String[] change : new String[][] {
            {"\"single_blocks\": 1", "\"single_blocks\": 2", "transformer"},
            {"\"layers\": 1, \"heads\": 2, \"hidden\": 32", "\"layers\": 1, \"heads\": 2, \"hidden\": 48", "text.t5"},
            {"\"tile\": 64", "\"tile\": 96", "vae"},
            {"\"tokens\": 12", "\"tokens\": 11", "text.tokens"}
        }) {
            assertThatThrownBy(() -> recipe(started.replace(change[0], change[1])))
                    .hasMessageContaining(" has " + change[2] + " ")
                    .hasMessageMatching(".*(as the model has that is trained further|as pictures have with .*)");
        }
        assertThatThrownBy(() -> recipe(TinyModel.CONFIG.replace("\"seed\": 3,", "\"seed\": 3, \"start\": \"none\",")))
                .hasMessageContaining("none");
    }

    /** CLIP's encoder learns no word then, T5's does. */
    @Test
    void captionsMayBeLeftOutOfTheSummaryAlone() {
        String caption = "\"caption_dropout\": 0.2";
        ModelTraining.Run usual = trained("usual", caption, "\"caption_dropout\": 0");
        ModelTraining.Run wordless = trained("wordless", caption, "\"caption_dropout\": 1");
        ModelTraining.Run without = trained("without", caption, "\"caption_dropout\": 0, \"pooled_dropout\": 1");
        String clip = "text_model.embeddings.token_embedding.weight";
        assertThat(rowsThatDiffer("text_encoder", clip, wordless, usual)).isGreaterThan(4);
        assertThat(rowsThatDiffer("text_encoder", clip, wordless, without))
                .isBetween(1.0, 3.0); // a text's begin, end, padding
        assertThat(rowsThatDiffer("text_encoder_2", "shared.weight", wordless, without))
                .isGreaterThan(4);
    }

    private ModelTraining.Run trained(String name, String from, String to) {
        ModelTraining.Run run = run(name, TinyModel.CONFIG.replace(from, to), false);
        ModelTraining.run(run, stage -> SilentListener.NONE);
        return run;
    }

    private static double rowsThatDiffer(String part, String matrix, ModelTraining.Run a, ModelTraining.Run b) {
        try (Safetensors left = ModelDirectory.open(a.model()).weights(part);
                Safetensors right = ModelDirectory.open(b.model()).weights(part)) {
            return Tensors.compute(() ->
                    left.tensor(matrix).ne(right.tensor(matrix)).any(1).sum().item_double());
        }
    }

    /** Scenes come out of the seed, so that the same run twice is the same; the model that it leaves makes a picture. */
    @Test
    void aModelOfScenesIsLoadedAndPaints() {
        ModelTraining.Run run = run("scenes", TinyModel.RECOGNISING, false);
        ModelTraining.run(run, stage -> SilentListener.NONE);
        try (ScaleDit model = ScaleDit.load(run.model())) {
            GeneratedImage image = model.generate(
                    ImageRequest.of("a lion in the snow")
                            .size(128, 128)
                            .steps(2)
                            .guideSteps(2),
                    progress -> {});
            assertThat(image.width()).isEqualTo(128);
        }
    }

    /** What recognises is in the checkpoint and not in the model; its exercises change the losses after the first step. */
    @Test
    void recognitionIsLearntAlongUntilItsPhasesEnd() throws IOException {
        ModelTraining.Run whole = run("whole", TinyModel.RECOGNISING, false);
        ModelTraining.run(whole, stage -> SilentListener.NONE);
        ModelTraining.Run stopped = run("stopped", TinyModel.RECOGNISING, false);
        assertThatThrownBy(() -> ModelTraining.run(stopped, stage -> new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        if (stage == Stage.TRANSFORMER && row.step() == 2) {
                            Thread.currentThread().interrupt();
                        }
                    }
                }))
                .isInstanceOf(CancellationException.class);
        ModelTraining.run(run("stopped", TinyModel.RECOGNISING, true), stage -> SilentListener.NONE);
        assertSame(whole, run("stopped", TinyModel.RECOGNISING, true));

        ModelTraining.Run without =
                run("without", TinyModel.RECOGNISING.replace("\"weight\": 0.1", "\"weight\": 0"), false);
        ModelTraining.run(without, stage -> SilentListener.NONE);
        List<LossLog.Row> rows = LossLog.read(whole.lossLog(Stage.TRANSFORMER));
        assertThat(whole.lossLog(Stage.TRANSFORMER))
                .content()
                .startsWith("step,loss,learning_rate,gradient_norm,recognition,layout\n");
        double ofChance = Math.log(Sightings.background(SceneSource.VOCABULARY) + 1);
        assertThat(rows.get(0).others().get(0)).isBetween(ofChance - 1e-3, ofChance + Math.log(Sightings.PARTS) + 1e-3);
        assertThat(rows.get(0).others().get(1)).isCloseTo(ofChance, within(1e-3));
        assertThat(rows.get(7).others().get(0)).isNaN(); // its phase has ended
        assertThat(rows.get(7).others().get(1)).isLessThan(ofChance);
        List<LossLog.Row> others = LossLog.read(without.lossLog(Stage.TRANSFORMER));
        assertThat(rows.get(0).loss()).isEqualTo(others.get(0).loss());
        assertThat(rows.get(0).gradientNorm()).isNotEqualTo(others.get(0).gradientNorm());
        assertThat(rows.get(3).loss()).isNotEqualTo(others.get(3).loss());

        ModelTraining.Run blind =
                run("blind", TinyModel.RECOGNISING.replace("\"weight\": 0.2", "\"weight\": 0"), false);
        ModelTraining.run(blind, stage -> SilentListener.NONE);
        List<LossLog.Row> unread = LossLog.read(blind.lossLog(Stage.TRANSFORMER));
        assertThat(rows.get(0).loss()).isEqualTo(unread.get(0).loss());
        assertThat(rows.get(0).gradientNorm()).isNotEqualTo(unread.get(0).gradientNorm());
        assertThat(rows.get(3).loss()).isNotEqualTo(unread.get(3).loss());

        // Trained further, a model has none of its weights to begin with.
        String further =
                TinyModel.RECOGNISING.replaceFirst("\\{", "{\"start\": \"" + folder.resolve("whole/model") + "\",");
        ModelTraining.Run more = run("more", further, false);
        ModelTraining.run(more, stage -> SilentListener.NONE);
        List<LossLog.Row> goesOn = LossLog.read(more.lossLog(Stage.TRANSFORMER));
        assertThat(goesOn).hasSize(8);
        ModelTraining.Run anew =
                run("anew", further.replace("\"hidden\": 32}", "\"hidden\": 32, \"anew\": true}"), false);
        ModelTraining.run(anew, stage -> SilentListener.NONE);
        double ofNewT5 = LossLog.read(anew.lossLog(Stage.TRANSFORMER)).get(0).loss();
        assertThat(ofNewT5).isNotEqualTo(goesOn.get(0).loss());
    }

    /** In bfloat16, and with each block computed once more: nearly the same losses. */
    @Test
    void inBfloat16AndBlockByBlockTheLossesAreNearlyTheSame() {
        ModelTraining.Run float32 = run("float32", TinyModel.CONFIG, false);
        ModelTraining.run(float32, stage -> SilentListener.NONE);
        ModelTraining.Run other =
                run("bfloat16", TinyModel.CONFIG.replace("\"checkpointing\": false", "\"checkpointing\": true"), false);
        ModelTraining.Run bfloat16 = new ModelTraining.Run(
                other.recipe(), other.output(), other.cache(), other.sprites(), false, Placement.BFLOAT16_CPU, 1);
        ModelTraining.run(bfloat16, stage -> SilentListener.NONE);
        for (Stage stage : Stage.values()) {
            List<LossLog.Row> expected = LossLog.read(float32.lossLog(stage));
            List<LossLog.Row> rows = LossLog.read(bfloat16.lossLog(stage));
            for (int i = 0; i < expected.size(); i++) {
                assertThat(rows.get(i).loss() / expected.get(i).loss())
                        .as("%s %s", stage, rows.get(i))
                        .isBetween(0.95, 1.05);
            }
        }
    }

    /** Those of another model, as they are, be it in INT8. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void textEncodersMayBeTakenFromAModel(boolean int8) throws IOException {
        String name = "frozen-" + int8;
        Path model = int8 ? folder.resolve("int8") : Golden.tinyFlux().toAbsolutePath();
        if (int8) {
            Quantization.write(List.of(Golden.tinyFlux()), model, part -> {});
        }
        String text = TinyModel.CONFIG.replaceAll(
                "(?s)\"text\": \\{.*?\\},\\s*\"vae\"",
                "\"text\": {\"tokens\": 256, \"model\": \"" + model + "\"}, \"vae\"");
        ModelTraining.Run run = run(name, text, false);
        ModelTraining.run(run, stage -> SilentListener.NONE);
        Path encoder = Path.of("text_encoder_2", "model.safetensors");
        assertThat(Files.mismatch(run.model().resolve(encoder), model.resolve(encoder)))
                .isEqualTo(-1);
        assertThat(lossAsLoaded(ModelDirectory.open(run.model()), 32, 256)).isBetween(0.5, 4.0);
        assertThatThrownBy(() -> recipe(text.replace("\"tokens\": 256", "\"tokens\": 48")))
                .hasMessageEndingWith("has text.tokens 48, expected 256, as pictures have with text.model");
        ModelTraining.run(run(name, text, true), stage -> SilentListener.NONE);
    }

    private static double mean(List<LossLog.Row> rows) {
        return rows.stream().mapToDouble(LossLog.Row::loss).average().orElseThrow();
    }

    /** Four pictures are learnt by heart: both losses fall to less than half. */
    @Test
    void fourPicturesAreLearntByHeart() {
        String config = TinyModel.CONFIG
                .replace(
                        "\"phases\": [{\"size\": 32, \"batch\": 2, \"steps\": 3}, {\"size\": 64, \"batch\": 1, \"accumulate\": 2, \"steps\": 3}]",
                        "\"phases\": [{\"size\": 32, \"batch\": 4, \"steps\": 150}]")
                .replace("[64, 80]", "[32]")
                .replace(
                        "\"phases\": [{\"size\": 32, \"batch\": 3, \"steps\": 4}, {\"size\": 64, \"batch\": 2, \"accumulate\": 2, \"steps\": 4, \"samples\": 3}]",
                        "\"phases\": [{\"size\": 32, \"batch\": 16, \"steps\": 300}]")
                .replace("\"caption_dropout\": 0.2", "\"caption_dropout\": 0")
                .replace("\"save_every\": 3", "\"save_every\": 1000")
                .replace("\"warmup_steps\": 2", "\"warmup_steps\": 20");
        ModelTraining.Run run = run("heart", config, false);
        ModelTraining.run(run, stage -> SilentListener.NONE);
        for (Stage stage : Stage.values()) {
            List<LossLog.Row> rows = LossLog.read(run.lossLog(stage));
            double before = mean(rows.subList(0, 10));
            double after = mean(rows.subList(rows.size() - 10, rows.size()));
            System.out.printf("%s: loss from %.3f to %.3f%n", stage.word(), before, after);
            assertThat(after).as(stage.word()).isLessThan(0.5 * before);
        }
        assertThat(lossAsLoaded(ModelDirectory.open(run.model()), 32, 12)).isBetween(0.01, 0.5); // 2 of random weights
    }

    /** Of the four pictures by the parts that a picture is sampled with. */
    private static double lossAsLoaded(ModelDirectory model, int size, int textTokens) {
        TokenGrid grid = TokenGrid.ofPixels(size, size);
        SampleSource source = new FolderSource(shared.resolve("data"));
        double sum = 0;
        try (FluxTransformer transformer = FluxTransformer.load(model, Placement.FLOAT32_CPU);
                TextEncoders encoders = TextEncoders.load(model, Placement.FLOAT32_CPU);
                AutoencoderKl vae = AutoencoderKl.load(model.part("vae"), Placement.FLOAT32_CPU);
                Attention attention = DenseAttention.full()) {
            for (int sample = 0; sample < source.size(); sample++) {
                int current = sample;
                sum += Tensors.compute(() -> {
                    Conditioning text = encoders.encode(source.caption(current), textTokens);
                    Tensor image = TrainingSet.latents(vae, source.picture(current, size));
                    Tensor noise = SeededNoise.draw(current, grid);
                    try (Denoiser denoiser = transformer.denoiser(
                            TokenLayout.raster(textTokens, grid.width(), grid.height()),
                            attention,
                            FluxTransformer.THETA,
                            text.states(),
                            text.pooled(),
                            1)) {
                        Tensor velocity = denoiser.velocity(
                                image.mul(new Scalar(0.4)).add(noise.mul(new Scalar(0.6))), 0.6, () -> {});
                        return torch.mse_loss(velocity, noise.sub(image)).item_double();
                    }
                });
            }
        }
        return sum / source.size();
    }
}
