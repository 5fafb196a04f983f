package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.vae.Layer.Convolution;
import org.scaledit.vae.Layer.Downsample;
import org.scaledit.vae.Layer.Residual;
import org.scaledit.vae.Layer.SelfAttention;
import org.scaledit.vae.Layer.Upsample;

class LayerTest {
    private final PointerScope scope = new PointerScope();

    @AfterEach
    void closeScope() {
        scope.close();
    }

    /** Kernels, strides and paddings of the architecture; strips that are even, uneven and one row high. */
    @ParameterizedTest
    @CsvSource({
        "3, 1, 1, 24, 1",
        "3, 1, 1, 24, 2",
        "3, 1, 1, 24, 5",
        "3, 1, 1, 23, 23",
        "1, 1, 0, 17, 4",
        "3, 2, 0, 25, 1",
        "3, 2, 0, 25, 5",
        "3, 2, 0, 26, 12"
    })
    void stripsAreTheWholeConvolution(int kernel, int stride, int padding, int height, int strips) {
        Convolution convolution = new Convolution("conv", 6, 4, kernel, stride, padding);
        Map<String, Tensor> weights = weights(convolution);
        Tensor x = torch.randn(1, 6, height, 13);

        Tensor output = convolution.forward(weights, x, strips);

        Tensor expected = torch.conv2d(
                float64(x),
                float64(Objects.requireNonNull(weights.get("conv.weight"))),
                Tensors.optional(float64(Objects.requireNonNull(weights.get("conv.bias")))),
                new long[] {stride, stride},
                new long[] {padding, padding},
                new long[] {1, 1},
                1);
        assertThat(Golden.maxAbsoluteDifference(output, expected)).isLessThan(1e-5f);
        assertThat(x.isNull()).isFalse();
    }

    /** Their numbers fill none of the blocks that oneDNN computes at a time; with several threads it is asked in any case. */
    @ParameterizedTest
    @CsvSource({"64, 80", "192, 203", "192, 320"})
    void lastChannelsAreRight(int in, int out) {
        Convolution convolution = Convolution.same("conv", in, out, 1);
        Map<String, Tensor> weights = weights(convolution);
        Tensor x = torch.randn(1, in, 64, 64).contiguous(torch.MemoryFormat.ChannelsLast);
        int threads = torch.get_num_threads();
        torch.set_num_threads(2);
        try {
            Tensor output = convolution.forward(weights, x, 1);
            Tensor expected = torch.einsum(
                    "bchw,oc->bohw",
                    new TensorVector(
                            float64(x),
                            float64(Objects.requireNonNull(weights.get("conv.weight")))
                                    .view(out, in)));
            Tensor bias =
                    float64(Objects.requireNonNull(weights.get("conv.bias"))).view(1, out, 1, 1);
            assertThat(Golden.maxAbsoluteDifference(output, expected.add(bias))).isLessThan(1e-4f);
        } finally {
            torch.set_num_threads(threads);
        }
    }

    @Test
    void aStripHas64MebibytesAndARowAtLeast() {
        assertThat(Convolution.strips(1, 5)).isEqualTo(1);
        assertThat(Convolution.strips(64L << 20, 2049)).isEqualTo(1);
        assertThat(Convolution.strips((64L << 20) + 1, 2049)).isEqualTo(2);
        assertThat(Convolution.strips(1L << 40, 5)).isEqualTo(5);
    }

    /** A picture of even areas, of which sums of squares in float32 lose a thousandth. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void groupNormIsExactOfALargePicture(boolean channelsLast) {
        Tensors.run(() -> {
            Tensor noise = torch.randn(1, 4, 1024, 1024);
            Tensor even = torch.rand(1, 4, 1024, 1024).lt(new Scalar(0.8)).to(torch.ScalarType.Float);
            Tensor x = even.add(noise.mul(even.neg().add(new Scalar(1))));
            if (channelsLast) {
                x = x.contiguous(torch.MemoryFormat.ChannelsLast);
            }
            Layer.Normalization norm = new Layer.Normalization("norm", 4, 2);
            Map<String, Tensor> weights = weights(norm);
            Tensor expected = torch.group_norm(
                    x.contiguous().to(torch.ScalarType.Double),
                    2,
                    Tensors.optional(exact(weights.get("norm.weight"))),
                    Tensors.optional(exact(weights.get("norm.bias"))),
                    1e-6,
                    true);
            Tensor normed = norm.forward(weights, new Tensor(x));
            assertThat(Golden.relativeL2(normed, expected)).isLessThan(1e-6);
            assertThat(normed.is_contiguous()).isEqualTo(!channelsLast);
        });
    }

    private static Tensor exact(@Nullable Tensor tensor) {
        return Objects.requireNonNull(tensor).to(torch.ScalarType.Double);
    }

    /** Activations of one level must not outlive what they are needed for; whoever keeps a handle keeps the tensor. */
    @Test
    void layersCloseTheirInput() {
        for (Layer layer : List.of(
                Convolution.same("layer", 8, 4, 3),
                new Residual("layer", 8, 8, 4),
                new Residual("layer", 8, 16, 4),
                new SelfAttention("layer", 8, 4),
                new Downsample("layer", 8),
                new Upsample("layer", 8))) {
            Tensor x = torch.randn(1, 8, 6, 10);
            Tensor kept = new Tensor(x);
            Tensor before = x.clone();

            Tensor output = layer.forward(weights(layer), x);

            assertThat(output.isfinite().all().item_bool()).isTrue();
            assertThat(x.isNull()).as(layer.toString()).isTrue();
            assertThat(Golden.maxAbsoluteDifference(kept, before))
                    .as(layer.toString())
                    .isZero();
        }
    }

    private static Map<String, Tensor> weights(Layer layer) {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        layer.declare(shapes);
        Map<String, Tensor> weights = new LinkedHashMap<>();
        shapes.forEach((name, shape) -> weights.put(name, torch.randn(shape).mul(new Scalar(0.1))));
        return weights;
    }

    private static Tensor float64(Tensor tensor) {
        return tensor.to(torch.ScalarType.Double);
    }
}
