package org.scaledit.file;

import java.io.IOException;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.ThreadLocalRandom;

/**
 * A file that appears, or replaces an older one, only when it is whole: until {@link #commit} it has another name in the same
 * folder. Interrupting the thread that writes does not disturb it.
 *
 * <pre>{@code
 * try (UnfinishedFile unfinished = new UnfinishedFile(file)) {
 *     unfinished.stream().write(content);
 *     unfinished.commit();
 * }
 * }</pre>
 */
public final class UnfinishedFile implements AutoCloseable {
    private final Path target;
    private final Path unfinished;
    private final OutputStream stream;
    private boolean committed;

    /** @throws IOException if it cannot be written there; {@link Reasons} says why */
    public UnfinishedFile(Path file) throws IOException {
        // In the same folder, so that the renaming at the end moves no data.
        this(
                file,
                file.toAbsolutePath()
                        .resolveSibling(".scaledit-"
                                + Long.toHexString(ThreadLocalRandom.current().nextLong())));
    }

    /** @param unfinished its name until it is committed */
    public UnfinishedFile(Path file, Path unfinished) throws IOException {
        this.target = file.toAbsolutePath();
        this.unfinished = unfinished;
        if (Files.exists(target) && !Files.isRegularFile(target)) {
            throw reason(file, Files.isDirectory(target) ? "it is a folder" : "it is not a regular file");
        }
        Path folder = target.getParent();
        if (folder != null && Files.notExists(folder)) {
            throw reason(file, "its folder does not exist");
        }
        this.stream = Files.newOutputStream(unfinished, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
    }

    private static FileSystemException reason(Path file, String reason) {
        return new FileSystemException(file.toString(), null, reason);
    }

    /** Takes the content. Not buffered. */
    public OutputStream stream() {
        return stream;
    }

    /** Gives the file its name, in the place of one that was there before. */
    public void commit() throws IOException {
        stream.close();
        try (RandomAccessFile whole = new RandomAccessFile(unfinished.toFile(), "rw")) {
            whole.getFD().sync(); // or a loss of power leaves a file of this name without its content
        }
        Files.move(unfinished, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        committed = true;
    }

    /** Removes what was written, unless {@link #commit} has returned. */
    @Override
    public void close() throws IOException {
        if (!committed) {
            try {
                stream.close();
            } finally {
                Files.deleteIfExists(unfinished);
            }
        }
    }
}
