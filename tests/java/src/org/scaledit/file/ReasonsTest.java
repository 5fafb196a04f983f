package org.scaledit.file;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.MalformedInputException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.FileSystemLoopException;
import java.nio.file.NoSuchFileException;
import org.junit.jupiter.api.Test;

class ReasonsTest {
    /** The message of most of these is no more than the path. */
    @Test
    void sayWhatHasHappenedToAFile() {
        assertThat(Reasons.of(new AccessDeniedException("a"))).isEqualTo("permission denied");
        assertThat(Reasons.of(new NoSuchFileException("a"))).isEqualTo("there is no such file or folder");
        assertThat(Reasons.of(new FileAlreadyExistsException("a"))).isEqualTo("there is a file of that name");
        assertThat(Reasons.of(new MalformedInputException(1))).isEqualTo("it is not UTF-8");
        assertThat(Reasons.of(new FileSystemLoopException("a/b"))).isEqualTo("a/b is a link to a folder that it is in");
        assertThat(Reasons.of(new FileSystemException("a", null, "No space left on device")))
                .isEqualTo("No space left on device");
        assertThat(Reasons.of(new IOException("it ended"))).isEqualTo("it ended");
        assertThat(Reasons.of(new IOException())).isEqualTo("IOException");
    }

    @Test
    void lookBehindWhatWrapsIt() {
        assertThat(Reasons.of(new UncheckedIOException(new AccessDeniedException("a"))))
                .isEqualTo("permission denied");
        assertThat(Reasons.of(new IllegalStateException("no file"))).isEqualTo("no file");
    }
}
