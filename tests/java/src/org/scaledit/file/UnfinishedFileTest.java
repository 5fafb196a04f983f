package org.scaledit.file;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class UnfinishedFileTest {
    @TempDir
    Path folder;

    private static void write(Path file) throws IOException {
        try (UnfinishedFile unfinished = new UnfinishedFile(file)) {
            unfinished.stream().write("new".getBytes(StandardCharsets.UTF_8));
            unfinished.commit();
        }
    }

    @Test
    void aLinkStaysAndWhatItNamesIsReplaced() throws IOException {
        Path below = Files.createDirectory(folder.resolve("below"));
        Path file = Files.writeString(below.resolve("file"), "old");
        Path relative = Files.createSymbolicLink(folder.resolve("relative"), Path.of("below/file"));
        Path link = Files.createSymbolicLink(folder.resolve("link"), relative);
        try (UnfinishedFile unfinished = new UnfinishedFile(link)) {
            unfinished.stream().write("lost".getBytes(StandardCharsets.UTF_8));
            assertThat(below.toFile().list()).hasSize(2); // beside what it will replace
        }
        assertThat(file).hasContent("old");
        write(link);
        assertThat(file).hasContent("new").isRegularFile();
        assertThat(link).isSymbolicLink();
        assertThat(relative).isSymbolicLink();
        assertThat(below.toFile().list()).containsExactly("file");
    }

    @Test
    void aLinkToNothingIsWrittenThrough() throws IOException {
        Path link = Files.createSymbolicLink(folder.resolve("link"), Path.of("file"));
        write(link);
        assertThat(link).isSymbolicLink();
        assertThat(folder.resolve("file")).hasContent("new");
    }

    @Test
    void aLinkThatLeadsNowhereIsNamedAsItWasGiven() throws IOException {
        Path link = Files.createSymbolicLink(folder.resolve("link"), Path.of("none/file"));
        assertThatThrownBy(() -> write(link))
                .hasMessage(
                        link + ": it is a link to " + folder.resolve("none/file") + ", whose folder does not exist");
        Path circle = Files.createSymbolicLink(folder.resolve("circle"), Path.of("circle"));
        assertThatThrownBy(() -> write(circle)).hasMessage(circle + ": it is a link that leads to no file");
        Path toFolder = Files.createSymbolicLink(folder.resolve("folder"), folder);
        assertThatThrownBy(() -> write(toFolder)).hasMessage(toFolder + ": it is a folder");
    }

    @Test
    void isWrittenIntoAnArchiveToo() throws IOException {
        Path archive = folder.resolve("archive.zip");
        for (int time = 0; time < 2; time++) { // the second one replaces
            try (FileSystem zip = FileSystems.newFileSystem(archive, Map.of("create", "true"))) {
                write(zip.getPath("/file"));
            }
        }
        try (FileSystem zip = FileSystems.newFileSystem(archive)) {
            assertThat(Files.readString(zip.getPath("/file"))).isEqualTo("new");
            try (var entries = Files.list(zip.getPath("/"))) {
                assertThat(entries).hasSize(1);
            }
        }
    }
}
