package org.scaledit.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

class TextEncodersTest {
    private static final ModelDirectory TINY = ModelDirectory.open(Golden.tinyFlux());

    @TempDir
    Path folder;

    @Test
    void givesTheReferenceStates() {
        try (TextEncoders encoders = TextEncoders.load(TINY, Placement.FLOAT32_CPU);
                Golden golden = Golden.open("text_encoders/text")) {
            for (int i = 0; i < golden.json().get("prompts").size(); i++) {
                String prompt = golden.json().get("prompts").get(i).textValue();
                int number = i;
                Tensors.run(() -> {
                    Conditioning encoded = encoders.encode(prompt, 512);
                    Tensor states = golden.float32("t5_" + number); // the first tokens alone from prompt 2 on
                    assertThat(encoded.states().shape()).containsExactly(512, 32);
                    float t5 = Golden.maxAbsoluteDifference(encoded.states().narrow(0, 0, states.size(0)), states);
                    float clip = Golden.maxAbsoluteDifference(encoded.pooled(), golden.float32("pooled_" + number));
                    System.out.printf("prompt %d: T5 differs by %.1e, CLIP by %.1e%n", number, t5, clip);
                    assertThat(t5).isLessThanOrEqualTo(5e-4f);
                    assertThat(clip).isLessThanOrEqualTo(2e-5f);
                });
            }
        }
    }

    /** A block's weights at a time, or all of them: the states are the same, of a second text, too. */
    @Test
    void encodesPartByPart() {
        try (TextEncoders whole = TextEncoders.load(TINY, Placement.FLOAT32_CPU);
                TextEncoders inParts = TextEncoders.load(TINY, Placement.FLOAT32_CPU, true)) {
            for (String prompt : new String[] {"a lighthouse at dusk", "a fox"}) {
                Tensors.run(() -> {
                    Conditioning expected = whole.encode(prompt, 64);
                    Conditioning encoded = inParts.encode(prompt, 64);
                    assertThat(encoded.states().equal(expected.states())).isTrue();
                    assertThat(encoded.pooled().equal(expected.pooled())).isTrue();
                });
            }
        }
    }

    @Test
    void aTokenizerSaysHowManyTokensATextMayHave() throws IOException {
        assertThat(TextEncoders.mostTokens(TINY)).isEqualTo(512);
        Files.writeString(folder.resolve("model_index.json"), "{\"_class_name\": \"FluxPipeline\"}");
        Path tokenizer = Files.createDirectories(folder.resolve("tokenizer_2"));
        ModelDirectory model = ModelDirectory.open(folder);
        assertThat(TextEncoders.mostTokens(model)).isEqualTo(Integer.MAX_VALUE);
        Files.writeString(tokenizer.resolve("tokenizer_config.json"), "{\"model_max_length\": 48}");
        assertThat(TextEncoders.mostTokens(model)).isEqualTo(48);
        Files.writeString(tokenizer.resolve("tokenizer_config.json"), "{\"model_max_length\": 1e30}");
        assertThat(TextEncoders.mostTokens(model)).isEqualTo(Integer.MAX_VALUE);
    }

    @Test
    void aTokenizerThatAllowsNoTokensIsNamed() throws IOException {
        copy(Golden.tinyFlux(), folder);
        Path config = folder.resolve("tokenizer_2/tokenizer_config.json");
        Files.writeString(config, "{\"model_max_length\": -3}");
        assertThatThrownBy(() -> TextEncoders.check(ModelDirectory.open(folder)))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(config + " has model_max_length -3.0, expected 1 or more");
    }

    @Test
    void staysCloseInBfloat16() {
        assertNear(Placement.BFLOAT16_CPU, 0.05);
    }

    @Test
    @Tag("gpu")
    void partByPartAGpuHoldsOnePart() {
        CudaAttention.requireGpu();
        long whole = peakBytes(false);
        long inParts = peakBytes(true);
        System.out.printf("text on a GPU: at most %d bytes, part by part %d%n", whole, inParts);
        assertThat(inParts).isLessThan(whole);
    }

