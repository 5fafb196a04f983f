package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ParallelReadTest {
    private static final int BYTES = 3 * ParallelRead.PIECE_BYTES + 12_345;

    @TempDir
    Path folder;

    private Path file;
    private byte[] contents;

    @BeforeEach
    void write() throws IOException {
        file = folder.resolve("shard.safetensors");
        contents = new byte[BYTES];
        new Random(5).nextBytes(contents);
        Files.write(file, contents);
    }

    private ByteBuffer read(long position, int bytes) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(bytes);
        ParallelRead.fill(file, BYTES, position, buffer);
        return buffer.rewind();
    }

    @ParameterizedTest
    @CsvSource({"0, 0", "7, 1", "0, 4194304", "1, 4194304", "3, 4194305", "0, 12595257", "8388608, 4206649"})
    void givesWhatTheFileHasThere(int position, int bytes) {
        byte[] expected = Arrays.copyOfRange(contents, position, position + bytes);
        assertThat(read(position, bytes)).isEqualTo(ByteBuffer.wrap(expected));
    }

    @Test
    void aFileThatWasCutOffSinceItWasOpenedIsOneSentence() throws IOException {
        Files.write(file, Arrays.copyOf(contents, 1000));
        assertThatThrownBy(() -> read(0, 100))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(file + " has 1000 bytes, expected the " + BYTES + " that it had when it was opened");
    }

    /** As it would be if the file were cut off while it is read: the part that is asked for ends beyond it. */
    @Test
    void aPartThatEndsTooEarlyIsOneSentence() {
        assertThatThrownBy(() -> read(BYTES - 10, 11))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("cannot read " + file + ": it ends too early");
    }

    @Test
    void aFileThatIsGoneIsOneSentence() throws IOException {
        Files.delete(file);
        assertThatThrownBy(() -> read(0, 1))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("cannot read " + file + ": there is no such file or folder");
    }

    /** The next read works: nothing that is shared was closed. */
    @Test
    void anInterruptCancelsAndIsTakenNoteOf() {
        Thread.currentThread().interrupt();
        assertThatThrownBy(() -> read(0, BYTES))
                .isInstanceOf(CancellationException.class)
                .hasMessage("reading " + file + " was cancelled");
        assertThat(Thread.currentThread().isInterrupted()).isFalse();
        assertThat(read(0, BYTES)).isEqualTo(ByteBuffer.wrap(contents));
    }
}
