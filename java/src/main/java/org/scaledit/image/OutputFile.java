package org.scaledit.image;

import ar.com.hjg.pngj.PngjException;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.ThreadLocalRandom;

/** A file that appears, or replaces an older one, only when it is whole. */
public final class OutputFile {
    private OutputFile() {}

    /** Writes the content of a file, to any stream. */
    @FunctionalInterface
    public interface Content {
        void write(OutputStream stream) throws IOException;
    }

    /**
     * Writes to a file beside {@code file} and renames it when it is whole. On a failure an older file stays as it was, and
     * nothing else is left.
     *
     * @throws ImageException if the file cannot be written
     */
    public static void replace(Path file, Content content) {
        if (Files.exists(file) && !Files.isRegularFile(file)) {
            throw new ImageException("cannot write " + file + ": it is "
                    + (Files.isDirectory(file) ? "a folder" : "not a regular file"));
        }
        Path target = file.toAbsolutePath();
        Path unfinished = target.resolveSibling(
                ".scaledit-" + Long.toHexString(ThreadLocalRandom.current().nextLong()));
        try {
            try (OutputStream stream = Files.newOutputStream(unfinished, StandardOpenOption.CREATE_NEW)) {
                content.write(stream);
            }
            Files.move(unfinished, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException | PngjException e) {
            delete(unfinished, e);
            throw new ImageException("cannot write " + file + ": " + Reasons.of(e), e);
        } catch (RuntimeException | Error e) {
            delete(unfinished, e);
            throw e;
        }
    }

    private static void delete(Path unfinished, Throwable failure) {
        try {
            Files.deleteIfExists(unfinished);
        } catch (IOException e) {
            failure.addSuppressed(e);
        }
    }
}
