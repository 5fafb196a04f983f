package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalLong;
import java.util.stream.IntStream;
import javax.imageio.ImageIO;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.Attention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.sampling.Schedule;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.GradientPass;
import org.scaledit.transformer.Part;
import org.scaledit.vae.AutoencoderKl;

class StepBenchmarkTest {
    private static final String[] ALL_PARTS = names(Part.values());
    private static final String[] ALL_PHASES = names(GradientPass.Phase.values());

    private static String[] names(Enum<?>[] parts) {
        return Arrays.stream(parts)
                .map(part -> part.name().toLowerCase(Locale.ROOT))
                .toArray(String[]::new);
    }

    @TempDir
    Path folder;

    @Test
    void everyMethodThatRunsOnACpuIsMeasuredAndTheOtherSaysWhy() {
        List<Measurement> seen = new ArrayList<>();
        List<Measurement> measurements;
        try (StepBenchmark benchmark = StepBenchmark.open(Optional.of(Golden.tinyFlux()), false, false)) {
            measurements = benchmark.run(
                    new StepBenchmark.Plan(List.of(Method.values()), List.of(128), List.of(128), 16, 1, 2, true),
                    seen::add);
            assertThat(benchmark.hardware())
                    .containsKeys("device", "torch", "java")
                    .containsEntry("memory", "normal");
        }
        assertThat(seen).containsExactlyInAnyOrderElementsOf(measurements);
        assertThat(seen.get(seen.size() - 1).method()).isEqualTo(Method.SCALEDIT_FP8);
        assertThat(measurements).extracting(Measurement::method).containsExactly(Method.values());
        for (Measurement measurement : measurements) {
            boolean guided = measurement.method().guided();
            assertThat(measurement.tokens()).isEqualTo(16 + 64 + (guided ? 4 : 0));
            if (measurement.method() == Method.DENSE_CUDNN) {
                assertThat(measurement.failure()).isPresent();
                continue;
            }
            if (measurement.method() == Method.SCALEDIT_FP8) {
                assertThat(measurement.failure()).hasValue("precision fp8 is for bfloat16 on a GPU alone");
                continue;
            }
            Measurement.Result result = measurement.result().orElseThrow();
            assertThat(result.seconds())
                    .isGreaterThanOrEqualTo(result.fastest())
                    .isPositive();
            assertThat(result.ratio()).isPresent();
            assertThat(result.bytesAboveWeights()).isEmpty();
            assertThat(result.peakBytes()).isEmpty();
            assertThat(result.steps()).isEqualTo(2);
            assertThat(result.picture().isPresent())
                    .isEqualTo(measurement.method().paints());
            result.picture().ifPresent(picture -> {
                assertThat(picture.guidanceSteps()).isEqualTo(28);
                assertThat(picture.highResolutionSteps()).isEqualTo(28);
                assertThat(List.of(picture.guidance(), picture.highResolution(), picture.decode()))
                        .allMatch(seconds -> seconds > 0);
            });
            assertThat(result.parts())
                    .containsOnlyKeys(measurement.method() == Method.TRAINING ? ALL_PHASES : ALL_PARTS);
            assertThat(result.parts().values().stream()
                            .mapToDouble(Double::doubleValue)
                            .sum())
                    .isLessThan(20 * result.seconds());
        }
    }

    @Test
    void peersAttendAsTheyShould() {
        Tensors.run(() -> {
            torch.manual_seed(3);
            Tensor query = torch.randn(50, 2, 64);
            Tensor key = torch.randn(50, 2, 64);
            Tensor value = torch.randn(50, 2, 64);
            Tensor expected = DenseAttention.full().attend(query, key, value);
            for (Attention peer : List.of(PeerAttention.naive(), PeerAttention.flash())) {
                Tensor attended = peer.attend(query, key, value);
                PeerAttention.allowAll();
                assertThat(attended.shape()).containsExactly(50, 128);
                assertThat(Golden.relativeL2(attended, expected)).isLessThan(1e-5);
            }
            // Linear attention with its scores written out.
            Tensor q = torch.relu(query).transpose(0, 1);
            Tensor k = torch.relu(key).transpose(0, 1);
            Tensor scores = q.matmul(k.transpose(1, 2)); // [heads, tokens, tokens]
            Tensor weights =
                    scores.div(scores.sum(new long[] {2}, true, new org.bytedeco.pytorch.ScalarTypeOptional()));
            Tensor written =
                    weights.matmul(value.transpose(0, 1)).transpose(0, 1).flatten(1, 2);
            assertThat(Golden.relativeL2(PeerAttention.linear().attend(query, key, value), written))
                    .isLessThan(1e-5);
        });
    }

    /** The figure: 905 TFLOP a step at 4096². */
    @Test
    void aStepOfFluxDevAt4096Takes905Tflop() {
        TokenLayout layout = TokenLayout.raster(512, 256, 256, 4);
        assertThat(layout.tokens()).isEqualTo(70_144);
        assertThat(MatrixProducts.of(FluxConfig.DEV, layout).operations()).isBetween(903e12, 909e12);
    }

