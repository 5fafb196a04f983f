package org.scaledit.text;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Tokenizers of a small vocabulary are read as those of FLUX.1 are. */
class TokenizerFilesTest {
    private static final List<String> CAPTIONS = List.of(
            "a lion and two lionesses, 3D style",
            "oil on a lion",
            "an onion in the snow",
            "two lions in front of a brick wall, cartoon style",
            "a lion");

    @TempDir
    Path folder;

    private TokenizerFiles clip = TokenizerFiles.clip(CAPTIONS, 20);
    private TokenizerFiles t5 = TokenizerFiles.t5(CAPTIONS, 20);

    @BeforeEach
    void write() throws IOException {
        for (TokenizerFiles files : List.of(clip, t5)) {
            Path part = Files.createDirectories(folder.resolve(files == clip ? "tokenizer" : "tokenizer_2"));
            for (Map.Entry<String, String> file : files.contents().entrySet()) {
                Files.writeString(part.resolve(file.getKey()), file.getValue());
            }
        }
    }

    @Test
    void clipHasOneTokenForEachWord() {
        try (ClipTokenizer tokenizer = ClipTokenizer.load(folder.resolve("tokenizer"))) {
            long end = clip.tokens() - 1;
            for (String word :
                    String.join(" ", CAPTIONS).replaceAll("[,\\d]", " ").split("\\s+")) {
                long[] ids = tokenizer.ids(word, 5);
                assertThat(ids[0]).as(word).isEqualTo(end - 1);
                assertThat(ids[1]).as(word).isLessThan(end - 1);
                assertThat(ids[2]).as(word).isEqualTo(end);
                assertThat(ids[4]).as(word).isEqualTo(end);
            }
            // What was never seen is spelt, and tells itself from others; nothing is unknown.
            long[] unseen = tokenizer.ids("é zebra 7", 20);
            assertThat(unseen).isNotEqualTo(tokenizer.ids("è zebra 7", 20));
            assertThat(Arrays.stream(unseen).filter(id -> id == end).count()).isBetween(5L, 15L);
        }
    }

    @Test
    void t5HasOneTokenForEachWord() {
        try (T5Tokenizer tokenizer = T5Tokenizer.load(folder.resolve("tokenizer_2"))) {
            assertThat(tokens(tokenizer, "a lion")).isEqualTo(3); // and the end
            assertThat(tokens(tokenizer, "A Lion")).isEqualTo(3);
            assertThat(tokens(tokenizer, "two lionesses, brick wall")).isEqualTo(6);
            assertThat(tokenizer.ids("a lion", 6)).endsWith(1, 0, 0, 0);
            assertThat(tokens(tokenizer, "zebra")).isGreaterThan(3);
            assertThat(LongStream.of(tokenizer.ids("zebra 7", 12)).boxed().toList())
                    .doesNotContain(2L) // is unknown
                    .allMatch(id -> id < t5.tokens());
            assertThat(tokenizer.ids("a lion", 6)).isNotEqualTo(tokenizer.ids("a lions", 6));
        }
    }

    private static long tokens(T5Tokenizer tokenizer, String text) {
        return LongStream.of(tokenizer.ids(text, 20)).filter(id -> id != 0).count();
    }
}
