package org.scaledit.cli;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.evaluation.LossCurve;
import org.scaledit.training.LoraTargets;
import org.scaledit.training.LoraTraining;
import org.scaledit.training.LossLog;
import org.scaledit.training.Recipe;
import org.scaledit.training.TrainingListener;
import picocli.CommandLine.Command;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;
import picocli.CommandLine.TypeConversionException;

/** {@code scaledit train lora}. */
@Command(
        name = "lora",
        description =
                "Trains the LoRA that ties windows to the guidance image, on a folder of pictures: each one guides its own"
                        + " high-resolution pass, shrunk by the ratio. Beside the LoRA go its checkpoint, loss.csv and loss.png.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class TrainLoraCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 6;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(
            names = "--model",
            paramLabel = "DIR",
            required = true,
            description = "FLUX.1 checkpoint, a diffusers directory. Its weights stay as they are.")
    @SuppressWarnings("NullAway.Init")
    private Path model;

    @Option(
            names = "--data",
            paramLabel = "DIR",
            required = true,
            description = "PNG and JPEG files, each with its caption in a .txt of the same name, or in metadata.jsonl"
                    + " (a line {\"file_name\": ..., \"text\": ...} each).")
    @SuppressWarnings("NullAway.Init")
    private Path data;

    @Option(
            names = "--resolution",
            paramLabel = "N",
            defaultValue = "1024",
            description =
                    "A picture keeps its shape, from 1:4 to 4:1, and has about N x N pixels: a multiple of 16 times"
                            + " the ratio. Default: ${DEFAULT-VALUE}.")
    private int resolution;

    @Option(
            names = "--ratio",
            paramLabel = "N",
            defaultValue = "4",
            description = "How many times smaller the guidance image is: 1, 2, 4 or 8. Default: ${DEFAULT-VALUE}.")
    private int ratio;

    @Option(names = "--rank", paramLabel = "N", defaultValue = "16", description = "Default: ${DEFAULT-VALUE}.")
    private int rank;

    @Option(
            names = "--alpha",
            paramLabel = "A",
            defaultValue = "16",
            description = "The LoRA is multiplied by alpha / rank. Default: ${DEFAULT-VALUE}.")
    private double alpha;

    @Option(
            names = "--targets",
            paramLabel = "KIND",
            defaultValue = "qkv",
            description = "The layers that are trained: 'qkv' (the paper), or all of the 'released' code."
                    + " Default: ${DEFAULT-VALUE}.")
    private LoraTargets targets = LoraTargets.QKV;

    @Option(
            names = "--lora-scope",
            paramLabel = "KIND",
            defaultValue = "guidance",
            description =
                    "They act on 'guidance' tokens, on 'all', or as in the 'released' code; generate with the same."
                            + " Default: ${DEFAULT-VALUE}.")
    private Recipe.Scope scope = Recipe.Scope.GUIDANCE;

    @Option(
            names = "--steps",
            paramLabel = "N",
            defaultValue = "20000",
            description = "Steps in all, those before a resumption with them. Default: ${DEFAULT-VALUE}.")
    private long steps;

    @Option(
            names = "--accumulate",
            paramLabel = "N",
            defaultValue = "4",
            description = "Pictures of a step, on each GPU one after the other. Default: ${DEFAULT-VALUE}.")
    private int accumulate;

    @Option(
            names = "--optimizer",
            paramLabel = "KIND",
            defaultValue = "prodigy",
            description = "prodigy or adamw. Default: ${DEFAULT-VALUE}.")
    private Recipe.OptimizerKind optimizer = Recipe.OptimizerKind.PRODIGY;

    @Option(
            names = "--learning-rate",
            paramLabel = "R",
            description = "Default: 1 with prodigy, which multiplies it by its own estimate; 1e-4 with adamw.")
    private @Nullable Double learningRate;

    @Option(
            names = "--timesteps",
            paramLabel = "KIND",
            defaultValue = "logit-normal",
            converter = TimestepsConverter.class,
            description = "Noise levels are 'logit-normal' (the released code) or 'uniform' (the paper)."
                    + " Default: ${DEFAULT-VALUE}.")
    private Recipe.Timesteps timesteps = Recipe.Timesteps.LOGIT_NORMAL;

    @Option(
            names = "--clip-norm",
            paramLabel = "N",
            description = "Shorten gradients that are longer than this, all together. Default: none.")
    private @Nullable Double clipNorm;

    @Option(
            names = "--average",
            paramLabel = "D",
            description = "Write, and paint samples with, a moving average of the LoRA, of which so much stays at each"
                    + " step, 0.99 for example: gradients of few pictures are noisy. Default: none.")
    private @Nullable Double average;

    @Option(
            names = "--text-tokens",
            paramLabel = "N",
            description =
                    "Length of T5's text. Default: 512, or 256 without guidance embedder, or what the model's tokenizer"
                            + " allows if that is less.")
    private @Nullable Integer textTokens;

    @Option(
            names = "--seed",
            paramLabel = "N",
            defaultValue = "0",
            description = "Of the first matrices, and of order, noise level and noise of every sample."
                    + " Default: ${DEFAULT-VALUE}.")
    private long seed;

    @Option(
            names = "--attention",
            paramLabel = "KIND",
            defaultValue = "native",
            description = "'native', or 'dense' (torch, slow). Default: ${DEFAULT-VALUE}.")
    private Recipe.AttentionKind attention = Recipe.AttentionKind.NATIVE;

    @Option(
            names = "--precision",
            paramLabel = "KIND",
            description =
                    "float32 or bfloat16; the LoRA itself is always float32. Default: float32 on a CPU, bfloat16 on a"
                            + " GPU.")
    private @Nullable Precision precision;

    @Option(
            names = "--device",
            paramLabel = "KIND",
            defaultValue = "cpu",
            description = "cpu or cuda (an NVIDIA GPU). Default: ${DEFAULT-VALUE}.")
    private Device device = Device.CPU;

    @Option(
            names = "--gpus",
            paramLabel = "N",
            defaultValue = "1",
            description = "GPUs, each with a copy of the model, which share the pictures of a step: --accumulate is a"
                    + " multiple of it. A training may go on with another number. Default: ${DEFAULT-VALUE}.")
    private int gpus;

    @Option(
            names = "--save-every",
            paramLabel = "N",
            defaultValue = "500",
            description =
                    "Write checkpoint, LoRA and loss.png every N steps, and at the end. Default: ${DEFAULT-VALUE}.")
    private long saveEvery;

    @Option(
            names = "--sample-every",
            paramLabel = "N",
            description = "Every N steps, make a square picture of each sample prompt at the resolution, always from"
                    + " the same noise: samples/step-000500-1.png beside the output and so on. Default: none.")
    private @Nullable Long sampleEvery;

    @Option(names = "--sample-prompt", paramLabel = "TEXT", description = "What such a picture shows, may be repeated.")
    private List<String> samplePrompts = List.of();

    @Option(
            names = "--resume",
            description =
                    "Go on from the checkpoint beside the output, by the same command: on a CPU the LoRA is, bit for"
                            + " bit, the one that a run without a stop gives. More --steps than before are allowed.")
    private boolean resume;

    @Option(
            names = "--cache",
            paramLabel = "DIR",
            description = "Folder for latents and text states, which are computed once. Runs may share it."
                    + " Default: training-cache beside the output.")
    private @Nullable Path cache;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "FILE",
            defaultValue = "lora.safetensors",
            description = "The LoRA, in PEFT's format. Default: ${DEFAULT-VALUE}.")
    private Path output = Path.of("lora.safetensors");

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() throws Exception {
        LoraTraining.Run run = run();
        Arguments.requireExists("model", model);
        Arguments.requireExists("data", data);
        Arguments.requireWritable(output);
        Arguments.requireNoFile("cache", run.cache());
        try (CleanInterrupt interrupt =
                        CleanInterrupt.ofTraining(spec.commandLine().getErr());
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            LoraTraining.run(run, new Listener(run, display));
        }
        return 0;
    }

    private LoraTraining.Run run() {
        Recipe recipe = new Recipe(
                resolution,
                ratio,
                rank,
                alpha,
                targets,
                scope,
                textTokens == null ? OptionalInt.empty() : OptionalInt.of(textTokens),
                accumulate,
                optimizer,
                learningRate == null ? optimizer.defaultLearningRate() : learningRate,
                timesteps,
                optional(clipNorm),
                optional(average),
                attention,
                seed);
        return new LoraTraining.Run(
                model,
                data,
                cache == null ? output.resolveSibling("training-cache") : cache,
                output,
                recipe,
                steps,
                saveEvery,
                resume,
                Arguments.trainingPlacement(device, precision),
                Arguments.gpus(gpus, device),
                samples());
    }

    private static OptionalDouble optional(@Nullable Double number) {
        return number == null ? OptionalDouble.empty() : OptionalDouble.of(number);
    }

    /** Sampled as pictures are by default. */
    private Optional<LoraTraining.Samples> samples() {
        if (sampleEvery == null) {
            if (!samplePrompts.isEmpty()) {
                throw new IllegalArgumentException("sample prompts are given, expected --sample-every N beside them");
            }
            return Optional.empty();
        }
        ImageRequest usual = ImageRequest.of("");
        return Optional.of(new LoraTraining.Samples(
                sampleEvery,
                samplePrompts,
                usual.steps(),
                usual.guidance(),
                usual.guideSteps(),
                usual.guideGuidance()));
    }

    /** The display, and the curve at every checkpoint. */
    private record Listener(LoraTraining.Run run, ProgressDisplay display) implements TrainingListener {
        @Override
        public void encoded(int done, int all) {
            display.show("encode", done, all, "pictures and captions");
        }

        @Override
        public void stepped(LossLog.Row row, long steps, Pace pace) {
            String message = message(row, pace);
            display.show("train", row.step(), steps, message);
        }

        @Override
        public void saved(List<LossLog.Row> rows) {
            LossCurve.write(run.output().resolveSibling("loss.png"), rows);
        }
    }

    /** Of a step, in one line. */
    static String message(LossLog.Row row, TrainingListener.Pace pace) {
        return String.format(
                Locale.ROOT,
                "loss %.3f, rate %.1e, norm %.1e, %.1f/s, %s left",
                row.loss(),
                row.learningRate(),
                row.gradientNorm(),
                pace.samplesPerSecond(),
                ProgressDisplay.clock(pace.remaining()));
    }

    /** {@code logit-normal} for {@code LOGIT_NORMAL}. */
    static final class TimestepsConverter implements ITypeConverter<Recipe.Timesteps> {
        @Override
        public Recipe.Timesteps convert(String value) {
            try {
                return Recipe.Timesteps.valueOf(value.toUpperCase(Locale.ROOT).replace('-', '_'));
            } catch (IllegalArgumentException e) {
                throw new TypeConversionException("expected logit-normal or uniform but was '" + value + "'");
            }
        }
    }
}
