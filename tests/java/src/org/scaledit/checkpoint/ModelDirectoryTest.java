package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.testing.Golden;

class ModelDirectoryTest {
    @TempDir
    Path folder;

    @Test
    void opensAModel() {
        ModelDirectory model = ModelDirectory.open(Golden.tinyFlux());
        assertThat(model.part("vae")).isEqualTo(Golden.tinyFlux().resolve("vae"));
        assertThat(model.config("text_encoder_2").integer("d_model")).isEqualTo(32);
    }

    @Test
    void namesWhatIsMissing() throws IOException {
        refuses(() -> ModelDirectory.open(folder.resolve("none")), folder.resolve("none") + " does not exist");
        Path index = folder.resolve("model_index.json");
        refuses(() -> ModelDirectory.open(folder), index + " does not exist");
        Files.createSymbolicLink(index, index);
        refuses(() -> ModelDirectory.open(folder), "cannot read " + index + ": Too many levels of symbolic links");
        Files.delete(index);
        Files.writeString(index, "{\"_class_name\": \"FluxPipeline\"}");
        ModelDirectory model = ModelDirectory.open(folder);
        refuses(() -> model.part("vae"), folder + " has no folder vae");
        Files.createDirectory(folder.resolve("vae"));
        refuses(() -> model.config("vae"), folder.resolve("vae/config.json") + " does not exist");
        refuses(() -> ModelDirectory.open(index), "is not a folder");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{'_class_name': 'StableDiffusionPipeline'} | has _class_name StableDiffusionPipeline, expected"
                        + " FluxPipeline",
                "{'_class_name': ['FluxPipeline']}          | has _class_name [\"FluxPipeline\"], expected a string",
                "{}                                         | has no field _class_name",
                "[]                                         | is not a JSON object",
                "                                           | is not a JSON object",
                "{'a': 1,}                                  | is not valid JSON",
                "{'a': 1} {}                                | is not valid JSON",
                "{'a': 1, 'a': 2}                           | is not valid JSON: Duplicate",
            })
    void namesAnIndexOfAnotherKind(String index, String reason) throws IOException {
        Path file = folder.resolve("model_index.json");
        Files.writeString(file, index == null ? "" : index.replace('\'', '"'));
        refuses(() -> ModelDirectory.open(folder), file + " " + reason);
    }

    @Test
    void boundsWhatItReads() throws IOException {
        Path file = folder.resolve("model_index.json");
        Files.writeString(file, "[".repeat(1_000_000));
        refuses(() -> ModelDirectory.open(folder), "is not valid JSON");
        try (var sparse = new RandomAccessFile(file.toFile(), "rw")) {
            sparse.setLength(1L << 32);
        }
        refuses(() -> ModelDirectory.open(folder), "has 4294967296 bytes, at most 16777216");
    }

    @Test
    void readsFieldsByKind() throws IOException {
        Config config = config(
                "{'count': 3, 'list': [1, 2], 'number': 1e-6, 'flag': true, 'text': 'silu', 'texts': ['a'], 'none':"
                        + " null}");
        assertThat(config.integer("count")).isEqualTo(3);
        assertThat(config.integer("none", 7)).isEqualTo(7);
        assertThat(config.integers("list")).containsExactly(1, 2);
        assertThat(config.integers("other", List.of(16, 56))).containsExactly(16, 56);
        assertThat(config.number("number")).isEqualTo(1e-6);
        assertThat(config.number("count")).isEqualTo(3);
        assertThat(config.number("other", 0.5)).isEqualTo(0.5);
        assertThat(config.flag("flag")).isTrue();
        assertThat(config.flag("none", true)).isTrue();
        assertThat(config.text("text")).isEqualTo("silu");
        assertThat(config.texts("texts")).containsExactly("a");
        config.require("text", "gelu", "silu");
        config.requireMultiple("count", "count");
    }

    @Test
    void namesFileAndField() throws IOException {
        Config config =
                config("{'a': -1, 'b': 1.5, 'c': 3000000000, 'd': 'x', 'e': [1, 'x'], 'f': null, 'zero': 0, 'long': '"
                        + "x".repeat(1000) + "'}");
        String file = config.file().toString();
        refuses(() -> config.integer("a"), file + " has a -1, expected a non-negative integer");
        refuses(() -> config.integer("b"), file + " has b 1.5, expected a non-negative integer");
        refuses(() -> config.integer("c"), file + " has c 3000000000, expected");
        refuses(() -> config.integer("d", 3), file + " has d \"x\", expected");
        refuses(() -> config.integers("e"), file + " has e [1,\"x\"], expected a list of non-negative integers");
        refuses(() -> config.texts("e"), file + " has e [1,\"x\"], expected a list of strings");
        refuses(() -> config.number("d"), file + " has d \"x\", expected a number");
        refuses(() -> config.flag("d"), file + " has d \"x\", expected true or false");
        refuses(() -> config.text("a"), file + " has a -1, expected a string");
        refuses(() -> config.text("f"), file + " has no field f, expected a string");
        refuses(() -> config.require("d", "y", "z"), file + " has d x, expected y or z");
        refuses(() -> config.requireMultiple("c", "zero"), file + " has c");
        assertThatThrownBy(() -> config.flag("long")).message().hasSizeLessThan(file.length() + 120);
    }

    private Config config(String json) throws IOException {
        return Config.read(Files.writeString(folder.resolve("config.json"), json.replace('\'', '"')));
    }

    private static void refuses(ThrowingCallable call, String reason) {
        assertThatThrownBy(call).isInstanceOf(CheckpointException.class).hasMessageContaining(reason);
    }
}
