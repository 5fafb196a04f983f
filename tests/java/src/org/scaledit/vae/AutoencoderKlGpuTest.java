package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.Dtype;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** Autoencoders with random weights and tiles of 1024 × 1024 pixels on a GPU: FLUX's, and one of an eighth of its width. */
@Tag("gpu")
class AutoencoderKlGpuTest {
    private static final double MOST_ABOVE_WEIGHTS = 1.5;
    private static final double BFLOAT16_LIMIT = 0.03;

    @TempDir
    static Path folder;

    private static Path flux;
    private static Path narrow;

    @BeforeAll
    static void writeCheckpoints() throws IOException {
        CudaAttention.requireGpu();
        flux = write("flux", List.of(128, 256, 512, 512), 32);
        narrow = write("narrow", List.of(16, 32, 64, 64), 8);
    }

    @AfterAll
    static void giveBack() {
        torch.emptyCache();
    }

    /** Weights under which what passes through keeps its size. */
    private static Path write(String name, List<Integer> channels, int groups) throws IOException {
        ObjectMapper mapper = new ObjectMapper();
        Path tiny = Golden.tinyFlux().resolve("vae/config.json");
        ObjectNode config = (ObjectNode) mapper.readTree(tiny.toFile());
        config.set("block_out_channels", mapper.valueToTree(channels));
        config.put("norm_num_groups", groups).put("sample_size", 1024);
        Path checkpoint = Files.createDirectory(folder.resolve(name));
        mapper.writeValue(checkpoint.resolve("config.json").toFile(), config);
        Map<String, long[]> shapes =
                AutoencoderKl.expectedTensors(VaeConfig.of(Config.read(checkpoint.resolve("config.json"))));
        Map<String, SafetensorsWriter.Declaration> contents = new LinkedHashMap<>();
        shapes.forEach((weight, shape) -> contents.put(weight, SafetensorsWriter.Declaration.of(Dtype.F32, shape)));
        try (SafetensorsWriter writer = SafetensorsWriter.create(
                checkpoint.resolve("diffusion_pytorch_model.safetensors"), contents, Map.of())) {
            shapes.forEach((weight, shape) -> Tensors.run(() -> writer.write(weight, random(weight, shape))));
            writer.commit();
        }
        return checkpoint;
    }

    private static Tensor random(String name, long... shape) {
        Tensor normal = torch.randn(shape);
        if (shape.length == 1) {
            boolean scaleOfNorm = name.endsWith(".weight");
            return normal.mul(new Scalar(0.1)).add(new Scalar(scaleOfNorm ? 1.0 : 0.0));
        }
        double inputs = (double) normal.numel() / shape[0];
        return normal.mul(new Scalar(1 / Math.sqrt(inputs)));
    }

    /** Of 1 tile, 3 × 3 and 6 × 6: the sides of a picture make no difference, the last tiles' sides neither. */
    @ParameterizedTest
    @CsvSource({"128, 128", "256, 256", "512, 500"})
    void aPictureOfAnySizeTakesNoMoreThanOneAndAHalfGibibytesAboveTheWeights(int height, int width) {
        try (AutoencoderKl vae = AutoencoderKl.load(flux, Gpu.BFLOAT16)) {
            double decoding = gibibytes(() -> {
                Tensor image = vae.decode(torch.randn(16, height, width), TileListener.NONE);
                assertThat(image.shape()).containsExactly(3, 8L * height, 8L * width);
                assertThat(image.isfinite().all().item_bool()).isTrue();
                assertThat(image.std(false).item_float()).isBetween(0.01f, 100f);
            });
            double encoding = gibibytes(() -> {
                Tensor latent = vae.encode(torch.rand(3, 8L * height, 8L * width), TileListener.NONE);
                assertThat(latent.shape()).containsExactly(16, height, width);
                assertThat(latent.isfinite().all().item_bool()).isTrue();
            });
            System.out.printf(
                    "VAE in bfloat16, %d × %d pixels: %.3f GiB above the weights to decode, %.3f to encode%n",
                    8 * width, 8 * height, decoding, encoding);
            assertThat(decoding).isBetween(0.5, MOST_ABOVE_WEIGHTS);
            assertThat(encoding).isBetween(0.5, MOST_ABOVE_WEIGHTS);
        }
    }

    private static double gibibytes(Runnable work) {
        return (double) Gpu.peakBytes(() -> Tensors.run(work)) / (1 << 30);
    }

    /** 2048² pixels, 3 × 3 tiles, in which convolutions run in strips on both. */
    @Test
    void tilesAreThoseOfTheCpu() {
        assertNear(narrow, 256, 256);
    }

    /** One tile of 512² pixels, as wide as FLUX's. */
    @Test
    void flux1sWidthIsThatOfTheCpu() {
        assertNear(flux, 64, 64);
    }

    private static void assertNear(Path checkpoint, int height, int width) {
        Tensors.run(() -> {
            Tensor latent = torch.randn(16, height, width);
            Tensor image =
                    torch.rand(3, 8L * height, 8L * width).mul(new Scalar(2)).sub(new Scalar(1));
            Tensor expectedImage;
            Tensor expectedLatent;
            try (AutoencoderKl onCpu = AutoencoderKl.load(checkpoint, Placement.FLOAT32_CPU)) {
                expectedImage = onCpu.decode(latent, TileListener.NONE);
                expectedLatent = onCpu.encode(image, TileListener.NONE);
            }
            try (AutoencoderKl onGpu = AutoencoderKl.load(checkpoint, Gpu.BFLOAT16)) {
                double decoded = Golden.relativeL2(onGpu.decode(latent, TileListener.NONE), expectedImage);
                double encoded = Golden.relativeL2(onGpu.encode(image, TileListener.NONE), expectedLatent);
                System.out.printf(
                        "%s VAE, %d × %d pixels in bfloat16: %.1e off the CPU's picture, %.1e off its latents%n",
                        checkpoint.getFileName(), 8 * width, 8 * height, decoded, encoded);
                assertThat(decoded).isBetween(1e-4, BFLOAT16_LIMIT);
                assertThat(encoded).isBetween(1e-4, BFLOAT16_LIMIT);
            }
        });
    }
}
