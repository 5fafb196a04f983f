package org.scaledit.file;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class UnfinishedFolderTest {
    @TempDir
    Path folder;

    private Path from;
    private Path target;

    @BeforeEach
    void writeFiles() throws IOException {
        from = Files.createDirectories(folder.resolve("from"));
        target = folder.resolve("target");
        Files.createDirectories(from.resolve("part/.git"));
        Files.writeString(from.resolve("a.json"), "a");
        Files.writeString(from.resolve("part/b.txt"), "b");
        Files.writeString(from.resolve("part/.hidden"), "c");
        Files.writeString(from.resolve("part/.git/d"), "d");
    }

    private List<String> names() throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.map(entry -> entry.getFileName().toString()).sorted().toList();
        }
    }

    @Test
    void appearsWholeAndWithoutWhatIsHidden() throws IOException {
        try (UnfinishedFolder unfinished = new UnfinishedFolder(target)) {
            unfinished.copy(from, file -> true);
            assertThat(target).doesNotExist();
            unfinished.commit();
        }
        assertThat(UnfinishedFolder.files(target))
                .containsExactly(target.resolve("a.json"), target.resolve("part/b.txt"));
        assertThat(target.resolve("part/b.txt")).hasContent("b");
        assertThat(target.resolve("part/.git")).doesNotExist();
        assertThat(names()).containsExactly("from", "target");
        assertThat(Files.getPosixFilePermissions(target)).isEqualTo(Files.getPosixFilePermissions(from));
    }

    @Test
    void aLinkToAFolderIsThatFolder() throws IOException {
        Files.createSymbolicLink(from.resolve("linked"), from.resolve("part"));
        Files.createSymbolicLink(from.resolve("nowhere"), folder.resolve("none"));
        try (UnfinishedFolder unfinished = new UnfinishedFolder(target)) {
            unfinished.copy(from, file -> true);
            unfinished.commit();
        }
        assertThat(UnfinishedFolder.files(target))
                .containsExactly(
                        target.resolve("a.json"), target.resolve("linked/b.txt"), target.resolve("part/b.txt"));
        assertThat(Files.isSymbolicLink(target.resolve("linked"))).isFalse();
        Path back = Files.createSymbolicLink(from.resolve("part/back"), from);
        assertThatThrownBy(() -> UnfinishedFolder.files(from))
                .isInstanceOf(IOException.class)
                .satisfies(e -> assertThat(Reasons.of(e)).isEqualTo(back + " is a link to a folder that it is in"));
    }

    @Test
    void leavesNothingWithoutACommit() throws IOException {
        try (UnfinishedFolder unfinished = new UnfinishedFolder(target)) {
            unfinished.copy(from, file -> file.endsWith("a.json"));
            assertThat(UnfinishedFolder.files(unfinished.path()))
                    .containsExactly(unfinished.path().resolve("a.json"));
        }
        assertThat(names()).containsExactly("from");
    }

    @Test
    void leavesAloneWhatHasTheNameAlready() throws IOException {
        try (UnfinishedFolder late = new UnfinishedFolder(target);
                UnfinishedFolder early = new UnfinishedFolder(target)) {
            late.copy(from, file -> true);
            early.copy(from, file -> file.endsWith("a.json"));
            early.commit();
            assertThatThrownBy(late::commit)
                    .isInstanceOf(FileAlreadyExistsException.class)
                    .satisfies(e -> assertThat(Reasons.of(e)).isEqualTo("it exists already"));
        }
        assertThat(UnfinishedFolder.files(target)).containsExactly(target.resolve("a.json"));
        assertThat(names()).containsExactly("from", "target");
        assertThatThrownBy(() -> new UnfinishedFolder(target))
                .satisfies(e -> assertThat(Reasons.of(e)).isEqualTo("it exists already"));
        assertThatThrownBy(() -> new UnfinishedFolder(folder.resolve("none/target")))
                .satisfies(e -> assertThat(Reasons.of(e)).isEqualTo("the folder above it does not exist"));
    }
}
