package org.scaledit.cli;

import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.scaledit.ScaleDit;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code scaledit info}. */
@Command(
        name = "info",
        description = "Says what a checkpoint, a LoRA or a picture of this program holds.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class)
final class InfoCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(
            paramLabel = "MODEL_OR_LORA_OR_PNG",
            description = "A diffusers directory, a safetensors file or a PNG.")
    @SuppressWarnings("NullAway.Init")
    private Path path;

    @Override
    public Integer call() {
        Arguments.requireExists("", path);
        spec.commandLine().getOut().println(ScaleDit.describe(path));
        spec.commandLine().getOut().flush();
        return 0;
    }
}
