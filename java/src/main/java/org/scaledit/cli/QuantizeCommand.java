package org.scaledit.cli;

import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.scaledit.checkpoint.Quantization;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code scaledit quantize}. */
@Command(
        name = "quantize",
        description =
                "Writes a checkpoint once more with its matrices in INT8 and a scale for each row, biases and norms in"
                        + " float16: about a quarter of float32's size. It loads like the other one. Of several that were"
                        + " trained from the same one it writes the mean of their weights.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class QuantizeCommand implements Callable<Integer> {
    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(
            paramLabel = "MODEL",
            arity = "1..*",
            description =
                    "FLUX.1 checkpoint, a diffusers directory. All others have the same tensors and tokenizers; what is no"
                            + " weight of a part, and LoRAs, are the first one's.")
    private List<Path> models = List.of();

    @Option(
            names = {"-o", "--output"},
            paramLabel = "DIR",
            required = true,
            description = "Folder for the new one, which must not exist.")
    private Path output = Path.of("");

    @Override
    public Integer call() {
        models.forEach(model -> Arguments.requireExists("model", model));
        Arguments.requireNew(output);
        PrintWriter out = spec.commandLine().getOut();
        List<Quantization.Part> parts = new ArrayList<>();
        try (CleanInterrupt interrupt = new CleanInterrupt()) {
            Quantization.write(models, output, part -> {
                parts.add(part);
                say(out, part);
            });
        }
        long before = parts.stream().mapToLong(Quantization.Part::bytesBefore).sum();
        long after = parts.stream().mapToLong(Quantization.Part::bytesAfter).sum();
        out.println(sizes("weights", before, after));
        out.flush();
        return 0;
    }

    private static void say(PrintWriter out, Quantization.Part part) {
        out.printf(
                Locale.ROOT,
                "%s, changed by %.4f of their norm%n",
                sizes(part.name(), part.bytesBefore(), part.bytesAfter()),
                part.relativeError());
        part.beyondFloat16()
                .forEach(name -> out.println("  float32, as it is beyond float16's range of 65504: " + name));
        out.flush();
    }

    private static String sizes(String what, long before, long after) {
        return String.format(Locale.ROOT, "%-16s %10.2f MB -> %10.2f MB", what, before * 1e-6, after * 1e-6);
    }
}