    private static long peakBytes(boolean inParts) {
        try (TextEncoders encoders = TextEncoders.load(TINY, Gpu.BFLOAT16, inParts)) {
            Tensors.run(() -> encoders.encode("a fox", 16)); // cuBLAS keeps memory of its own from now on
        }
        try (TextEncoders encoders = TextEncoders.load(TINY, Gpu.BFLOAT16, inParts)) {
            return Gpu.peakBytes(() -> Tensors.run(() -> encoders.encode("a fox", 16)));
        }
    }

    @Test
    @Tag("gpu")
    void aGpuStaysCloseToTheCpu() {
        CudaAttention.requireGpu();
        assertNear(Gpu.FLOAT32, 2e-4);
        assertNear(Gpu.BFLOAT16, 0.05);
    }

    /** To the reference. */
    private static void assertNear(Placement placement, double limit) {
        try (TextEncoders encoders = TextEncoders.load(TINY, placement);
                Golden golden = Golden.open("text_encoders/text")) {
            String prompt = golden.json().get("prompts").get(0).textValue();
            Tensors.run(() -> {
                Conditioning encoded = encoders.encode(prompt, 512);
                assertThat(encoded.states().is_cuda()).isEqualTo(placement.cuda());
                assertThat(encoded.states().scalar_type().intern()).isEqualTo(placement.dtype());
                assertThat(Golden.relativeL2(encoded.states(), golden.float32("t5_0")))
                        .isLessThan(limit);
                assertThat(Golden.relativeL2(encoded.pooled(), golden.float32("pooled_0")))
                        .isLessThan(limit);
            });
        }
    }

    @Test
    void takesAnyPrompt() {
        String longPrompt = "fox ".repeat(25_000);
        try (TextEncoders encoders = TextEncoders.load(TINY, Placement.FLOAT32_CPU)) {
            for (String prompt : new String[] {"", "a\0b", longPrompt}) {
                Tensors.run(() -> {
                    Conditioning encoded = encoders.encode(prompt, 13);
                    assertThat(encoded.states().shape()).containsExactly(13, encoders.jointWidth());
                    assertThat(encoded.pooled().shape()).containsExactly(encoders.pooledWidth());
                    assertThat(encoded.states().isfinite().all().item_bool()).isTrue();
                });
            }
            assertThatThrownBy(() -> encoders.encode("a", 0)).isInstanceOf(IllegalArgumentException.class);
        }
    }

    @Test
    void keepsNothingButItsResult() {
        try (TextEncoders encoders = TextEncoders.load(TINY, Placement.FLOAT32_CPU)) {
            Tensors.run(() -> encoders.encode("the weights are read now", 64));
            long pointers = Pointer.totalCount(); // the garbage collector may lower it at any time
            for (int i = 0; i < 3; i++) {
                Conditioning encoded = encoders.encode("a fox", 64); // no scope: the caller owns it
                assertThat(Pointer.totalCount()).isLessThanOrEqualTo(pointers + 2);
                encoded.close();
                assertThat(Pointer.totalCount()).isLessThanOrEqualTo(pointers);
            }
        }
    }

