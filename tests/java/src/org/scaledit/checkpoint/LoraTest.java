package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class LoraTest {
    @TempDir
    Path folder;

    private static Lora golden(String name) {
        return Lora.load(Golden.path("golden/lora_formats/" + name + ".safetensors"));
    }

    private static Lora.Layer layer(Lora lora, String module) {
        return Objects.requireNonNull(lora.layers().get(module), module);
    }

    /** scale · up · down, [out, in]. */
    private static Tensor addition(Lora.Layer layer) {
        return Tensors.scoped(() -> torch.mul(layer.up().matmul(layer.down()), new Scalar(layer.scale())));
    }

    @ParameterizedTest
    @ValueSource(strings = {"peft_alpha_in_metadata", "kohya", "comfy", "bfl_peft"})
    void everySpellingGivesTheSameLayers(String spelling) {
        try (Lora peft = golden("peft");
                Lora other = golden(spelling)) {
            assertThat(other.layers().keySet()).isEqualTo(peft.layers().keySet());
            assertThat(peft.layers()).hasSize(19);
            peft.layers()
                    .forEach((module, layer) -> Tensors.run(() -> {
                        Tensor addition = addition(layer(other, module));
                        assertThat(Golden.maxAbsoluteDifference(addition, addition(layer)))
                                .as(module)
                                .isLessThanOrEqualTo(1e-6f);
                        assertThat(addition.abs().max().item_float()).as(module).isGreaterThan(0.01f);
                    }));
        }
    }

    /** Read from a file that diffusers has written, and written again: the same tensors, and what diffusers asks for of it. */
    @Test
    void isWrittenAsDiffusersWritesIt() {
        Path file = folder.resolve("again.safetensors");
        try (Lora lora = golden("peft_alpha_in_metadata");
                Safetensors theirs =
                        Safetensors.open(Golden.path("golden/lora_formats/peft_alpha_in_metadata.safetensors"))) {
            PeftLora.write(file, new TreeMap<>(lora.layers()), Map.of());
            try (Safetensors ours = Safetensors.open(file)) {
                assertThat(ours.names()).containsExactlyInAnyOrderElementsOf(theirs.names());
                ours.names()
                        .forEach(name -> Tensors.run(
                                () -> assertThat(Golden.maxAbsoluteDifference(ours.tensor(name), theirs.tensor(name)))
                                        .as(name)
                                        .isZero()));
                JsonNode settings = settings(ours);
                JsonNode expected = settings(theirs);
                for (String field : List.of("r", "lora_alpha")) {
                    assertThat(settings.get("transformer." + field).asDouble())
                            .isEqualTo(expected.get("transformer." + field).asDouble());
                }
                assertThat(settings.get("transformer.target_modules"))
                        .isEqualTo(expected.get("transformer.target_modules"));
            }
        }
    }

    private static JsonNode settings(Safetensors file) {
        try {
            return new ObjectMapper()
                    .readTree(Objects.requireNonNull(file.metadata().get("lora_adapter_metadata")));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    @Test
    void freesItsMatrices() {
        golden("kohya").close();
        long pointers = Pointer.totalCount(); // the garbage collector may lower it at any time
        Lora lora = golden("kohya");
        assertThat(Pointer.totalCount()).isLessThanOrEqualTo(pointers + 2 * 19);
        lora.close();
        assertThat(Pointer.totalCount()).isLessThanOrEqualTo(pointers);
    }

    @Test
    void readsTheReleasedTargets() {
        try (Lora lora = Lora.load(Golden.path("golden/lora/wide_lora.safetensors"))) {
            assertThat(lora.layers()).hasSize(25).containsKeys("x_embedder", "transformer_blocks.0.attn.to_out.0");
            assertThat(lora.layers().values()).allSatisfy(layer -> {
                assertThat(layer.scale()).isEqualTo(1);
                assertThat(layer.rank()).isEqualTo(2);
                assertThat(layer.down().scalar_type().intern()).isEqualTo(torch.ScalarType.Float);
            });
        }
    }

    @ParameterizedTest
    @CsvSource({
        "base_model.model.transformer_blocks.3.attn.to_q.lora_A.weight,"
                + " base_model.model.transformer_blocks.3.attn.to_q.lora_B.weight, transformer_blocks.3.attn.to_q",
        "single_transformer_blocks.37.proj_out.lora_A.default.weight,"
                + " single_transformer_blocks.37.proj_out.lora_B.default.weight, single_transformer_blocks.37.proj_out",
        "transformer.time_text_embed.guidance_embedder.linear_2.lora.down.weight,"
                + " transformer.time_text_embed.guidance_embedder.linear_2.lora.up.weight,"
                + " time_text_embed.guidance_embedder.linear_2",
        "diffusion_model.time_in.in_layer.lora_A.weight, diffusion_model.time_in.in_layer.lora_B.weight,"
                + " time_text_embed.timestep_embedder.linear_1",
        "lora_unet_double_blocks_12_txt_mlp_0.lora_down.weight, lora_unet_double_blocks_12_txt_mlp_0.lora_up.weight,"
                + " transformer_blocks.12.ff_context.net.0.proj",
        "double_blocks.18.processor.proj_lora2.down.weight, double_blocks.18.processor.proj_lora2.up.weight,"
                + " transformer_blocks.18.attn.to_add_out",
        "single_blocks.7.processor.proj_lora.down.weight, single_blocks.7.processor.proj_lora.up.weight,"
                + " single_transformer_blocks.7.proj_out",
    })
    void knowsHowOthersSpellIt(String down, String up, String module) {
        Path file = file(Map.of(), down, matrix(2, 6), up, matrix(4, 2));
        try (Lora lora = Lora.load(file)) {
            assertThat(lora.layers()).containsOnlyKeys(module);
        }
    }

    @Test
    void dividesFusedLayersByRows() {
        Tensor up = matrix(14, 2); // queries, keys and values of 3 rows, 5 of the MLP
        Path file = file(
                Map.of(),
                "diffusion_model.single_blocks.4.linear1.lora_A.weight",
                matrix(2, 3),
                "diffusion_model.single_blocks.4.linear1.lora_B.weight",
                up);
        try (Lora lora = Lora.load(file)) {
            String block = "single_transformer_blocks.4.";
            assertThat(lora.layers())
                    .containsOnlyKeys(
                            block + "attn.to_q", block + "attn.to_k", block + "attn.to_v", block + "proj_mlp");
            assertThat(Tensors.floats(layer(lora, block + "attn.to_k").up()))
                    .isEqualTo(Tensors.floats(up.narrow(0, 3, 3)));
            assertThat(Tensors.floats(layer(lora, block + "proj_mlp").up()))
                    .isEqualTo(Tensors.floats(up.narrow(0, 9, 5)));
        }
    }

    @Test
    void turnsShiftAndScaleOfTheFinalLayerAround() {
        Tensor up = matrix(4, 2);
        Path original = file(
                Map.of(),
                "diffusion_model.final_layer.adaLN_modulation.1.lora_A.weight",
                matrix(2, 2),
                "diffusion_model.final_layer.adaLN_modulation.1.lora_B.weight",
                up);
        try (Lora lora = Lora.load(original)) {
            float[] rows = Tensors.floats(up);
            assertThat(Tensors.floats(layer(lora, "norm_out.linear").up()))
                    .containsExactly(rows[4], rows[5], rows[6], rows[7], rows[0], rows[1], rows[2], rows[3]);
        }
    }

    @Test
    void takesAlphaFromTheMetadata() {
        String settings =
                "{'transformer.r': 2, 'transformer.lora_alpha': 6, 'transformer.alpha_pattern': {'attn.to_k': 3}}";
        try (Lora lora = Lora.load(twoLayers(settings))) {
            assertThat(layer(lora, "transformer_blocks.0.attn.to_q").scale()).isEqualTo(3);
            assertThat(layer(lora, "transformer_blocks.0.attn.to_k").scale()).isEqualTo(1.5);
        }
        try (Lora lora = Lora.load(twoLayers("{'transformer.lora_alpha': 6, 'transformer.use_rslora': true}"))) {
            assertThat(layer(lora, "transformer_blocks.0.attn.to_q").scale()).isEqualTo(6 / Math.sqrt(2));
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{'transformer.use_dora': true}                     | DoRA",
                "{'transformer.lora_alpha': 'four'}                 | alpha \"four\", expected a number",
                "{'transformer.alpha_pattern': {'.*to_[qk]': 3}}   | expected the name of a module",
                "[1]                                                | is not a JSON object",
                "{'transformer.lora_alpha': 1                       | is not valid JSON",
            })
    void refusesMetadata(String settings, String reason) {
        Path file = twoLayers(settings);
        assertThatThrownBy(() -> Lora.load(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("lora_adapter_metadata in " + file)
                .hasMessageContaining(reason);
    }

    private Path twoLayers(String settings) {
        Map<String, String> metadata = Map.of("lora_adapter_metadata", settings.replace('\'', '"'));
        String block = "transformer.transformer_blocks.0.attn.";
        return file(
                metadata,
                block + "to_q.lora_A.weight",
                matrix(2, 3),
                block + "to_q.lora_B.weight",
                matrix(3, 2),
                block + "to_k.lora_A.weight",
                matrix(2, 3),
                block + "to_k.lora_B.weight",
                matrix(3, 2));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "transformer.transformer_blocks.0.attn.to_x.lora_A.weight",
                "transformer.transformer_blocks.0.attn.to_q.lora_A.weight.more",
                "transformer.transformer_blocks.attn.to_q.lora_A.weight",
                "transformer.transformer_blocks.99999999999999999999.attn.to_q.lora_A.weight",
                "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
                "lora_unet_input_blocks_4_1_proj_in.lora_down.weight",
                "unet.down_blocks.0.attn.to_q.lora_A.weight",
                "transformer_blocks.0.attn.to_q.weight",
                "",
            })
    void namesAKeyThatMatchesNothing(String key) {
        Path file = file(Map.of(), key, matrix(2, 3));
        assertThatThrownBy(() -> Lora.load(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("key " + key + " in " + file);
    }

    @ParameterizedTest
    @CsvSource({
        "dora_scale, DoRA",
        "lora_magnitude_vector, DoRA",
        "lokr_w1, LoKr",
        "hada_w1_a, LoHa",
        "lora_B.bias, biases",
        "diff, full weights"
    })
    void namesAnotherKindOfAdapter(String suffix, String kind) {
        String key = "diffusion_model.single_blocks.0.linear2." + suffix;
        Path file = file(Map.of(), key, matrix(2, 3));
        assertThatThrownBy(() -> Lora.load(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining("key " + key + " in " + file)
                .hasMessageContaining(kind);
    }

    @Test
    void refusesHalvesAndWrongShapes() {
        String module = "transformer.transformer_blocks.0.attn.to_q.";
        String fused = "diffusion_model.double_blocks.0.img_attn.qkv.";
        refuses("no counterpart", module + "lora_A.weight", matrix(2, 3));
        refuses("no counterpart", module + "lora_B.weight", matrix(3, 2));
        refuses("no counterpart", module + "alpha", matrix(1, 1));
        refuses(
                "[2, 3] and [3, 4], expected [rank, in] and [out, rank]",
                module + "lora_A.weight",
                matrix(2, 3),
                module + "lora_B.weight",
                matrix(3, 4));
        refuses("[0, 3] and [3, 0]", module + "lora_A.weight", matrix(0, 3), module + "lora_B.weight", matrix(3, 0));
        refuses(
                "expected a matrix",
                module + "lora_A.weight",
                matrix(2, 3).unsqueeze(-1),
                module + "lora_B.weight",
                matrix(3, 2));
        refuses(
                "expected one number",
                module + "lora_A.weight",
                matrix(2, 3),
                module + "lora_B.weight",
                matrix(3, 2),
                module + "alpha",
                matrix(2, 1));
        refuses("does not divide into", fused + "lora_A.weight", matrix(2, 3), fused + "lora_B.weight", matrix(10, 2));
        refuses("does not divide into", fused + "lora_A.weight", matrix(2, 3), fused + "lora_B.weight", matrix(8, 2));
        refuses(
                "two layers for transformer_blocks.0.attn.to_q",
                module + "lora_A.weight",
                matrix(2, 3),
                module + "lora_B.weight",
                matrix(3, 2),
                fused + "lora_A.weight",
                matrix(2, 3),
                fused + "lora_B.weight",
                matrix(9, 2));
        refuses(
                "expected one of them",
                module + "lora_A.weight",
                matrix(2, 3),
                module + "lora_down.weight",
                matrix(2, 3));
        refuses("is no LoRA");
    }

    private void refuses(String reason, Object... keysAndTensors) {
        Path file = file(Map.of(), keysAndTensors);
        assertThatThrownBy(() -> Lora.load(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(file.toString())
                .hasMessageContaining(reason);
    }

    private static Tensor matrix(long rows, long columns) {
        return torch.randn(rows, columns);
    }

    private Path file(Map<String, String> metadata, Object... keysAndTensors) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        for (int i = 0; i < keysAndTensors.length; i += 2) {
            tensors.put((String) keysAndTensors[i], (Tensor) keysAndTensors[i + 1]);
        }
        Path file = folder.resolve("lora.safetensors");
        Map<String, SafetensorsWriter.Declaration> contents = new LinkedHashMap<>();
        tensors.forEach(
                (name, tensor) -> contents.put(name, SafetensorsWriter.Declaration.of(Dtype.F32, tensor.shape())));
        try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, metadata)) {
            tensors.forEach(writer::write);
            writer.commit();
        }
        return file;
    }
}
