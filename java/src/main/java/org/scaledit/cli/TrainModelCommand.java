package org.scaledit.cli;

import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.tensor.Placement;
import org.scaledit.training.ModelRecipe;
import org.scaledit.training.ModelTraining;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
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
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Mixin
    private final TrainingOptions options = new TrainingOptions();

    @Option(
            names = "--cache",
            paramLabel = "DIR",
            description = "Folder for latents, which are computed once. Default: training-cache in the output.")
    private @Nullable Path cache;

    @Override
    public Integer call() throws Exception {
        ModelRecipe recipe = ModelRecipe.read(options.config());
        boolean scenes = recipe.data().folder().isEmpty();
        if (options.sprites() != null && !scenes) {
            throw new IllegalArgumentException("sprites are given, expected data.scenes in " + options.config());
        }
        Path output = options.output();
        Arguments.requireNoFile(output);
        Placement placement = options.placement();
        int gpus = options.gpus();
        Optional<Path> sprites = scenes ? Optional.of(Arguments.spritesFolder(options.sprites())) : Optional.empty();
        ModelTraining.Run run = new ModelTraining.Run(
                recipe,
                output,
                cache == null ? output.resolve("training-cache") : cache,
                sprites,
                options.resume(),
                placement,
                gpus);
        Arguments.requireNoFile("cache", run.cache());
        try (OutputFolder made = OutputFolder.make(output);
                CleanInterrupt interrupt =
                        CleanInterrupt.ofTraining(spec.commandLine().getErr());
                ProgressDisplay display = ProgressDisplay.of(
                        options.quiet(),
                        StageListener.COLUMNS,
                        spec.commandLine().getErr())) {
            ModelTraining.run(run, stage -> new StageListener(output, stage.word(), display));
        }
        return 0;
    }
}