    @Test
    void theReportSaysAllThatWasMeasuredAndWhatWasNot() throws IOException {
        Measurement good = new Measurement(
                Method.SCALEDIT,
                4096,
                70_144,
                Optional.of(new Measurement.Result(
                        1.5,
                        1.4,
                        5,
                        OptionalDouble.of(1.25),
                        905e12,
                        OptionalLong.of(2L << 30),
                        OptionalLong.of(3L << 30),
                        Map.of("mlp", 0.9, "gate", 0.6),
                        Optional.of(new Measurement.Picture(28, 2, 27, 40.5, 1.25)))),
                Optional.empty());
        Measurement bad =
                new Measurement(Method.NAIVE, 4096, 66_048, Optional.empty(), Optional.of("out of \"memory\", sadly"));
        assertThat(Report.line(good))
                .matches(
                        "scaledit +4096 +70144 +1.500 +1.250 +1.20 +2.00 +3.00\n +mlp +900.0 ms +60.0 %\n +gate +600.0 ms +40.0 %\n"
                                + " +picture: 28 steps of guidance 2.00 s, 27 of high resolution 40.50 s, decode 1.25 s,"
                                + " together 43.75 s\n");
        assertThat(Report.line(bad)).startsWith("naive").contains("out of \"memory\"");
        Path results = folder.resolve("results");
        new Report(Map.of("device", "a GPU"), "random", List.of(good, bad)).write(results);
        JsonNode json = new ObjectMapper().readTree(results.resolve("step.json").toFile());
        assertThat(json.get("device").asText()).isEqualTo("a GPU");
        assertThat(json.at("/measurements/0/ratio").asDouble()).isEqualTo(1.2);
        assertThat(json.at("/measurements/0/parts/mlp").asDouble()).isEqualTo(0.9);
        assertThat(json.at("/measurements/0/steps").asInt()).isEqualTo(5);
        assertThat(json.at("/measurements/0/bytes_above_weights").asLong()).isEqualTo(2L << 30);
        assertThat(json.at("/measurements/0/peak_bytes").asLong()).isEqualTo(3L << 30);
        assertThat(json.at("/measurements/0/picture/decode_seconds").asDouble()).isEqualTo(1.25);
        assertThat(json.at("/measurements/0/picture/seconds").asDouble()).isEqualTo(43.75);
        assertThat(json.at("/measurements/1/failure").asText()).contains("memory");
        for (String chart : List.of("step-time.png", "step-memory.png")) {
            BufferedImage drawn = ImageIO.read(results.resolve(chart).toFile());
            assertThat(drawn.getWidth()).isEqualTo(960);
            long blue = IntStream.range(0, 960 * 600)
                    .filter(i -> (drawn.getRGB(i % 960, i / 960) & 0xFFFFFF) == 0x0072B2) // scaledit's colour
                    .count();
            assertThat(blue).isGreaterThan(100);
        }
        assertThat(Files.readAllLines(results.resolve("step.csv")))
                .hasSize(3)
                .contains("scaledit,4096,70144,1.5,1.4,1.25,1.2,2147483648,3221225472,2.0,40.5,1.25,43.75,\"\"")
                .contains("naive,4096,66048,,,,,,,,,,,\"out of \"\"memory\"\", sadly\"");
    }

    @Test
    void aPlanThatCannotBeIsRefused() {
        assertThatThrownBy(() -> new StepBenchmark.Plan(List.of(), List.of(1000), List.of(), 512, 1, 1, false))
                .hasMessage("width is 1000 pixels, expected a multiple of 16 from 16 to 65536");
        assertThatThrownBy(() -> new StepBenchmark.Plan(List.of(), List.of(), List.of(), 0, 1, 1, false))
                .hasMessage("text tokens is 0, expected 1 to 4096");
        assertThatThrownBy(() -> new StepBenchmark.Plan(
                        List.of(Method.NAIVE, Method.NAIVE), List.of(), List.of(), 8, 1, 1, false))
                .hasMessage("methods are [naive, naive], expected each of them once");
        assertThatThrownBy(() -> new StepBenchmark.Plan(List.of(), List.of(64), List.of(128), 8, 1, 1, false))
                .hasMessage("pictures are [128], expected some of the sizes [64]");
        assertThatThrownBy(
                        () -> new StepBenchmark.Plan(List.of(Method.NAIVE), List.of(64), List.of(64), 8, 1, 1, false))
                .hasMessage(
                        "pictures are painted by the methods of Scale-DiT alone, expected one of them beside naive");
        assertThatThrownBy(() -> new StepBenchmark.Plan(List.of(), List.of(64, 64), List.of(), 8, 1, 1, false))
                .hasMessage("sizes are [64, 64], expected each of them once");
    }

    /** In bfloat16, with FLUX's own autoencoder's 83.8 million parameters; its folder is gone afterwards. */
    @Test
    void theRandomCheckpointHasWhatAPictureNeeds() {
        Path path;
        try (RandomCheckpoint checkpoint = new RandomCheckpoint()) {
            ModelDirectory directory = checkpoint.directory();
            path = directory.path();
            try (AutoencoderKl vae = AutoencoderKl.load(directory.part("vae"), Placement.BFLOAT16_CPU)) {
                assertThat(AutoencoderKl.expectedTensors(vae.config()).values().stream()
                                .mapToLong(shape -> Arrays.stream(shape).reduce(1, Math::multiplyExact))
                                .sum())
                        .isEqualTo(83_819_683);
            }
            assertThat(Schedule.ofCheckpoint(directory, 28, 4096).sigmas()[1])
                    .isCloseTo((float) (Math.exp(1.15) / (Math.exp(1.15) + 28.0 / 27 - 1)), within(1e-6f));
        }
        assertThat(path).doesNotExist();
    }
}
