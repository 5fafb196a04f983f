package org.scaledit.cli;

import java.io.PrintWriter;
import java.util.concurrent.CancellationException;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ScopeType;
import picocli.CommandLine.Spec;

/**
 * The command line. Exit status 0, 2 for a wrong argument, 1 for a failure; either way one sentence on standard error.
 */
@Command(
        name = "scaledit",
        description = "4K and larger pictures from text, with a FLUX.1 checkpoint.",
        synopsisSubcommandLabel = "COMMAND",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        subcommands = {
            GenerateCommand.class,
            InfoCommand.class,
            QuantizeCommand.class,
            BenchCommand.class,
            TrainCommand.class,
            MakeDatasetCommand.class,
            ScenesCommand.class,
            EvaluateCommand.class,
            LossCommand.class,
            FidCommand.class
        })
public final class Main implements Runnable {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(
            names = "--verbose",
            scope = ScopeType.INHERIT,
            description = "On a failure, print the stack trace as well.")
    private boolean verbose;

    public static void main(String[] arguments) {
        System.exit(run(arguments));
    }

    /** Runs one command line; returns its exit status. */
    static int run(String... arguments) {
        Main main = new Main();
        CommandLine commandLine = new CommandLine(main)
                .setCaseInsensitiveEnumValuesAllowed(true)
                .setUsageHelpWidth(110)
                .setExpandAtFiles(false) // a prompt may begin with @
                .setParameterExceptionHandler((exception, given) -> main.wrongArgument(exception))
                .setExecutionExceptionHandler((exception, command, result) -> main.failure(command, exception));
        try {
            return commandLine.execute(arguments);
        } catch (OutOfMemoryError e) { // picocli hands on exceptions alone
            main.say(commandLine, outOfMemory(e), e);
            return CommandLine.ExitCode.SOFTWARE;
        }
    }

    private static String outOfMemory(OutOfMemoryError error) {
        String message = oneLine(error);
        if (!message.startsWith("Java heap space") && !message.startsWith("GC overhead limit")) {
            return "Out of memory: " + message;
        }
        return "Java's heap of " + (Runtime.getRuntime().maxMemory() >> 20)
                + " MiB is too small, expected more in the variable SCALEDIT_HEAP (8g, for example)";
    }

    @Override
    public void run() {
        throw new ParameterException(
                spec.commandLine(),
                "No command given, expected one of: generate, info, quantize, bench, train, make-dataset, scenes,"
                        + " evaluate, loss, fid");
    }

    private int wrongArgument(ParameterException exception) {
        String help = exception.getCommandLine().getCommandSpec().qualifiedName() + " --help";
        say(exception.getCommandLine(), oneLine(exception) + " (see " + help + ")", exception);
        return CommandLine.ExitCode.USAGE;
    }

    private int failure(CommandLine command, Exception exception) {
        if (exception instanceof IllegalArgumentException) {
            say(command, oneLine(exception), exception);
            return CommandLine.ExitCode.USAGE;
        }
        boolean cancelled = exception instanceof CancellationException && exception.getMessage() == null;
        say(command, cancelled ? "Cancelled" : oneLine(exception), exception);
        return CommandLine.ExitCode.SOFTWARE;
    }

    private void say(CommandLine command, String sentence, Throwable exception) {
        PrintWriter err = command.getErr();
        err.println("scaledit: " + sentence);
        if (verbose) {
            exception.printStackTrace(err);
        }
        err.flush();
    }

    private static String oneLine(Throwable exception) {
        String message = exception.getMessage();
        String text = message == null || message.isBlank() ? exception.toString() : message;
        return text.lines().findFirst().orElse(text).strip();
    }
}
