package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CudaAttention;
import org.scaledit.attention.CudaAttention.Arithmetic;
import org.scaledit.attention.Geometry;
import org.scaledit.checkpoint.Dtype;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;
import org.scaledit.testing.RandomBlocks;

/** Blocks that come from the host, against the same ones on the GPU: the same kernels on the same numbers, the same bits. */
@Tag("gpu")
class HostBlocksGpuTest {
    private static final double[] SIGMAS = {1, 0.7, 0.2};
    private static final String LORA_LAYER = "transformer.single_transformer_blocks.1.attn.to_q.lora_";

    @TempDir
    static Path folder;

    private static Path checkpoint;
    private static Path lora;

    /** Wide enough that a block computes for a while, and a copy takes its time: 3 double and 4 single ones, 3 GB. */
    @BeforeAll
    static void writeCheckpoint() {
        checkpoint = RandomBlocks.write(folder, RandomBlocks.config(3, 4), 13);
        lora = folder.resolve("lora.safetensors");
        Map<String, SafetensorsWriter.Declaration> matrices = new LinkedHashMap<>();
        matrices.put(LORA_LAYER + "A.weight", SafetensorsWriter.Declaration.of(Dtype.F32, 16, 3072));
        matrices.put(LORA_LAYER + "B.weight", SafetensorsWriter.Declaration.of(Dtype.F32, 3072, 16));
        try (SafetensorsWriter writer = SafetensorsWriter.create(lora, matrices, Map.of())) {
            Tensors.run(() -> {
                writer.write(LORA_LAYER + "A.weight", torch.randn(16, 3072));
                writer.write(LORA_LAYER + "B.weight", torch.randn(3072, 16));
            });
            writer.commit();
        }
        Tensors.run(torch::emptyCache);
    }

    @AfterAll
    static void giveBack() {
        torch.emptyCache();
    }

    private static FluxTransformer load(FluxConfig config, boolean fp8, boolean low) {
        return FluxTransformer.load(config, Weights.of(Safetensors.open(checkpoint), Gpu.BFLOAT16), fp8, low);
    }

    /** What runs have in common, in float32 on the CPU. */
    private record Inputs(Geometry geometry, Tensor latents, Tensor guidance, Tensor text, Tensor pooled) {
        static Inputs random(Geometry geometry) {
            torch.manual_seed(14);
            return new Inputs(
                    geometry,
                    torch.randn(geometry.layout().imageTokens(), 64),
                    torch.randn(geometry.layout().guidanceTokens(), 64),
                    torch.randn(geometry.layout().textTokens(), FluxConfig.DEV.jointWidth()),
                    torch.randn(FluxConfig.DEV.pooledWidth()));
        }

        Denoiser denoiser(FluxTransformer transformer, Attention attention) {
            return transformer.denoiser(
                    geometry.layout(), attention, FluxTransformer.NTK_THETA, text, pooled, 4.5, guidance);
        }

        /** Of several steps, none of which is waited for: [steps, image, 64] */
        Tensor velocities(FluxTransformer transformer) {
            return Tensors.scoped(() -> {
                try (Attention attention = new CudaAttention(geometry, Arithmetic.INT8);
                        Denoiser denoiser = denoiser(transformer, attention)) {
                    Tensor[] velocities = new Tensor[SIGMAS.length];
                    for (int step = 0; step < SIGMAS.length; step++) {
                        velocities[step] = denoiser.velocity(latents, SIGMAS[step], () -> {});
                    }
                    return Tensors.concatenate(0, velocities);
                }
            });
        }
    }

    private static void assertSame(Tensor velocities, Tensor expected) {
        Tensors.run(() -> {
            assertThat(velocities.isfinite().all().item_bool()).isTrue();
            assertThat(Golden.relativeL2(velocities, expected)).isZero();
        });
    }

