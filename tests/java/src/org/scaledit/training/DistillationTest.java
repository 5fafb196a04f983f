package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.GeneratedImage;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.sampling.Schedule;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.TinyModel;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TrainedTextEncoders;
import org.scaledit.training.ModelTraining.Stage;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.TrainedTransformer;

/** A tiny model that knows four pictures teaches others. */
class DistillationTest {
    private static final int TEXT_TOKENS = 12;

    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static ModelTraining.Run teacher;

    @BeforeAll
    static void train() throws IOException {
        DrawnPictures.in(shared.resolve("data"), 4, 64, 64);
        String config = TinyModel.CONFIG
                .replace("\"size\": 32, \"batch\": 3, \"steps\": 4}", "\"size\": 64, \"batch\": 8, \"steps\": 300}")
                .replace("\"save_every\": 3", "\"save_every\": 1000");
        teacher = TinyRuns.run(TinyRuns.recipe(shared, config), shared.resolve("teacher"), shared, false, 1);
        ModelTraining.run(teacher, stage -> SilentListener.NONE);
    }

    private static String config(String guidance, String distillation) {
        return TinyModel.CONFIG
                .replaceFirst(
                        "(?s)\"tokens\": 12.*?\\},\\s*\"vae\"",
                        "\"tokens\": 12, \"model\": \"" + teacher.model() + "\"}, \"vae\"")
                .replace("\"seed\": 3,", "\"seed\": 4, \"start\": \"" + teacher.model() + "\",")
                .replace("\"guidance\": false", guidance + ", \"distillation\": " + distillation)
                .replace("\"save_every\": 3", "\"save_every\": 1000");
    }

    private static ModelRecipe recipe(String json) {
        return TinyRuns.recipe(shared, json);
    }

    /** As it was trained, on every processor. */
    private static ScaleDit exact(ModelTraining.Run run) {
        return ScaleDit.builder(run.model())
                .precision(ScaleDit.Precision.FLOAT32)
                .load();
    }

    private ModelTraining.Run run(String name, String json, boolean resume) {
        return TinyRuns.run(recipe(json), folder.resolve(name), shared, resume, 1);
    }

