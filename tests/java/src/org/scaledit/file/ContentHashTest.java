package org.scaledit.file;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ContentHashTest {
    @TempDir
    Path folder;

    private static String of(String... texts) {
        ContentHash hash = new ContentHash();
        for (String text : texts) {
            hash.text(text);
        }
        return hash.hex();
    }

    @Test
    void itIsThatOfLengthsAndContents() {
        // printf '\0\0\0\0\0\0\0\002ab' | sha256sum
        assertThat(of("ab")).isEqualTo("9caccc24b5d7e06c21c0277b6530d66664273e11f326515c58eaa3691afccfff");
        assertThat(of("ab", "c")).isNotEqualTo(of("a", "bc")).isEqualTo(of("ab", "c"));
    }

    @Test
    void aFileIsItsContentAlone() throws IOException {
        Path file = Files.writeString(folder.resolve("a"), "ab");
        assertThat(new ContentHash().file(file).hex()).isEqualTo(of("ab"));
    }

    private String ofModel() throws IOException {
        return new ContentHash().model(folder).hex();
    }

    @Test
    void aModelIsItsFilesNamesSizesAndContents() throws IOException {
        Files.writeString(folder.resolve("config.json"), "{}");
        String first = ofModel();
        assertThat(first).isEqualTo(of("config.json", "{}"));
        Files.createDirectory(folder.resolve("below"));
        assertThat(ofModel()).isEqualTo(first);
        Files.writeString(folder.resolve(".scaledit-12ab"), "{"); // of a process that was killed
        assertThat(ofModel()).isEqualTo(first);
        Files.move(folder.resolve("config.json"), folder.resolve("other.json"));
        assertThat(ofModel()).isNotEqualTo(first);
    }

    /** Of a large file the beginning, the end, and what is between them in places. */
    @Test
    void ofALargeFileAPartIsRead() throws IOException {
        Path file = folder.resolve("weights");
        long size = 40 << 20;
        try (RandomAccessFile weights = new RandomAccessFile(file.toFile(), "rw")) {
            weights.setLength(size); // a hole: it takes no room
            String first = ofModel();
            for (long place : new long[] {0, (1 << 20) - 1, size - 1, (size - (1 << 20)) * 7 / 15}) {
                weights.seek(place);
                weights.write(1);
                assertThat(ofModel()).as("byte %d", place).isNotEqualTo(first);
                weights.seek(place);
                weights.write(0);
                assertThat(ofModel()).isEqualTo(first);
            }
            weights.setLength(size + 1);
            assertThat(ofModel()).isNotEqualTo(first);
        }
    }
}
