package org.scaledit.checkpoint;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.stream.IntStream;
import org.scaledit.file.Interrupts;
import org.scaledit.file.Reasons;

/**
 * Reads a part of a file in pieces, several at a time: one thread alone asks less of a disk, and copies less out of the
 * system's cache, than a GPU takes. A file that is cut off meanwhile is an exception, where a map would end the process.
 */
final class ParallelRead {
    static final int PIECE_BYTES = 4 << 20;

    private ParallelRead() {}

    /**
     * Fills a buffer.
     *
     * @param fileBytes the size that the file had when its header was read
     * @param position of the first byte in the file
     * @throws CheckpointException if the file has another size by now, or cannot be read
     * @throws CancellationException if the thread is interrupted, which takes note of it
     */
    static void fill(Path file, long fileBytes, long position, ByteBuffer buffer) {
        int bytes = buffer.remaining();
        int pieces = (bytes + PIECE_BYTES - 1) / PIECE_BYTES;
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            requireSize(file, fileBytes, channel);
            Optional<IOException> failure = IntStream.range(0, pieces)
                    .parallel()
                    .mapToObj(piece -> {
                        int first = piece * PIECE_BYTES;
                        return read(
                                channel, position + first, buffer.slice(first, Math.min(PIECE_BYTES, bytes - first)));
                    })
                    .flatMap(Optional::stream)
                    .reduce((one, other) -> one);
            if (failure.isPresent()) {
                requireSize(file, fileBytes, channel);
                throw failure.get();
            }
        } catch (IOException e) {
            Interrupts.throwIfInterrupted("reading " + file, e);
            throw new CheckpointException("cannot read " + file + ": " + Reasons.of(e), e);
        }
    }

    private static void requireSize(Path file, long expected, FileChannel channel) throws IOException {
        if (channel.size() != expected) {
            throw new CheckpointException(file + " has " + channel.size() + " bytes, expected the " + expected
                    + " that it had when it was opened");
        }
    }

    /** Fills the buffer, or says why not. */
    private static Optional<IOException> read(FileChannel channel, long position, ByteBuffer buffer) {
        try {
            while (buffer.hasRemaining()) {
                if (channel.read(buffer, position + buffer.position()) < 0) {
                    return Optional.of(new IOException("it ends too early"));
                }
            }
            return Optional.empty();
        } catch (IOException e) {
            return Optional.of(e);
        }
    }
}
