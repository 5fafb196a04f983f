package org.scaledit.cli;

import java.nio.file.Files;
import java.nio.file.Path;

/** Checks of file arguments before any work begins. */
final class Arguments {
    private Arguments() {}

    /** @param what "model", or empty */
    static void requireExists(String what, Path path) {
        if (!Files.exists(path)) {
            throw new IllegalArgumentException((what.isEmpty() ? "" : what + " ") + path + " does not exist");
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
