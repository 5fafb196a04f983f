package org.scaledit.cli;

import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.scaledit.judge.Judge;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Placement;
import org.scaledit.training.JudgeRecipe;
import org.scaledit.training.JudgeTraining;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Spec;

/** {@code scaledit train judge}. */
@Command(
        name = "judge",
        description =
                "Trains a detector of the objects of scenes, on true renders alone, and examines it on others, also on"
                        + " held-out combinations. The output gets the folder judge, which evaluate takes, with its accuracy in"
                        + " its config.json; a checkpoint, loss.csv and loss.png.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class TrainJudgeCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Mixin
    private final TrainingOptions options = new TrainingOptions();

    @Override
    public Integer call() throws Exception {
        JudgeRecipe recipe = JudgeRecipe.read(options.config(), Vocabulary.standard());
        Arguments.requireNoFile(options.output());
        Placement placement = options.placement();
        int gpus = options.gpus();
        Path sprites = Arguments.spritesFolder(options.sprites());
        JudgeTraining.Run run =
                new JudgeTraining.Run(recipe, options.output(), sprites, options.resume(), placement, gpus);
        try (OutputFolder made = OutputFolder.make(options.output());
                CleanInterrupt interrupt =
                        CleanInterrupt.ofTraining(spec.commandLine().getErr());
                ProgressDisplay display = ProgressDisplay.of(
                        options.quiet(),
                        StageListener.COLUMNS,
                        spec.commandLine().getErr())) {
            JudgeTraining.run(run, new StageListener(options.output(), JudgeTraining.WORD, display));
        }
        try (Judge judge = Judge.open(run.judge(), Placement.FLOAT32_CPU)) {
            PrintWriter out = spec.commandLine().getOut();
            out.println(
                    "right, usual combinations:    " + judge.accuracy().usual().words());
            out.println("right, held-out combinations: "
                    + judge.accuracy().heldOut().words());
            out.flush();
        }
        return 0;
    }
}
