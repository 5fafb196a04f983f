package org.scaledit.cli;

import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.evaluation.LossCurve;
import org.scaledit.training.LossLog;
import org.scaledit.training.ModelRecipe;
import org.scaledit.training.ModelTraining;
import org.scaledit.training.TrainingListener;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code scaledit train model}. */
@Command(
        name = "model",
        description =
                "Trains a model of FLUX.1's shape from scratch: its autoencoder, then its transformer with both text"
                        + " encoders. The output gets the folder model, which generate loads, and of each stage a checkpoint,"
                        + " loss.csv and loss.png.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class TrainModelCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 11;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(
            names = "--config",
            paramLabel = "FILE",
            required = true,
            description =
                    "What the model is made of, and how it is trained: JSON, such as tools/demo-model/model.json.")
    @SuppressWarnings("NullAway.Init")
    private Path config;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "DIR",
            required = true,
            description = "Folder for all that comes out.")
    @SuppressWarnings("NullAway.Init")
    private Path output;

    @Option(
            names = "--resume",
            description =
                    "Go on from the checkpoints in the output, by the same command: on a CPU the model is, bit for bit,"
                            + " the one that a run without a stop gives.")
    private boolean resume;

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
            description =
                    "GPUs, each with a copy of what is trained, which share the batches of a step: accumulate, of every"
                            + " phase, is a multiple of it. A training may go on with another number. Default: ${DEFAULT-VALUE}.")
    private int gpus;

    @Option(
            names = "--precision",
            paramLabel = "KIND",
            description = "float32 or bfloat16; weights are changed in float32 in any case. Default: float32 on a CPU,"
                    + " bfloat16 on a GPU.")
    private @Nullable Precision precision;

    @Option(
            names = "--sprites",
            paramLabel = "DIR",
            description = "The SVG sets of scenes, which tools/sprites fetches. Default: those that it has fetched.")
    private @Nullable Path sprites;

    @Option(
            names = "--cache",
            paramLabel = "DIR",
            description = "Folder for latents, which are computed once. Default: training-cache in the output.")
    private @Nullable Path cache;

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() throws Exception {
        ModelRecipe recipe = ModelRecipe.read(config);
        boolean scenes = recipe.data().folder().isEmpty();
        if (sprites != null && !scenes) {
            throw new IllegalArgumentException("sprites are given, expected data.scenes in " + config);
        }
        Optional<Path> spritesFolder = scenes ? Optional.of(Arguments.spritesFolder(sprites)) : Optional.empty();
        Arguments.makeFolder(output);
        ModelTraining.Run run = new ModelTraining.Run(
                recipe,
                output,
                cache == null ? output.resolve("training-cache") : cache,
                spritesFolder,
                resume,
                Arguments.trainingPlacement(device, precision),
                Arguments.gpus(gpus, device));
        try (CleanInterrupt interrupt = new CleanInterrupt();
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            ModelTraining.run(run, stage -> new Listener(output, stage.word(), display));
        }
        return 0;
    }

    /** The display, and the curve at every checkpoint. */
    private record Listener(Path output, String stage, ProgressDisplay display) implements TrainingListener {
        @Override
        public void encoded(int done, int all) {
            display.show("encode", done, all, "pictures");
        }

        @Override
        public void stepped(LossLog.Row row, long steps, Pace pace) {
            display.show(stage, row.step(), steps, TrainLoraCommand.message(row, pace));
        }

        @Override
        public void saved(List<LossLog.Row> rows) {
            LossCurve.write(output.resolve(stage + ".loss.png"), rows);
        }
    }
}
