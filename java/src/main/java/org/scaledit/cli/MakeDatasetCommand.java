package org.scaledit.cli;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Memory;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.tensor.Placement;
import org.scaledit.training.PaintedSet;
import picocli.CommandLine.Command;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;
import picocli.CommandLine.TypeConversionException;

/** {@code scaledit make-dataset}. */
@Command(
        name = "make-dataset",
        description =
                "Paints pictures to train on, by the model itself: plain FLUX without LoRA, as the paper's training set"
                        + " was made. PNGs and metadata.jsonl, for train lora --data. The same command goes on where it was"
                        + " stopped.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class MakeDatasetCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 6;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(
            names = "--model",
            paramLabel = "DIR",
            required = true,
            description = "FLUX.1 checkpoint, a diffusers directory.")
    @SuppressWarnings("NullAway.Init")
    private Path model;

    @Option(
            names = "--prompts",
            paramLabel = "FILE",
            required = true,
            description = "A prompt on each line; the first follows the last until there are enough.")
    @SuppressWarnings("NullAway.Init")
    private Path prompts;

    @Option(
            names = "--count",
            paramLabel = "N",
            defaultValue = "10000",
            description = "Pictures, those of all shards and of earlier runs with them. Default: ${DEFAULT-VALUE}.")
    private int count;

    @Option(
            names = "--size",
            paramLabel = "N",
            defaultValue = "1024",
            description = "Pixels along each side, a multiple of 16 from 64 to 8192. Default: ${DEFAULT-VALUE}.")
    private int size;

    @Option(names = "--steps", paramLabel = "N", defaultValue = "28", description = "Default: ${DEFAULT-VALUE}.")
    private int steps;

    @Option(
            names = "--guidance",
            paramLabel = "G",
            defaultValue = "3.5",
            description = "Ignored by a model without guidance embedder. Default: ${DEFAULT-VALUE}.")
    private double guidance;

    @Option(
            names = "--seed",
            paramLabel = "N",
            defaultValue = "0",
            description =
                    "Of the set: a picture's noise depends on it and on the picture's number. Default: ${DEFAULT-VALUE}.")
    private long seed;

    @Option(
            names = "--shard",
            paramLabel = "i/n",
            converter = ShardConverter.class,
            description =
                    "Paint every n-th picture alone, from the i-th on. The n shards make the set that one run makes,"
                            + " in one folder, or in n whose files are put together. Default: all pictures.")
    private PaintedSet.Shard shard = PaintedSet.Shard.WHOLE;

    @Option(
            names = "--precision",
            paramLabel = "KIND",
            description =
                    "float32, bfloat16, or fp8 (the transformer's large products, on a GPU). Default: float32 on a"
                            + " CPU, bfloat16 on a GPU.")
    private @Nullable Precision precision;

    @Option(
            names = "--device",
            paramLabel = "KIND",
            defaultValue = "cpu",
            description = "cpu or cuda (an NVIDIA GPU). Default: ${DEFAULT-VALUE}.")
    private Device device = Device.CPU;

    @Option(
            names = "--memory",
            paramLabel = "KIND",
            defaultValue = "normal",
            description = "normal, or low (on a GPU: the transformer's blocks stay in the host's memory)."
                    + " Default: ${DEFAULT-VALUE}.")
    private Memory memory = Memory.NORMAL;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "DIR",
            required = true,
            description =
                    "Folder for the pictures, metadata.jsonl, dataset.json, which says what they depend on, and"
                            + " training-cache, with the prompts' states: 4 MB each in bfloat16, which train lora --cache takes.")
    private Path output = Path.of("");

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() throws Exception {
        Arguments.requireExists("model", model);
        Arguments.requireExists("prompts", prompts);
        PaintedSet.Order order = new PaintedSet.Order(model, prompts, count, output, seed, shard, painting());
        Arguments.requireNoFile(output);
        try (CleanInterrupt interrupt = new CleanInterrupt();
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            PaintedSet.paint(order, new Listener(display));
        }
        return 0;
    }

    private PaintedSet.Painting painting() {
        boolean cuda = device == Device.CUDA;
        Precision chosen = precision != null ? precision : cuda ? Precision.BFLOAT16 : Precision.FLOAT32;
        torch.ScalarType dtype = chosen == Precision.FLOAT32 ? torch.ScalarType.Float : torch.ScalarType.BFloat16;
        return new PaintedSet.Painting(
                size, steps, guidance, new Placement(dtype, cuda), chosen == Precision.FP8, memory == Memory.LOW);
    }

    private record Listener(ProgressDisplay display) implements PaintedSet.Listener {
        @Override
        public void encoded(int done, int all) {
            display.show("encode", done, all, "prompts");
        }

        @Override
        public void painted(int done, int all, double perMinute, Duration remaining) {
            String message =
                    String.format(Locale.ROOT, "%.1f a minute, %s left", perMinute, ProgressDisplay.clock(remaining));
            display.show("paint", done, all, message);
        }
    }

    /** {@code 2/4}. */
    static final class ShardConverter implements ITypeConverter<PaintedSet.Shard> {
        private static final Pattern PARTS = Pattern.compile("(\\d{1,6})/(\\d{1,6})");

        @Override
        public PaintedSet.Shard convert(String value) {
            Matcher parts = PARTS.matcher(value);
            if (!parts.matches()) {
                throw new TypeConversionException("expected i/n, 1/4 for example, but was '" + value + "'");
            }
            try {
                return new PaintedSet.Shard(Integer.parseInt(parts.group(1)), Integer.parseInt(parts.group(2)));
            } catch (IllegalArgumentException e) {
                throw new TypeConversionException(e.getMessage());
            }
        }
    }
}