    /** An even and an odd number of blocks, as many as places, and one. */
    @ParameterizedTest
    @CsvSource({
        "3, 4, false",
        "3, 4, true",
        "3, 3, false",
        "3, 3, true",
        "1, 1, false",
        "1, 2, true",
        "1, 0, true",
        "0, 1, false"
    })
    void stepsAreTheSame(int doubleBlocks, int singleBlocks, boolean fp8) {
        FluxConfig config = RandomBlocks.config(doubleBlocks, singleBlocks);
        try (Geometry geometry = Geometry.windowed(256, 64, 64, AttentionWindow.DEFAULT)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(geometry);
                Tensor expected;
                try (FluxTransformer normal = load(config, fp8, false)) {
                    expected = inputs.velocities(normal);
                    assertSame(inputs.velocities(normal), expected);
                }
                try (FluxTransformer low = load(config, fp8, true)) {
                    assertSame(inputs.velocities(low), expected);
                    assertSame(inputs.velocities(low), expected);
                }
            });
        }
    }

    /** Few tokens: blocks compute for a shorter time than they take to come. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void stepsThatAreShorterThanTheCopiesAreTheSame(boolean fp8) {
        FluxConfig config = RandomBlocks.config(3, 4);
        try (Geometry geometry = Geometry.windowed(16, 16, 16, AttentionWindow.DEFAULT)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(geometry);
                Tensor expected;
                try (FluxTransformer normal = load(config, fp8, false)) {
                    expected = inputs.velocities(normal);
                }
                try (FluxTransformer low = load(config, fp8, true)) {
                    for (int i = 0; i < 5; i++) {
                        assertSame(inputs.velocities(low), expected);
                    }
                }
            });
        }
    }

    /** The adapted transformer and the plain one take turns over the same places, and a pass ends in its middle. */
    @Test
    void underALoraAndAfterACancelledPassStepsAreTheSame() {
        FluxConfig config = RandomBlocks.config(3, 4);
        try (Geometry geometry = Geometry.windowed(256, 32, 32, AttentionWindow.DEFAULT);
                Lora matrices = Lora.load(lora)) {
            List<ScaledLora> loras = List.of(new ScaledLora(matrices, 1));
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(geometry);
                Tensor plain;
                Tensor adapted;
                try (FluxTransformer normal = load(config, false, false);
                        FluxTransformer underLora = normal.withLoras(loras, LoraScope.ALL)) {
                    plain = inputs.velocities(normal);
                    adapted = inputs.velocities(underLora);
                    assertThat(Golden.relativeL2(adapted, plain)).isPositive();
                }
                try (FluxTransformer low = load(config, false, true);
                        FluxTransformer underLora = low.withLoras(loras, LoraScope.ALL);
                        Attention attention = new CudaAttention(geometry, Arithmetic.INT8);
                        Denoiser denoiser = inputs.denoiser(low, attention)) {
                    for (int last : new int[] {0, 1, 4, 6}) {
                        assertSame(inputs.velocities(underLora), adapted);
                        int[] passed = {0};
                        assertThatThrownBy(() -> denoiser.velocity(inputs.latents, 0.5, () -> {
                                    if (passed[0]++ == last) {
                                        throw new CancellationException("enough");
                                    }
                                }))
                                .isInstanceOf(CancellationException.class);
                        assertSame(inputs.velocities(low), plain);
                    }
                    assertThatThrownBy(() -> low.withTrainedLora(matrices, LoraScope.ALL))
                            .isInstanceOf(IllegalStateException.class)
                            .hasMessage(
                                    "a LoRA is trained with all weights in the GPU's memory, expected memory normal");
                }
            });
        }
    }

    /** The blocks' places, what is outside the blocks, and nothing after it is closed. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void theGpuHoldsThreePlaces(boolean fp8) {
        FluxConfig config = RandomBlocks.config(3, 4);
        torch_cuda.clearCublasWorkspaces();
        long before = Gpu.allocatedBytes();
        List<BlockLayout> layouts = BlockLayout.of(config, torch.ScalarType.BFloat16, fp8, 3);
        long places =
                layouts.get(0).bytes() + layouts.get(1).bytes() + layouts.get(6).bytes();
        long peak = Gpu.peakBytes(() -> {
            try (FluxTransformer low = load(config, fp8, true)) {
                long weights = Gpu.allocatedBytes() - before;
                System.out.printf("weights on the GPU in low memory, FP8 %s: %d bytes%n", fp8, weights);
                assertThat(low.weightBytes()).isBetween(places, places + 160_000_000);
                assertThat(weights).isBetween(low.weightBytes(), low.weightBytes() + (8 << 20));
            }
        });
        // On their way to the host tensors are on the GPU one by one, the largest in bfloat16 and in float32.
        assertThat(peak).isLessThan(places + 160_000_000 + 700_000_000);
        assertThat(Gpu.allocatedBytes()).isEqualTo(before);
    }

    /** All 57 blocks of FLUX.1-dev in FP8, on a GPU that has 14 GiB left. */
    @Test
    void aStepAt4096FitsAGpuOf16Gigabytes() {
        Tensors.run(torch::emptyCache);
        Tensor others = Gpu.takeAllBut(14L << 30);
        try (Geometry geometry = Geometry.windowed(512, 256, 256, AttentionWindow.DEFAULT);
                FluxTransformer low = FluxTransformer.random(FluxConfig.DEV, Gpu.BFLOAT16, true, true)) {
            long taken = others.nbytes();
            torch_cuda.getAllocator().resetPeakStats((byte) 0);
            Tensors.run(() -> assertThat(Inputs.random(geometry)
                            .velocities(low)
                            .isfinite()
                            .all()
                            .item_bool())
                    .isTrue());
            long peak = Tensors.compute(() ->
                            torch.getDeviceStats((byte) 0).allocated_bytes().peak())
                    - taken;
            System.out.printf("4096² in FP8 and low memory: %.2f GiB in all%n", (double) peak / (1 << 30));
            assertThat(peak).isLessThan(4L << 30);
        } finally {
            Gpu.giveBack(others);
        }
    }
}
