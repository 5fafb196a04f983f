package org.scaledit.file;

import java.io.IOException;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.nio.file.FileSystemException;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.ThreadLocalRandom;

/**
 * A file that appears, or replaces an older one, only when it is whole: until {@link #commit} it has another name in the same
 * folder. Interrupting the thread that writes does not disturb it. A symbolic link stays one: what it names is written.
 *
 * <pre>{@code
 * try (UnfinishedFile unfinished = new UnfinishedFile(file)) {
 *     unfinished.stream().write(content);
 *     unfinished.commit();
 * }
 * }</pre>
 */
public final class UnfinishedFile implements AutoCloseable {
    /** One after the other, as many as Linux follows. */
    private static final int MOST_LINKS = 40;

    private final Path target;
    private final Path unfinished;
    private final OutputStream stream;
    private boolean committed;

    /** @throws IOException if it cannot be written there; {@link Reasons} says why */
    public UnfinishedFile(Path file) throws IOException {
        // In the same folder, so that the renaming at the end moves no data.
        this(
                file,
                target(file)
                        .resolveSibling(".scaledit-"
                                + Long.toHexString(ThreadLocalRandom.current().nextLong())));
    }

    /** @param unfinished its name until it is committed */
    public UnfinishedFile(Path file, Path unfinished) throws IOException {
        if (Files.exists(file) && !Files.isRegularFile(file)) {
            throw reason(file, Files.isDirectory(file) ? "it is a folder" : "it is not a regular file");
        }
        this.target = target(file);
        this.unfinished = unfinished;
        Path folder = target.getParent();
        if (folder != null && Files.notExists(folder)) {
            throw reason(
                    file,
                    Files.isSymbolicLink(file)
                            ? "it is a link to " + target + ", whose folder does not exist"
                            : "its folder does not exist");
        }
        this.stream = Files.newOutputStream(unfinished, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
    }

    /** What the file is, or a link that has its name leads to, whether or not it is there. */
    private static Path target(Path file) throws IOException {
        Path target = file.toAbsolutePath();
        for (int links = 0; Files.isSymbolicLink(target); links++) {
            if (links == MOST_LINKS) {
                throw reason(file, "it is a link that leads to no file");
            }
            target = target.resolveSibling(Files.readSymbolicLink(target));
        }
        return target;
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
        // Others than the system's, such as an archive's, have no such file. A channel would be closed by an interrupt.
        if (unfinished.getFileSystem() == FileSystems.getDefault()) {
            try (RandomAccessFile whole = new RandomAccessFile(unfinished.toFile(), "rw")) {
                whole.getFD().sync(); // or a loss of power leaves a file of this name without its content
            }
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
