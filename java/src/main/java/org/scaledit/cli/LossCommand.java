package org.scaledit.cli;

import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.List;
import java.util.OptionalInt;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.checkpoint.LoraFile;
import org.scaledit.evaluation.LossTable;
import org.scaledit.training.HeldOutLoss;
import org.scaledit.training.Recipe;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code scaledit loss}. */
@Command(
        name = "loss",
        description =
                "Says what a LoRA earns on pictures that it was not trained on: the loss of flow matching of dense attention,"
                        + " as plain FLUX has it, of Scale-DiT without a LoRA and with it, on the same pictures, noise levels and"
                        + " noise; and how much of the gap between the first two the LoRA closes.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class LossCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 6;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(paramLabel = "MODEL", description = "FLUX.1 checkpoint, a diffusers directory.")
    @SuppressWarnings("NullAway.Init")
    private Path model;

    @Option(
            names = "--data",
            paramLabel = "DIR",
            required = true,
            description = "Pictures and captions, as train lora takes them.")
    @SuppressWarnings("NullAway.Init")
    private Path data;

    @Option(
            names = "--lora",
            paramLabel = "FILE[:scale]",
            converter = LoraConverter.class,
            description = "LoRA, may be repeated. Scale: 1. Default: the one that the model brings.")
    private @Nullable List<LoraFile> loras;

    @Option(
            names = "--lora-scope",
            paramLabel = "KIND",
            defaultValue = "guidance",
            description = "It acts on 'guidance' tokens, on 'all', or as in the 'released' code; as it was trained."
                    + " Default: ${DEFAULT-VALUE}.")
    private Recipe.Scope scope = Recipe.Scope.GUIDANCE;

    @Option(
            names = "--resolution",
            paramLabel = "N",
            defaultValue = "1024",
            description =
                    "A picture keeps its shape and is shrunk to about N x N pixels, as in train lora; a smaller one"
                            + " is refused. Default: ${DEFAULT-VALUE}.")
    private int resolution;

    @Option(
            names = "--ratio",
            paramLabel = "N",
            defaultValue = "4",
            description = "How many times smaller the guidance image is: 1, 2, 4 or 8. Default: ${DEFAULT-VALUE}.")
    private int ratio;

    @Option(
            names = "--pictures",
            paramLabel = "N",
            description = "So many of the data, which the seed chooses. Default: all.")
    private @Nullable Integer pictures;

    @Option(
            names = "--noise-levels",
            paramLabel = "N",
            defaultValue = "4",
            description = "Of each picture, one in each of so many bands, which are equally probable."
                    + " Default: ${DEFAULT-VALUE}.")
    private int noiseLevels;

    @Option(
            names = "--timesteps",
            paramLabel = "KIND",
            defaultValue = "logit-normal",
            converter = TrainLoraCommand.TimestepsConverter.class,
            description = "Noise levels are distributed 'logit-normal' or 'uniform', as in train lora."
                    + " Default: ${DEFAULT-VALUE}.")
    private Recipe.Timesteps timesteps = Recipe.Timesteps.LOGIT_NORMAL;

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
            description = "Of the choice of pictures, and of noise level and noise of each. Default: ${DEFAULT-VALUE}.")
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
            description = "float32 or bfloat16. Default: float32 on a CPU, bfloat16 on a GPU.")
    private @Nullable Precision precision;

    @Option(
            names = "--device",
            paramLabel = "KIND",
            defaultValue = "cpu",
            description = "cpu or cuda (an NVIDIA GPU). Default: ${DEFAULT-VALUE}.")
    private Device device = Device.CPU;

    @Option(
            names = "--cache",
            paramLabel = "DIR",
            description = "Folder for latents and text states, which are computed once; that of a training serves."
                    + " Default: training-cache beside the output, without one in the current folder.")
    private @Nullable Path cache;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "FILE",
            description = "JSON file for the result, each picture's losses with it. Default: none.")
    private @Nullable Path output;

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() {
        Arguments.requireExists("model", model);
        Arguments.requireExists("data", data);
        if (output != null) {
            Arguments.requireWritable(output);
        }
        HeldOutLoss.Order order = order();
        Arguments.requireNoFile("cache", order.cache());
        order.loras().forEach(lora -> Arguments.requireExists("LoRA", lora.file()));
        try (CleanInterrupt interrupt = new CleanInterrupt();
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            LossTable table = new LossTable(order, HeldOutLoss.measure(order, new Listener(display)));
            if (output != null) {
                table.write(output);
            }
            PrintWriter out = spec.commandLine().getOut();
            out.print(table.words());
            out.flush();
        }
        return 0;
    }

    private HeldOutLoss.Order order() {
        return new HeldOutLoss.Order(
                model,
                data,
                cache != null ? cache : (output != null ? output : Path.of("")).resolveSibling("training-cache"),
                loras != null ? loras : ScaleDit.lorasOf(model),
                scope,
                resolution,
                ratio,
                textTokens == null ? OptionalInt.empty() : OptionalInt.of(textTokens),
                pictures == null ? OptionalInt.empty() : OptionalInt.of(pictures),
                noiseLevels,
                timesteps,
                attention,
                Arguments.trainingPlacement(device, precision),
                seed);
    }

    private record Listener(ProgressDisplay display) implements HeldOutLoss.Listener {
        @Override
        public void encoded(int done, int all) {
            display.show("encode", done, all, "pictures and captions");
        }

        @Override
        public void measured(int done, int all) {
            display.show("loss", done, all, "noised pictures");
        }
    }
}
