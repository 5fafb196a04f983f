package org.scaledit.file;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.FileVisitOption;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Predicate;
import java.util.stream.Stream;

/**
 * A folder that appears only when it is whole: until {@link #commit} it has another name beside its own.
 *
 * <pre>{@code
 * try (UnfinishedFolder unfinished = new UnfinishedFolder(folder)) {
 *     unfinished.copy(other, file -> true);
 *     unfinished.commit();
 * }
 * }</pre>
 */
public final class UnfinishedFolder implements AutoCloseable {
    private final Path target;
    private final Path unfinished;
    private boolean committed;

    /** @throws IOException if there is something of this name, or it cannot be made there; {@link Reasons} says why */
    public UnfinishedFolder(Path folder) throws IOException {
        this.target = folder.toAbsolutePath().normalize();
        if (Files.exists(target)) {
            throw exists();
        }
        Path parent = target.getParent();
        if (parent == null || Files.notExists(parent)) {
            throw new FileSystemException(folder.toString(), null, "the folder above it does not exist");
        }
        // Beside its own name, so that the renaming at the end moves no data; for others to read as any new folder is.
        this.unfinished = Files.createDirectory(parent.resolve(
                ".scaledit-" + Long.toHexString(ThreadLocalRandom.current().nextLong())));
    }

    private FileAlreadyExistsException exists() {
        return new FileAlreadyExistsException(target.toString(), null, "it exists already");
    }

    /** Where it is until it is committed. */
    public Path path() {
        return unfinished;
    }

    /**
     * Copies files into it, with the folders that they are in.
     *
     * @param from a folder of any file system
     * @param wanted which of its files, hidden ones apart
     */
    public void copy(Path from, Predicate<Path> wanted) throws IOException {
        for (Path file : files(from)) {
            if (wanted.test(file)) {
                Path copy = unfinished.resolve(from.relativize(file).toString());
                Files.createDirectories(copy.getParent());
                try (UnfinishedFile whole = new UnfinishedFile(copy)) {
                    Files.copy(file, whole.stream());
                    whole.commit();
                }
            }
        }
    }

    /**
     * The files in a folder and in those below it, in the order of their names; hidden ones are left out. A link to a folder is
     * that folder: a model's parts may lie elsewhere.
     */
    public static List<Path> files(Path folder) throws IOException {
        try (Stream<Path> entries = Files.walk(folder, FileVisitOption.FOLLOW_LINKS)) {
            return entries.filter(Files::isRegularFile)
                    .filter(file -> Stream.iterate(folder.relativize(file), part -> part != null, Path::getParent)
                            .noneMatch(part -> part.getFileName().toString().startsWith(".")))
                    .sorted()
                    .toList();
        } catch (UncheckedIOException e) { // a folder below it cannot be listed
            throw e.getCause();
        }
    }

    /**
     * Gives the folder its name.
     *
     * @throws FileAlreadyExistsException if by now there is something of this name, which stays as it is
     */
    public void commit() throws IOException {
        try {
            Files.move(unfinished, target, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException e) {
            if (Files.exists(target)) {
                throw (IOException) exists().initCause(e);
            }
            throw e;
        }
        committed = true;
    }

    /** Removes what was written, unless {@link #commit} has returned. */
    @Override
    public void close() throws IOException {
        if (committed) {
            return;
        }
        try (Stream<Path> entries = Files.walk(unfinished)) {
            for (Path entry : entries.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(entry);
            }
        }
    }
}
