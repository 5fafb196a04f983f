package org.scaledit.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import org.jspecify.annotations.Nullable;
import org.scaledit.file.Reasons;

/**
 * The folder that a command writes into. If it was made and nothing came into it, it goes again: a command that is refused
 * leaves nothing.
 */
final class OutputFolder implements AutoCloseable {
    private final Deque<Path> made = new ArrayDeque<>(); // the innermost first

    private OutputFolder() {}

    /**
     * Makes the folder and those above it, if they are not there.
     *
     * @param folder null where a command was given none
     */
    static OutputFolder make(@Nullable Path folder) {
        OutputFolder output = new OutputFolder();
        if (folder == null) {
            return output;
        }
        Path there = folder;
        while (there != null && !Files.exists(there)) {
            output.made.addLast(there);
            there = there.getParent();
        }
        if (there != null) {
            Arguments.requireNoFile(there);
        }
        try {
            Files.createDirectories(folder);
            if (!Files.isWritable(folder)) {
                throw new IllegalArgumentException("output folder " + folder + " is not writable");
            }
            return output;
        } catch (IOException e) {
            output.close();
            throw new IllegalArgumentException("output folder " + folder + " cannot be made: " + Reasons.of(e), e);
        }
    }

    @Override
    public void close() {
        try {
            while (!made.isEmpty()) {
                Files.deleteIfExists(made.removeFirst());
            }
        } catch (IOException e) {
            made.clear(); // there is something in it, as there is when a command has done its work
        }
    }
}
