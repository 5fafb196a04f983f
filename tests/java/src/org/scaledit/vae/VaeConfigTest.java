package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.testing.Golden;

class VaeConfigTest {
    private static final VaeConfig FLUX_DEV =
            new VaeConfig(List.of(128, 256, 512, 512), 2, 32, 16, 1024, 0.3611, 0.1159, true);

    @TempDir
    Path folder;

    @Test
    void readsTheCheckpointsConfig() {
        VaeConfig config = VaeConfig.of(Config.read(Golden.tinyFlux().resolve("vae/config.json")));

        assertThat(config).isEqualTo(new VaeConfig(List.of(8, 16, 16, 16), 2, 4, 16, 128, 0.3611, 0.1159, true));
        assertThat(config.pixelsPerLatent()).isEqualTo(8);
        assertThat(config.tileLatents()).isEqualTo(16);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "\"act_fn\": \"silu\" | \"act_fn\": \"relu\" | has act_fn relu, expected silu",
                "\"in_channels\": 3 | \"in_channels\": 4 | has in_channels 4, expected 3",
                "\"use_quant_conv\": false | \"use_quant_conv\": true | has use_quant_conv (by default or by name),"
                        + " expected none",
                "\"use_post_quant_conv\": false | \"other\": 1 | has use_post_quant_conv (by default or by name),"
                        + " expected none",
                "\"latents_mean\": null | \"latents_mean\": [1.5] | has latents_mean (by default or by name), expected"
                        + " none",
                "\"sample_size\": 128 | \"sample_size\": 100 | has sample_size 100, expected a multiple of 32",
                "\"sample_size\": 128 | \"sample_size\": 0 | has sample_size 0, expected a multiple of 32",
                "\"norm_num_groups\": 4 | \"norm_num_groups\": 3 | has block_out_channels [8, 16, 16, 16], expected"
                        + " multiples of 3",
                "\"norm_num_groups\": 4 | \"norm_num_groups\": 0 | has norm_num_groups 0, expected at least 1",
                "\"layers_per_block\": 2 | \"layers_per_block\": 0 | has layers_per_block 0, expected an integer"
                        + " from 1 to 1000",
                "\"layers_per_block\": 2 | \"layers_per_block\": 99999999 | has layers_per_block 99999999, expected an integer"
                        + " from 1 to 1000",
                "\"scaling_factor\": 0.3611 | \"scaling_factor\": 0 | has scaling_factor 0.0, expected another number",
                "\"shift_factor\": 0.1159 | \"shift_factor\": null | has no field shift_factor, expected a number",
                "\"down_block_types\": [ | \"down_block_types\": [\"AttnDownEncoderBlock2D\", | has down_block_types"
                        + " AttnDownEncoderBlock2D, expected DownEncoderBlock2D for every level",
            })
    void namesWhatItCannotServe(String from, String to, String message) throws IOException {
        String json = Files.readString(Golden.tinyFlux().resolve("vae/config.json"));
        assertThat(json).contains(from);
        Path file = Files.writeString(folder.resolve("config.json"), json.replace(from, to));

        assertThatThrownBy(() -> VaeConfig.of(Config.read(file)))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(file + " " + message);
    }

    @Test
    void expectsTheTensorsOfTheCheckpointAndNoOthers() {
        VaeConfig config = VaeConfig.of(Config.read(Golden.tinyFlux().resolve("vae/config.json")));
        Map<String, long[]> expected = AutoencoderKl.expectedTensors(config);

        try (Safetensors file = Safetensors.openModel(Golden.tinyFlux().resolve("vae"), "diffusion_pytorch_model")) {
            Weights.check(file, expected);
            assertThat(expected.keySet()).containsExactlyInAnyOrderElementsOf(file.names());
        }
    }

    @Test
    void expectsTheTensorsOfFluxDev() {
        Map<String, long[]> expected = AutoencoderKl.expectedTensors(FLUX_DEV);

        long parameters =
                expected.values().stream().mapToLong(VaeConfigTest::count).sum();
        assertThat(expected).hasSize(244);
        assertThat(parameters).isEqualTo(83_819_683);
        assertThat(expected.get("decoder.up_blocks.2.resnets.0.conv_shortcut.weight"))
                .containsExactly(256, 512, 1, 1);
        assertThat(expected.get("encoder.conv_out.weight")).containsExactly(32, 512, 3, 3);
        assertThat(FLUX_DEV.tileLatents()).isEqualTo(128);
    }

    private static long count(long[] shape) {
        long count = 1;
        for (long size : shape) {
            count *= size;
        }
        return count;
    }
}
