package org.scaledit.cli;

import java.nio.file.Path;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.tensor.Placement;
import picocli.CommandLine.Option;

/** Options of whatever is trained from scratch by a recipe. */
final class TrainingOptions {
    @Option(
            names = "--config",
            paramLabel = "FILE",
            required = true,
            description = "What is made, and how it is trained: JSON, such as those in tools/demo-model.")
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
                    "Go on from the checkpoints in the output, by the same command: on a CPU the result is, bit for bit,"
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
                    "GPUs, each with a copy of what is trained, which share the batches of a step: in every phase a"
                            + " multiple of it. A training may go on with another number. Default: ${DEFAULT-VALUE}.")
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

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    Path config() {
        return config;
    }

    Path output() {
        return output;
    }

    boolean resume() {
        return resume;
    }

    @Nullable
    Path sprites() {
        return sprites;
    }

    boolean quiet() {
        return quiet;
    }

    int gpus() {
        return Arguments.gpus(gpus, device);
    }

    Placement placement() {
        return Arguments.trainingPlacement(device, precision);
    }
}
