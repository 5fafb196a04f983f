package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.testing.Golden;

class FluxConfigTest {
    private static final FluxConfig DEV = new FluxConfig(64, 19, 38, 24, 128, 4096, 768, true, List.of(16, 56, 56));

    @TempDir
    Path folder;

    @Test
    void readsTheConfigOfACheckpoint() {
        FluxConfig config = FluxConfig.read(Golden.tinyFlux().resolve("transformer/config.json"));
        assertThat(config).isEqualTo(new FluxConfig(64, 2, 2, 2, 128, 32, 32, true, List.of(16, 56, 56)));
        assertThat(config.width()).isEqualTo(256);
        assertThat(config.mlpWidth()).isEqualTo(1024);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "\"in_channels\": 64 | \"in_channels\": 384 "
                        + "| in_channels 384 (FLUX.1 Fill: image and mask are inputs), expected 64",
                "\"in_channels\": 64 | \"in_channels\": 128 "
                        + "| in_channels 128 (FLUX.1 Canny or Depth: a control image is an input), expected 64",
                "\"in_channels\": 64 | \"in_channels\": 16 | in_channels 16, expected 64",
                "\"out_channels\": null | \"out_channels\": 16 | out_channels 16, expected 64",
                "\"patch_size\": 1 | \"patch_size\": 2 | patch_size 2, expected 1",
                "\"num_layers\": 2 | \"num_layers\": 0 | num_layers 0, expected an integer from 1 to 1000",
                "\"num_layers\": 2 | \"num_layers\": 99999999 | num_layers 99999999, expected an integer from 1 to 1000",
                "\"num_single_layers\": 2 | \"num_single_layers\": 1001 | num_single_layers 1001, expected an integer from 1"
                        + " to 1000",
                "\"num_attention_heads\": 2 | \"num_attention_heads\": 257 | num_attention_heads 257, expected an integer from"
                        + " 1 to 256",
                "\"attention_head_dim\": 128 | \"attention_head_dim\": 65664 | attention_head_dim 65664, expected an integer"
                        + " from 1 to 65536",
                "\"joint_attention_dim\": 32 | \"joint_attention_dim\": 65537 | joint_attention_dim 65537, expected an integer"
                        + " from 1 to 65536",
                "\"pooled_projection_dim\": 32 | \"pooled_projection_dim\": 65537 | pooled_projection_dim 65537, expected an"
                        + " integer from 1 to 65536",
                "\"axes_dims_rope\" | \"axes_dims_rope\": [2147483646, 2147483646, 132], \"other\" | axes_dims_rope"
                        + " [2147483646, 2147483646, 132], expected three even numbers that add up to attention_head_dim, 128",
                "\"attention_head_dim\": 128 | \"attention_head_dim\": 96 | axes_dims_rope [16, 56, 56], expected three"
                        + " even numbers that add up to attention_head_dim, 96",
                "FluxTransformer2DModel | Flux2Transformer2DModel | _class_name Flux2Transformer2DModel, expected"
                        + " FluxTransformer2DModel"
            })
    void aValueThatIsNotSupportedIsNamed(String original, String replacement, String message) throws IOException {
        String json = Files.readString(Golden.tinyFlux().resolve("transformer/config.json"));
        assertThat(json).contains(original);
        Path file = Files.writeString(folder.resolve("config.json"), json.replace(original, replacement));
        assertThatThrownBy(() -> FluxConfig.read(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(file + " has " + message);
    }

    @Test
    void theExpectedTensorsAreThoseOfTheCheckpoint() {
        FluxConfig config = FluxConfig.read(Golden.tinyFlux().resolve("transformer/config.json"));
        Map<String, long[]> expected = FluxTransformer.expectedTensors(config);
        try (Safetensors tiny =
                Safetensors.openModel(Golden.tinyFlux().resolve("transformer"), "diffusion_pytorch_model")) {
            assertThat(expected.keySet()).containsExactlyInAnyOrderElementsOf(tiny.names());
            expected.forEach(
                    (name, shape) -> assertThat(tiny.info(name).dimensions()).containsExactly(shape));
        }
    }

    @Test
    void theExpectedTensorsOfFluxDevHaveTwelveBillionParameters() {
        Map<String, long[]> expected = FluxTransformer.expectedTensors(DEV);
        assertThat(expected.size()).isEqualTo(1160);
        assertThat(expected.get("single_transformer_blocks.37.proj_out.weight")).containsExactly(3072, 15360);
        assertThat(parameters(expected)).isEqualTo(11_901_408_320L);
        FluxConfig schnell = new FluxConfig(64, 19, 38, 24, 128, 4096, 768, false, List.of(16, 56, 56));
        assertThat(FluxTransformer.expectedTensors(schnell).size()).isEqualTo(1156);
        assertThat(parameters(FluxTransformer.expectedTensors(schnell))).isEqualTo(11_891_178_560L);
    }

    private static long parameters(Map<String, long[]> tensors) {
        return tensors.values().stream()
                .mapToLong(shape -> Arrays.stream(shape).reduce(1, (a, b) -> a * b))
                .sum();
    }
}
