package org.scaledit.cli;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.file.Reasons;
import org.scaledit.tensor.Placement;

/** Checks of file arguments before any work begins. */
final class Arguments {
    private Arguments() {}

    /** @param what "model", or empty */
    static void requireExists(String what, Path path) {
        if (!Files.exists(path)) {
            throw new IllegalArgumentException((what.isEmpty() ? "" : what + " ") + path + " does not exist");
        }
    }

    /** The SVG sets of scenes: those that were given, or those that tools/sprites has fetched. */
    static Path spritesFolder(@Nullable Path given) {
        return folder("sprites", given);
    }

    /** The network that features are taken from: the one that was given, or the one that tools/inception has fetched. */
    static Path featuresFolder(@Nullable Path given) {
        return folder("features", given);
    }

    /**
     * The folder that an option gives, or the one that the launcher names. What is in that is fetched now, if it is not there: after
     * all other arguments have been checked, as it takes its time.
     */
    private static Path folder(String option, @Nullable Path given) {
        if (given != null) {
            requireExists(option, given);
            return given;
        }
        String fetched = System.getProperty("scaledit." + option);
        if (fetched == null) {
            throw new IllegalArgumentException("no " + option + " given, expected --" + option + " DIR");
        }
        String tool = System.getProperty("scaledit." + option + ".tool");
        if (tool != null) {
            fetch(option, tool);
        }
        return Path.of(fetched);
    }

    private static void fetch(String option, String tool) {
        try {
            int status = new ProcessBuilder(tool).inheritIO().start().waitFor();
            if (status != 0) {
                throw new IllegalStateException("no " + option + ": " + tool + " ended with status " + status);
            }
        } catch (IOException e) {
            throw new UncheckedIOException("no " + option + ": " + tool + " cannot be run: " + Reasons.of(e), e);
        } catch (InterruptedException e) {
            throw new CancellationException("fetching was cancelled");
        }
    }

    /** Of a training. */
    static int gpus(int given, Device device) {
        if (given > 1 && device == Device.CPU) {
            throw new IllegalArgumentException("gpus is " + given + ", expected --device cuda beside it");
        }
        return given;
    }

    /** Where a training computes, and in which precision: by default in float32 on a CPU, in bfloat16 on a GPU. */
    static Placement trainingPlacement(Device device, @Nullable Precision given) {
        boolean cuda = device == Device.CUDA;
        Precision chosen = given != null ? given : cuda ? Precision.BFLOAT16 : Precision.FLOAT32;
        return new Placement(
                switch (chosen) {
                    case FLOAT32 -> torch.ScalarType.Float;
                    case BFLOAT16 -> torch.ScalarType.BFloat16;
                    case FP8 ->
                        throw new IllegalArgumentException(
                                "precision fp8 has no gradients, expected float32 or bfloat16");
                },
                cuda);
    }

    /** Of an output that is made later. */
    static void requireNoFile(Path folder) {
        requireNoFile("output", folder);
    }

    /** @param what "cache" */
    static void requireNoFile(String what, Path folder) {
        if (Files.exists(folder) && !Files.isDirectory(folder)) {
            throw new IllegalArgumentException(what + " " + folder + " is a file, expected a folder");
        }
    }

    /** A folder that is going to be made, in one that is there. */
    static void requireNew(Path folder) {
        requireAbsent(folder);
        requireWritable(folder);
    }

    static void requireAbsent(Path folder) {
        if (Files.exists(folder)) {
            throw new IllegalArgumentException("output " + folder + " exists, expected a folder that is to be made");
        }
    }

    /** Better to hear of an unwritable folder before the picture is made than after. */
    static void requireWritable(Path file) {
        Path folder = file.toAbsolutePath().getParent();
        if (folder == null || Files.isDirectory(file)) {
            throw new IllegalArgumentException("output " + file + " is a folder, expected a file");
        }
        if (!Files.isDirectory(folder)) {
            throw new IllegalArgumentException(
                    "folder " + folder + " of output " + file.getFileName() + " does not exist");
        }
        if (!Files.isWritable(folder)) {
            throw new IllegalArgumentException(
                    "folder " + folder + " of output " + file.getFileName() + " is not writable");
        }
    }
}
