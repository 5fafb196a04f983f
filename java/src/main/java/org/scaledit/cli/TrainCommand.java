package org.scaledit.cli;

import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code scaledit train}. */
@Command(
        name = "train",
        description =
                "Trains what Scale-DiT adds to a FLUX.1 checkpoint, a whole model of its shape from scratch, or a judge of its pictures.",
        synopsisSubcommandLabel = "KIND",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        subcommands = {TrainLoraCommand.class, TrainModelCommand.class, TrainJudgeCommand.class})
final class TrainCommand implements Runnable {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Override
    public void run() {
        throw new ParameterException(spec.commandLine(), "No kind given, expected one of: lora, model, judge");
    }
}
