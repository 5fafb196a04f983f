package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.FluxDev;
import org.scaledit.text.TextEncoders;

class FluxDevTest {
    private static final Map<String, Map<String, long[]>> PARTS = Map.of(
            "transformer", FluxDev.transformer(),
            "text_encoder_2", FluxDev.t5(),
            "text_encoder", FluxDev.clip(),
            "vae", FluxDev.vae());

    @TempDir
    Path folder;

    private Safetensors open(String part) {
        boolean transformers = part.startsWith("text");
        return Safetensors.openModel(folder.resolve(part), transformers ? "model" : "diffusion_pytorch_model");
    }

    /** What the published files say of themselves. */
    @Test
    void hasThePublishedSizes() throws IOException {
        FluxDev.write(folder);
        assertThat(parameters("transformer")).isEqualTo(11_901_408_320L);
        assertThat(parameters("text_encoder_2")).isEqualTo(4_762_310_656L);
        assertThat(parameters("text_encoder")).isEqualTo(123_060_480L);
        assertThat(parameters("vae")).isEqualTo(83_819_683L);
        assertThat(gigabytes("transformer")).containsExactly(9.98, 9.95, 3.87);
        assertThat(gigabytes("text_encoder_2")).containsExactly(4.99, 4.53);
    }

    private long parameters(String part) {
        try (Safetensors source = open(part)) {
            return source.names().stream()
                    .mapToLong(name -> source.info(name).bytes() / 2)
                    .sum();
        }
    }

    private double[] gigabytes(String part) throws IOException {
        try (var files = Files.list(folder.resolve(part))) {
            return files.filter(file -> file.toString().endsWith(".safetensors"))
                    .sorted()
                    .mapToDouble(file -> Math.round(file.toFile().length() / 1e7) / 100.0)
                    .toArray();
        }
    }

    @Test
    void isCheckedWithoutReadingATensor() throws IOException {
        FluxDev.write(folder);
        long start = System.nanoTime();
        for (Map.Entry<String, Map<String, long[]>> part : PARTS.entrySet()) {
            try (Safetensors source = open(part.getKey())) {
                Weights.check(source, part.getValue());
                assertThat(source.mappedFiles()).isZero();
            }
        }
        System.out.printf("FLUX.1-dev opened and checked in %d ms%n", (System.nanoTime() - start) / 1_000_000);
        try (TextEncoders encoders = TextEncoders.load(ModelDirectory.open(folder), Placement.FLOAT32_CPU)) {
            assertThat(encoders.jointWidth()).isEqualTo(4096);
            assertThat(encoders.pooledWidth()).isEqualTo(768);
        }
        assertThat(mappedFiles()).isEmpty();
    }

    @Test
    void mapsOnlyTheShardOfATensorThatIsUsed() throws IOException {
        FluxDev.write(folder);
        try (Weights weights = Weights.of(open("transformer"), Placement.BFLOAT16_CPU)) {
            Tensor weight = weights.load("proj_out.weight", 64, 3072);
            assertThat(weight.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
            assertThat(weights.loadedBytes()).isEqualTo(64 * 3072 * 2);
            assertThat(mappedFiles()).containsExactly("diffusion_pytorch_model-00003-of-00003.safetensors");
        }
        assertThat(mappedFiles()).isEmpty();
    }

    /** The names of this checkpoint's files that the process has mapped, as the kernel tells it. */
    private List<String> mappedFiles() throws IOException {
        try (var lines = Files.lines(Path.of("/proc/self/maps"))) {
            return lines.filter(line -> line.contains(folder.toString()))
                    .map(line -> Path.of(line.substring(line.indexOf('/')))
                            .getFileName()
                            .toString())
                    .distinct()
                    .toList();
        }
    }

    @Test
    void namesWhatIsMissingExtraOrMisshapen() throws IOException {
        Map<String, long[]> shapes = FluxDev.transformer();
        refuses(
                without(shapes, "transformer_blocks.18.attn.to_q.bias"),
                "tensor transformer_blocks.18.attn.to_q.bias is missing");
        refuses(
                with(shapes, "transformer_blocks.19.attn.to_q.bias", 3072),
                "tensor transformer_blocks.19.attn.to_q.bias in");
        refuses(
                with(shapes, "single_transformer_blocks.3.proj_out.weight", 3072, 15359),
                "single_transformer_blocks.3.proj_out.weight in",
                "has shape [3072, 15359], expected [3072, 15360]");
    }

    private void refuses(Map<String, long[]> contents, String... reasons) throws IOException {
        Path file = folder.resolve("model.safetensors");
        FluxDev.writeFile(file, contents);
        try (Safetensors source = Safetensors.open(file)) {
            var refusal = assertThatThrownBy(() -> Weights.check(source, FluxDev.transformer()))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining(file.toString());
            Arrays.stream(reasons).forEach(refusal::hasMessageContaining);
        }
    }

    private static Map<String, long[]> without(Map<String, long[]> shapes, String name) {
        Map<String, long[]> others = new LinkedHashMap<>(shapes);
        others.remove(name);
        return others;
    }

    private static Map<String, long[]> with(Map<String, long[]> shapes, String name, long... shape) {
        Map<String, long[]> others = new LinkedHashMap<>(shapes);
        others.put(name, shape);
        return others;
    }
}