    /** Computed by hand from the formula of T5's code, 32 buckets up to a distance of 128. */
    @ParameterizedTest
    @CsvSource({
        "0, 0",
        "-1, 1",
        "-7, 7",
        "-8, 8",
        "-11, 8",
        "-12, 9",
        "-15, 9",
        "-16, 10",
        "-31, 11",
        "-32, 12",
        "-63, 13",
        "-64, 14",
        "-90, 14",
        "-91, 15",
        "-128, 15",
        "-511, 15",
        "1, 17",
        "8, 24",
        "16, 26",
        "64, 30",
        "511, 31"
    })
    void distancesHaveTheBucketsOfT5(int distance, int bucket) {
        assertThat(new RelativePositions(32, 128).bucket(distance)).isEqualTo(bucket);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "text_encoder   | \"quick_gelu\"          | \"gelu\"   | has hidden_act gelu, expected quick_gelu",
                "text_encoder   | \"hidden_size\": 32     | \"hidden_size\": 30 | has hidden_size 30, expected a"
                        + " multiple of num_attention_heads 4",
                "text_encoder   | \"vocab_size\": 49408   | \"vocab_size\": 49000 | tensor"
                        + " text_model.embeddings.token_embedding.weight",
                "text_encoder   | \"layer_norm_eps\"      | \"eps\"    | has no field layer_norm_eps",
                "text_encoder_2 | \"gated-gelu\"          | \"relu\"   | has feed_forward_proj relu, expected"
                        + " gated-gelu",
                "text_encoder_2 | \"num_layers\": 2       | \"num_layers\": 1 | tensor encoder.block.1.",
                "text_encoder_2 | \"num_layers\": 2       | \"num_layers\": 3 | tensor encoder.block.2.",
                "text_encoder_2 | \"d_kv\": 8             | \"d_kv\": \"8\" | has d_kv \"8\", expected a non-negative"
                        + " integer",
                "text_encoder   | \"num_hidden_layers\": 2 | \"num_hidden_layers\": 99999999 | has num_hidden_layers 99999999,"
                        + " expected an integer from 1 to 1000",
                "text_encoder   | \"intermediate_size\": 128 | \"intermediate_size\": 65537 | has intermediate_size 65537,"
                        + " expected an integer from 1 to 65536",
                "text_encoder_2 | \"num_layers\": 2       | \"num_layers\": 99999999 | has num_layers 99999999, expected an"
                        + " integer from 1 to 1000",
                "text_encoder_2 | \"num_heads\": 4        | \"num_heads\": 257 | has num_heads 257, expected an integer from 1"
                        + " to 256",
                "text_encoder_2 | \"d_kv\": 8             | \"d_kv\": 65537 | has d_kv 65537, expected an integer from 1 to"
                        + " 65536",
                "text_encoder_2 | \"d_ff\": 64            | \"d_ff\": 65 | has shape [64, 32], expected [65, 32]",
            })
    void namesWhatIsWrongInAConfiguration(String part, String from, String to, String reason) throws IOException {
        copy(Golden.tinyFlux(), folder);
        Path config = folder.resolve(part).resolve("config.json");
        String text = Files.readString(config);
        assertThat(text).contains(from);
        Files.writeString(config, text.replace(from, to));
        assertThatThrownBy(() -> TextEncoders.load(ModelDirectory.open(folder), Placement.FLOAT32_CPU))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(folder.resolve(part).toString())
                .hasMessageContaining(reason);
    }

    @Test
    void namesATokenThatTheEncoderDoesNotHave() throws IOException {
        copy(Golden.tinyFlux(), folder);
        Path vocabulary = folder.resolve("tokenizer/vocab.json");
        Files.writeString(
                vocabulary, Files.readString(vocabulary).replace("endoftext|>\":49407", "endoftext|>\":60000"));
        try (TextEncoders encoders = TextEncoders.load(ModelDirectory.open(folder), Placement.FLOAT32_CPU)) {
            assertThatThrownBy(() -> Tensors.run(() -> encoders.encode("a fox", 16)))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("gives token 60000")
                    .hasMessageContaining("token_embedding.weight in " + folder.resolve("text_encoder"));
        }
    }

    /** The parts that have to do with text. */
    private static void copy(Path from, Path to) throws IOException {
        Files.copy(from.resolve("model_index.json"), to.resolve("model_index.json"));
        for (String part : new String[] {"tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"}) {
            Files.createDirectory(to.resolve(part));
            try (var files = Files.list(from.resolve(part))) {
                for (Path file : files.toList()) {
                    Files.copy(file, to.resolve(part).resolve(file.getFileName()));
                }
            }
        }
    }
}
