package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.bytedeco.pytorch.Scalar;
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
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;
import org.scaledit.testing.RandomBlocks;

/** FLUX.1-dev's width on a GPU, with random weights. */
@Tag("gpu")
class FluxDevGpuTest {
    private static final FluxConfig DEV = FluxConfig.DEV;
    private static final FluxConfig TWO_BLOCKS = RandomBlocks.config(1, 1);
    private static final double BFLOAT16_LIMIT = 1.5e-2;
    private static final double FP8_LIMIT = 6e-2;

    /** Of a block whose input comes from another one: it has that one's error already. */
    private static final double FP8_LIMIT_OF_TWO = 8e-2;

    private static final double INT8_LIMIT = 4e-2;

    @TempDir
    static Path folder;

    private static Path checkpoint;

    /** One double and one single block, 1 GB. */
    @BeforeAll
    static void writeCheckpoint() {
        checkpoint = RandomBlocks.write(folder, TWO_BLOCKS, 7);
    }

    @AfterAll
    static void giveBack() {
        torch.emptyCache();
    }

    private static FluxTransformer load(FluxConfig config, Placement placement, boolean fp8) {
        return FluxTransformer.load(config, Weights.of(Safetensors.open(checkpoint), placement), fp8);
    }

    /** What all runs of one test have in common, in float32 on the CPU. */
    private record Inputs(Tensor latents, Tensor guidance, Tensor text, Tensor pooled) {
        static Inputs random(Geometry geometry) {
            torch.manual_seed(8);
            return new Inputs(
                    torch.randn(geometry.layout().imageTokens(), 64),
                    torch.randn(geometry.layout().guidanceTokens(), 64),
                    torch.randn(geometry.layout().textTokens(), DEV.jointWidth()),
                    torch.randn(DEV.pooledWidth()));
        }

        Tensor velocity(FluxTransformer transformer, Geometry geometry, Attention attention) {
            try (Denoiser denoiser = transformer.denoiser(
                    geometry.layout(), attention, FluxTransformer.NTK_THETA, text, pooled, 4.5, guidance)) {
                return denoiser.velocity(latents, 0.7, () -> {});
            }
        }
    }

    /** Each kind of block by itself, and one after the other. */
    @ParameterizedTest
    @CsvSource({"1, 0", "0, 1", "1, 1"})
    void blocksAreThoseOfTheCpu(int doubleBlocks, int singleBlocks) {
        FluxConfig config = RandomBlocks.config(doubleBlocks, singleBlocks);
        try (Geometry geometry = Geometry.windowed(256, 32, 32, AttentionWindow.DEFAULT)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(geometry);
                Tensor expected;
                try (FluxTransformer onCpu = load(config, Placement.FLOAT32_CPU, false);
                        Attention attention = new NativeAttention(geometry, NativeAttention.Arithmetic.FLOAT32)) {
                    expected = inputs.velocity(onCpu, geometry, attention);
                }
                Runs runs = new Runs(config, geometry, inputs, expected);
                assertThat(runs.off(false, Arithmetic.BFLOAT16)).isLessThan(BFLOAT16_LIMIT);
                assertThat(runs.off(false, Arithmetic.INT8)).isLessThan(INT8_LIMIT);
                boolean alone = doubleBlocks + singleBlocks == 1;
                assertThat(runs.off(true, Arithmetic.BFLOAT16)).isLessThan(alone ? FP8_LIMIT : FP8_LIMIT_OF_TWO);
            });
        }
    }

    private record Runs(FluxConfig config, Geometry geometry, Inputs inputs, Tensor expected) {
        double off(boolean fp8, Arithmetic arithmetic) {
            try (FluxTransformer onGpu = load(config, Gpu.BFLOAT16, fp8);
                    Attention attention = new CudaAttention(geometry, arithmetic)) {
                double off = Golden.relativeL2(inputs.velocity(onGpu, geometry, attention), expected);
                System.out.printf(
                        "%d double, %d single, products in %s, attention in %s: %.1e%n",
                        config.doubleBlocks(), config.singleBlocks(), fp8 ? "FP8" : "bfloat16", arithmetic, off);
                return off;
            }
        }
    }

    /** All 57 blocks at 1024²: errors that add up would show. */
    @Test
    void theWholeModelIsTheSameThroughTheCoreAndThroughAMask() {
        try (Geometry geometry = Geometry.windowed(512, 64, 64, AttentionWindow.DEFAULT);
                FluxTransformer transformer = FluxTransformer.random(DEV, Gpu.BFLOAT16, false);
                Attention dense = DenseAttention.windowed(geometry.layout(), AttentionWindow.DEFAULT, Gpu.BFLOAT16);
                Attention exact = new CudaAttention(geometry, Arithmetic.BFLOAT16);
                Attention int8 = new CudaAttention(geometry, Arithmetic.INT8)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(geometry);
                Tensor expected = inputs.velocity(transformer, geometry, dense);
                double near = cosine(inputs.velocity(transformer, geometry, exact), expected);
                double nearInInt8 = cosine(inputs.velocity(transformer, geometry, int8), expected);
                System.out.printf("57 blocks, cosine to dense: bfloat16 %.6f, INT8 %.6f%n", near, nearInInt8);
                assertThat(near).isGreaterThan(0.999);
                assertThat(nearInInt8).isGreaterThan(0.99);
            });
        }
    }

    private static double cosine(Tensor a, Tensor b) {
        Tensor x = a.to(torch.ScalarType.Double).flatten();
        Tensor y = b.to(torch.ScalarType.Double).flatten();
        return x.dot(y).div(x.norm().mul(y.norm())).to(torch.ScalarType.Float).item_float();
    }

    /** Blocks come one after the other: two take the memory of 57. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aStepAt4096TakesNoMoreThanTwoGibibytesAboveTheWeights(boolean fp8) {
        long before = Gpu.allocatedBytes();
        try (Geometry geometry = Geometry.windowed(512, 256, 256, AttentionWindow.DEFAULT);
                FluxTransformer transformer = FluxTransformer.random(TWO_BLOCKS, Gpu.BFLOAT16, fp8);
                Attention attention = new CudaAttention(geometry, Arithmetic.INT8)) {
            long weights = transformer.weightBytes();
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(geometry);
                torch_cuda.getAllocator().resetPeakStats((byte) 0);
                Tensor velocity = inputs.velocity(transformer, geometry, attention);
                assertThat(velocity.isfinite().all().item_bool()).isTrue();
                assertThat(velocity.abs().gt(new Scalar(0)).any().item_bool()).isTrue();
            });
            long peak = Tensors.compute(
                    () -> torch.getDeviceStats((byte) 0).allocated_bytes().peak());
            double above = (double) (peak - before - weights) / (1 << 30);
            System.out.printf("4096² in %s: %.2f GiB above the weights%n", fp8 ? "FP8" : "bfloat16", above);
            assertThat(above).isLessThan(2.0);
        }
    }
}