    /**
     * The model of one pass with guidance begins as its teacher, and comes nearer to what that makes in two passes; a run that was
     * stopped goes on bit for bit.
     */
    @Test
    void trueGuidanceIsDistilled() throws IOException {
        String config = config("\"guidance\": true", "{\"least\": 3, \"most\": 5}")
                .replace("\"size\": 32, \"batch\": 3, \"steps\": 4}", "\"size\": 32, \"batch\": 4, \"steps\": 40}");
        ModelTraining.Run whole = run("distilled", config, false);
        ModelTraining.run(whole, stage -> SilentListener.NONE);
        List<LossLog.Row> losses = LossLog.read(whole.lossLog(Stage.TRANSFORMER));
        double first =
                losses.subList(0, 5).stream().mapToDouble(LossLog.Row::loss).sum();
        double last =
                losses.subList(35, 40).stream().mapToDouble(LossLog.Row::loss).sum();
        assertThat(last).isLessThan(0.5 * first);

        ModelTraining.Run stopped = run("distilled-stopped", config, false);
        assertThatThrownBy(() -> ModelTraining.run(stopped, stage -> new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        if (row.step() == 7) {
                            Thread.currentThread().interrupt();
                        }
                    }
                }))
                .isInstanceOf(CancellationException.class);
        ModelTraining.run(run("distilled-stopped", config, true), stage -> SilentListener.NONE);
        assertThat(Files.mismatch(whole.checkpoint(Stage.TRANSFORMER), stopped.checkpoint(Stage.TRANSFORMER)))
                .isEqualTo(-1);

        // Nothing learnt: with any guidance it is the teacher with one pass.
        ModelTraining.Run begun =
                run("begun", config.replace("\"learning_rate\": 3e-3", "\"learning_rate\": 1e-9"), false);
        ModelTraining.run(begun, stage -> SilentListener.NONE);
        ImageRequest request = ImageRequest.of("a word")
                .seed(5)
                .size(64, 64)
                .levels(0)
                .steps(2)
                .guidance(4)
                .guideGuidance(4);
        try (ScaleDit one = exact(teacher);
                ScaleDit other = exact(begun)) {
            GeneratedImage expected = one.generate(request);
            GeneratedImage image = other.generate(request);
            int off = 0;
            for (int y = 0; y < 64; y++) {
                for (int x = 0; x < 3 * 64; x++) {
                    off = Math.max(off, Math.abs((image.row(y)[x] & 255) - (expected.row(y)[x] & 255)));
                }
            }
            assertThat(off).isLessThanOrEqualTo(1);
        }
        for (String[] change : new String[][] {
            {"\"start\": \"" + teacher.model() + "\",", "", "transformer.distillation "},
            {"\"model\": \"" + teacher.model(), "\"model\": \"" + begun.model(), "text.model "},
            {
                "\"guidance\": true",
                "\"guidance\": false",
                "transformer.guidance false, expected true beside a distillation of several guidance scales"
            },
            {"\"least\": 3", "\"least\": 0", "transformer.distillation.least 0.0, expected a number from 1.0 to 100.0"},
            {"\"most\": 5", "\"most\": 2", "transformer.distillation.most 2.0, expected a number from 3.0 to 100.0"}
        }) {
            assertThat(config).contains(change[0]);
            assertThatThrownBy(() -> recipe(config.replace(change[0], change[1])))
                    .hasMessageContaining(change[2]);
        }
    }

    /** Each sample of a batch, at its own noise level, against its way by itself, step after step. */
    @Test
    void theLessonIsTheTeachersWayStraightened() {
        float[] sigmas = {0.97f, 0.9f, 0.55f, 0.02f};
        ModelRecipe.FewSteps few = new ModelRecipe.FewSteps(3, 5);
        float[] schedule = Schedule.shifted(3, 3).sigmas(); // 1, 0.857, 0.6, 0
        int[] steps = {0, 0, 2, 2};
        TokenGrid grid = TokenGrid.ofPixels(64, 48);
        Placement placement = Placement.FLOAT32_CPU;
        ModelDirectory model = ModelDirectory.open(teacher.model());
        FluxConfig config = teacher.recipe().transformer().config();
        try (Safetensors transformer = model.weights(ModelFiles.TRANSFORMER);
                Safetensors clip = model.weights(ModelFiles.CLIP);
                Safetensors t5 = model.weights(ModelFiles.T5);
                TrainedTransformer plain = new TrainedTransformer(config, tensors(transformer), placement, false);
                TrainedTextEncoders encoders =
                        new TrainedTextEncoders(model, tensors(clip), tensors(t5), placement, false);
                Teacher few5 = new Teacher(
                        new TrainedTransformer(config, tensors(transformer), placement, false),
                        new ModelRecipe.Distillation(2, 2, Optional.of(few)),
                        encoders,
                        TEXT_TOKENS,
                        placement)) {
            Tensors.run(() -> {
                Tensor image = torch.randn(4, grid.tokens(), 64);
                Tensor noise = torch.randn(4, grid.tokens(), 64);
                List<String> captions = List.of("a circle", "a square", "", "red");
                TrainedTextEncoders.Tokens tokens = encoders.tokens(captions, captions, TEXT_TOKENS);
                Conditioning text = encoders.encode(tokens);
                Conditioning none = encoders.encode(encoders.tokens(List.of(""), List.of(""), TEXT_TOKENS));
                Teacher.Lesson lesson = few5.lesson(
                        new TransformerObjective.Batch(
                                grid,
                                image,
                                noise,
                                Tensors.of(sigmas, 4),
                                2,
                                tokens,
                                Optional.empty(),
                                Optional.empty()),
                        image,
                        noise,
                        text);
                for (int sample = 0; sample < 4; sample++) {
                    double upper = schedule[steps[sample]];
                    double lower = schedule[steps[sample] + 1];
                    Conditioning own = new Conditioning(
                            text.states().narrow(0, sample, 1), text.pooled().narrow(0, sample, 1));
                    Tensor begun = image.narrow(0, sample, 1)
                            .mul(new Scalar(1 - upper))
                            .add(noise.narrow(0, sample, 1).mul(new Scalar(upper)));
                    Tensor x = begun;
                    for (int step = 0; step < 5; step++) {
                        double sigma = upper + (lower - upper) * step / 5;
                        Tensor with = plain.velocity(batch(grid, x, sigma, own));
                        Tensor without = plain.velocity(batch(grid, x, sigma, none));
                        Tensor guided = with.mul(new Scalar(2)).sub(without);
                        x = x.add(guided.mul(new Scalar((lower - upper) / 5)));
                    }
                    double share = (upper - sigmas[sample]) / (upper - lower);
                    Tensor noised = begun.mul(new Scalar(1 - share)).add(x.mul(new Scalar(share)));
                    Tensor velocity = begun.sub(x).mul(new Scalar(1 / (upper - lower)));
                    assertNear(lesson.noised().narrow(0, sample, 1), noised);
                    assertNear(lesson.velocity().narrow(0, sample, 1), velocity);
                }
            });
        }
    }

    private static Map<String, Tensor> tensors(Safetensors file) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        file.names().forEach(name -> tensors.put(name, file.tensor(name)));
        return tensors;
    }

    private static TrainedTransformer.Batch batch(TokenGrid grid, Tensor x, double sigma, Conditioning text) {
        return new TrainedTransformer.Batch(
                grid.width(),
                grid.height(),
                x,
                Tensors.of(new float[] {(float) sigma}, 1),
                text.states(),
                text.pooled(),
                1);
    }

    private static void assertNear(Tensor actual, Tensor expected) {
        assertThat(actual.sub(expected).norm().item_double() / expected.norm().item_double())
                .isCloseTo(0, within(1e-5));
    }

    /** In two steps of one pass it comes nearer to where its teacher comes in 32 of two than that does in two steps. */
    @Test
    void fewerStepsAreDistilled() throws IOException {
        String config = config("\"guidance\": false", "{\"least\": 2, \"most\": 2, \"steps\": 2, \"teacher_steps\": 8}")
                .replace("\"size\": 32, \"batch\": 3, \"steps\": 4}", "\"size\": 64, \"batch\": 8, \"steps\": 300}")
                .replace("logit-normal", "uniform");
        ModelTraining.Run taught = run("few", config, false);
        ModelTraining.run(taught, stage -> SilentListener.NONE);
        ImageRequest request = ImageRequest.of("a disc, number 1")
                .seed(5)
                .size(64, 64)
                .levels(0)
                .guideSteps(2);
        try (ScaleDit slow = exact(teacher);
                ScaleDit quick = exact(taught)) {
            ImageRequest guided = request.negative("").trueGuidance(2);
            GeneratedImage expected = slow.generate(guided.guideSteps(32));
            double own = distance(slow.generate(guided), expected);
            double distilled = distance(quick.generate(request), expected);
            System.out.printf("levels off, of two steps: %.2f, distilled %.2f%n", own, distilled);
            assertThat(distilled).isLessThan(0.75 * own);
        }
        assertThat(teacher.model().resolve("scheduler/scheduler_config.json"))
                .content()
                .contains("\"use_dynamic_shifting\": true");
        assertThat(taught.model().resolve("scheduler/scheduler_config.json"))
                .content()
                .contains("\"shift\": 3.0", "\"use_dynamic_shifting\": false");
    }

    @Test
    void whatFewerStepsCannotBeIsRefused() {
        String config = config("\"guidance\": false", "{\"least\": 2, \"most\": 2, \"steps\": 2, \"teacher_steps\": 8}")
                .replace("logit-normal", "uniform");
        assertThat(recipe(config).transformer().distillation().orElseThrow().steps())
                .contains(new ModelRecipe.FewSteps(2, 8));
        for (String[] change : new String[][] {
            {", \"teacher_steps\": 8", "", "transformer.distillation.teacher_steps"},
            {"\"steps\": 2,", "\"steps\": 0,", "transformer.distillation.steps 0, expected an integer from 1 to 1000"},
            {"\"uniform\"", "\"logit-normal\"", "transformer.timesteps logit-normal, expected uniform beside"},
            {"\"uniform\"", "\"uniform\", \"shift\": 2", "transformer.shift 2.0, expected none beside"}
        }) {
            assertThat(config).contains(change[0]);
            assertThatThrownBy(() -> recipe(config.replace(change[0], change[1])))
                    .hasMessageContaining(change[2]);
        }
    }

    /** Root mean square, in levels of 255. */
    private static double distance(GeneratedImage one, GeneratedImage other) {
        double sum = 0;
        for (int y = 0; y < one.height(); y++) {
            for (int x = 0; x < 3 * one.width(); x++) {
                double off = (one.row(y)[x] & 255) - (other.row(y)[x] & 255);
                sum += off * off;
            }
        }
        return Math.sqrt(sum / (3.0 * one.width() * one.height()));
    }
}
