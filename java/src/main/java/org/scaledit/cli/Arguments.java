package org.scaledit.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.scaledit.file.Reasons;

/** Checks of file arguments before any work begins. */
final class Arguments {
    private Arguments() {}

    /** @param what "model", or empty */
    static void requireExists(String what, Path path) {
        if (!Files.exists(path)) {
            throw new IllegalArgumentException((what.isEmpty() ? "" : what + " ") + path + " does not exist");
        }
    }

    /** Makes the folder and those above it, if they are not there. */
    static void makeFolder(Path folder) {
        if (Files.exists(folder) && !Files.isDirectory(folder)) {
            throw new IllegalArgumentException("output " + folder + " is a file, expected a folder");
        }
        try {
            Files.createDirectories(folder);
        } catch (IOException e) {
            throw new IllegalArgumentException("output folder " + folder + " cannot be made: " + Reasons.of(e), e);
        }
        if (!Files.isWritable(folder)) {
            throw new IllegalArgumentException("output folder " + folder + " is not writable");
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
