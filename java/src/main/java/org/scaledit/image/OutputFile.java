package org.scaledit.image;

import ar.com.hjg.pngj.PngjException;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Path;
import org.scaledit.file.Reasons;
import org.scaledit.file.UnfinishedFile;

/** A file that is written in one go. */
public final class OutputFile {
    private OutputFile() {}

    /** Writes the content of a file, to any stream. */
    @FunctionalInterface
    public interface Content {
        void write(OutputStream stream) throws IOException;
    }

    /**
     * Writes a file that appears, or replaces an older one, only when it is whole. On a failure an older file stays as it was,
     * and nothing else is left.
     *
     * @throws ImageException if the file cannot be written
     */
    public static void replace(Path file, Content content) {
        try (UnfinishedFile unfinished = new UnfinishedFile(file)) {
            content.write(unfinished.stream());
            unfinished.commit();
        } catch (IOException | PngjException e) {
            throw new ImageException("cannot write " + file + ": " + Reasons.of(e), e);
        }
    }
}
