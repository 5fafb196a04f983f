package org.scaledit.text;

import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAPackage;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideOutsideOfPackage;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.simpleName;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.tngtech.archunit.core.importer.ClassFileImporter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Function;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class TokenizerTest {
    private static final Path CLIP = Golden.tinyFlux().resolve("tokenizer");
    private static final Path T5 = Golden.tinyFlux().resolve("tokenizer_2");

    @TempDir
    Path folder;

    @Test
    void clipGivesTheReferenceIds() {
        try (ClipTokenizer tokenizer = ClipTokenizer.load(CLIP)) {
            assertThatIdsEqual("clip_ids", text -> tokenizer.ids(text, 77));
        }
    }

    @Test
    void t5GivesTheReferenceIds() {
        try (T5Tokenizer tokenizer = T5Tokenizer.load(T5)) {
            assertThatIdsEqual("t5_ids", text -> tokenizer.ids(text, 512));
            assertThatIdsEqual("t5_ids_32", text -> tokenizer.ids(text, 32));
        }
    }

    @Test
    void t5WithAPrecompiledNormalizerGivesTheReferenceIds() {
        try (T5Tokenizer tokenizer = T5Tokenizer.load(Golden.path("golden/tokenizers/t5_precompiled"))) {
            assertThatIdsEqual("t5_precompiled_ids", text -> tokenizer.ids(text, 128));
        }
    }

    private static void assertThatIdsEqual(String name, Function<String, long[]> tokenizer) {
        try (Golden golden = Golden.open("tokenizers/ids")) {
            List<String> texts = new ArrayList<>();
            golden.json().get("texts").forEach(text -> texts.add(text.textValue()));
            assertThat(texts).hasSize(44);
            long[] expected = Tensors.compute(() -> Tensors.longs(golden.tensor(name)));
            int length = expected.length / texts.size();
            for (int i = 0; i < texts.size(); i++) {
                long[] row = Arrays.copyOfRange(expected, i * length, (i + 1) * length);
                assertThat(tokenizer.apply(texts.get(i)))
                        .as("%s of text %d", name, i)
                        .containsExactly(row);
            }
        }
    }

    @Test
    void cutsAPromptOf100000Characters() {
        String words = "a fox in snow ".repeat(7143).substring(0, 100_000);
        String oneWord = "fox".repeat(33_334).substring(0, 100_000);
        try (ClipTokenizer clip = ClipTokenizer.load(CLIP);
                T5Tokenizer t5 = T5Tokenizer.load(T5)) {
            for (String prompt : List.of(words, oneWord)) {
                long[] clipIds = clip.ids(prompt, 77);
                assertThat(clipIds).hasSize(77).startsWith(49406).endsWith(49407);
                assertThat(clipIds[75]).isNotEqualTo(49407);
                assertThat(t5.ids(prompt, 512)).hasSize(512).endsWith(1).doesNotContain(0);
            }
            // What lies beyond the cut changes nothing.
            assertThat(clip.ids(words, 77)).containsExactly(clip.ids(words.substring(0, 2_000), 77));
            assertThat(t5.ids(words, 512)).containsExactly(t5.ids(words.substring(0, 5_000), 512));
        }
    }

    @Test
    void takesAnyCharacter() {
        try (ClipTokenizer clip = ClipTokenizer.load(CLIP);
                T5Tokenizer t5 = T5Tokenizer.load(T5)) {
            assertThat(clip.ids("a\0b", 77)).isNotEqualTo(clip.ids("ab", 77)).isNotEqualTo(clip.ids("a", 77));
            assertThat(clip.ids("a \ud83d b", 77)).containsExactly(clip.ids("a ? b", 77));
            assertThat(t5.ids("a \udc15 b", 32)).containsExactly(t5.ids("a ? b", 32));
            assertThat(t5.ids("anything", 1)).containsExactly(1);
        }
    }

    @Test
    void namesWhatIsMissingOrDamaged() throws IOException {
        refusesT5("cannot read " + folder.resolve("tokenizer.json")
                + ", which describes the tokenizer: there is no such file or folder");
        Files.writeString(folder.resolve("tokenizer.json"), "{\"model\": 3}");
        refusesT5(folder.resolve("tokenizer.json") + " does not describe a tokenizer");
        Files.writeString(folder.resolve("tokenizer.json"), "[".repeat(1_000_000));
        refusesT5(folder.resolve("tokenizer.json") + " does not describe a tokenizer");

        refusesClip(folder.resolve("vocab.json") + " does not exist");
        Files.writeString(folder.resolve("vocab.json"), "{\"a\": 0}");
        refusesClip(folder.resolve("vocab.json") + " has no field <|startoftext|>");
        Files.copy(CLIP.resolve("vocab.json"), folder.resolve("vocab.json"), StandardCopyOption.REPLACE_EXISTING);
        refusesClip("cannot read " + folder.resolve("merges.txt")
                + ", a part of the tokenizer: there is no such file or folder");
        Files.writeString(folder.resolve("merges.txt"), "#version: 0.2\nqq \"zz\n");
        refusesClip(folder + " does not describe a tokenizer");
    }

    /** The library's memory is not Java's: nothing else would free it. */
    @Test
    void aTokenizerWithoutItsPaddingIsClosed() throws IOException {
        String json = Files.readString(T5.resolve("tokenizer.json"));
        Tokenizer clip = Tokenizer.of(json, "a T5");
        assertThatThrownBy(() -> new ClipTokenizer(clip))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("a T5 has no token <|endoftext|>");
        assertThatThrownBy(() -> clip.ids("a", 8, 0)).hasMessage("the tokenizer of a T5 is closed");
        Tokenizer t5 = Tokenizer.of(json.replace("<pad>", "<filler>"), "another T5");
        assertThatThrownBy(() -> new T5Tokenizer(t5))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("another T5 has no token <pad>");
        assertThatThrownBy(() -> t5.ids("a", 8, 0)).hasMessage("the tokenizer of another T5 is closed");
    }

    private void refusesT5(String reason) {
        assertThatThrownBy(() -> T5Tokenizer.load(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(reason);
    }

    private void refusesClip(String reason) {
        assertThatThrownBy(() -> ClipTokenizer.load(folder))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(reason);
    }

    /** DJL's own classes report home and download libraries: its binding of the library is all that may be used. */
    @Test
    void reachesForNoNetwork() {
        noClasses()
                .should()
                .dependOnClassesThat(resideInAPackage("ai.djl..")
                        .and(resideOutsideOfPackage("ai.djl.huggingface.tokenizers.jni"))
                        .or(simpleName("LibUtils")))
                .check(new ClassFileImporter().importPackages("org.scaledit.text"));
    }

    @Test
    void cannotBeUsedAfterItIsClosed() {
        T5Tokenizer tokenizer = T5Tokenizer.load(T5);
        tokenizer.close();
        tokenizer.close();
        assertThatThrownBy(() -> tokenizer.ids("a", 8)).isInstanceOf(IllegalStateException.class);
    }
}
