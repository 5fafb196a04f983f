package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Which pictures and captions a folder has; that a picture can be read is found out later. */
class ExampleTest {
    @TempDir
    Path folder;

    private void write(String name, String content) throws IOException {
        Files.createDirectories(folder.resolve(name).getParent());
        Files.writeString(folder.resolve(name), content);
    }

    @Test
    void captionsStandBesideTheirPictures() throws IOException {
        write("b.png", "");
        write("b.txt", "  a \u732b\n");
        write("a.JPEG", "");
        write("a.txt", "two\nlines");
        write(".hidden.png", "");
        write("notes.md", "");
        assertThat(Example.of(folder))
                .containsExactly(
                        new Example("a.JPEG", folder.resolve("a.JPEG"), "two\nlines"),
                        new Example("b.png", folder.resolve("b.png"), "a \u732b"));
    }

    @Test
    void captionsStandInMetadataAsHuggingFaceHasThem() throws IOException {
        write("b.png", "");
        write("deeper/a.png", "");
        write(
                "metadata.jsonl",
                "{\"file_name\": \"deeper/a.png\", \"text\": \"first\", \"more\": 1}\n\n"
                        + "{\"file_name\": \"b.png\", \"text\": \"second\"}\n");
        assertThat(Example.of(folder))
                .containsExactly(
                        new Example("b.png", folder.resolve("b.png"), "second"),
                        new Example("deeper/a.png", folder.resolve("deeper/a.png"), "first"));
    }

    /** Which says so by its description: elsewhere a picture that is not there has been lost. */
    @Test
    void aPaintedSetMayBePartlyMade() throws IOException {
        write("000001.png", "");
        write(
                "metadata.jsonl",
                "{\"file_name\":\"000000.png\",\"text\":\"a\"}\n{\"file_name\":\"000001.png\",\"text\":\"b\"}\n");
        assertRefused("picture DATA/000000.png does not exist, which is in metadata.jsonl, line 1");
        write("dataset.json", "{}");
        assertThat(Example.of(folder)).containsExactly(new Example("000001.png", folder.resolve("000001.png"), "b"));
        write("000002.png", "");
        assertRefused("picture DATA/000002.png has no caption, expected a line for it in metadata.jsonl");
    }

    private void assertRefused(String sentence) {
        assertThatThrownBy(() -> Example.of(folder))
                .isInstanceOf(TrainingException.class)
                .hasMessage(sentence.replace("DATA", folder.toString()));
    }

    @Test
    void aPictureWithoutCaptionIsNamed() throws IOException {
        write("a.png", "");
        write("a.txt", "a");
        write("b.webp", ""); // that it cannot be read would be said later
        assertRefused("picture DATA/b.webp has no caption, expected one in b.txt, or a metadata.jsonl");
        write("b.txt", " \n");
        assertRefused("the caption of picture DATA/b.webp in DATA/b.txt is empty");
        write("metadata.jsonl", "{\"file_name\": \"a.png\", \"text\": \"a\"}");
        assertRefused("picture DATA/b.webp has no caption, expected a line for it in metadata.jsonl");
    }

    @Test
    void anEmptyFolderIsNamed() throws IOException {
        assertRefused("data DATA has no pictures, expected PNG or JPEG files");
        write("metadata.jsonl", "\n");
        assertRefused("data DATA has no pictures, expected PNG or JPEG files");
        Path file = Files.writeString(folder.resolve("file"), "");
        assertThatThrownBy(() -> Example.of(file))
                .hasMessage("data " + file + " is not a folder, expected a folder of pictures");
        Path nowhere = folder.resolve("nowhere");
        assertThatThrownBy(() -> Example.of(nowhere))
                .hasMessage("data " + nowhere + " does not exist, expected a folder of pictures");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "{ | data DATA has no JSON object in metadata.jsonl, line 2",
                "[] | data DATA has no field file_name in metadata.jsonl, line 2, expected file_name and text",
                "{\"file_name\": \"b.png\"} | data DATA has no field text in metadata.jsonl, line 2, expected file_name and text",
                "{\"file_name\": \"b.png\", \"text\": 3} | data DATA has no field text in metadata.jsonl, line 2, expected file_name and text",
                "{\"file_name\": \"c.png\", \"text\": \"c\"} | picture DATA/c.png does not exist, which is in metadata.jsonl, line 2",
                "{\"file_name\": \"b.png\", \"text\": \"\"} | the caption of picture DATA/b.png in metadata.jsonl, line 2 is empty",
                "{\"file_name\": \"a.png\", \"text\": \"a\"} | data DATA has a second caption for a.png in metadata.jsonl, line 2"
            })
    void aLineThatSaysNothingIsNamed(String line, String sentence) throws IOException {
        write("a.png", "");
        write("b.png", "");
        write("metadata.jsonl", "{\"file_name\": \"a.png\", \"text\": \"a\"}\n" + line + "\n");
        assertRefused(sentence);
    }
}
