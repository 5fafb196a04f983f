package org.scaledit.attention;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.scaledit.attention.AttentionTest.Inputs;
import org.scaledit.attention.DifferentiableAttention.Attended;
import org.scaledit.attention.DifferentiableAttention.Gradients;
import org.scaledit.attention.NativeAttention.Arithmetic;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** The gradients of attention against torch's autograd through softmax written out in float64. */
class AttentionBackwardTest {

    @BeforeEach
    void seed() {
        torch.manual_seed(22);
    }

    static Stream<Arguments> sequences() {
        return AttentionTest.sequences();
    }

    /** @param loss of which the gradients are: sum(output · factors) */
    record Expected(Tensor query, Tensor key, Tensor value) {
        static Expected of(Inputs inputs, Tensor factors, TokenMask mask) {
            Inputs leaves = new Inputs(leaf(inputs.query()), leaf(inputs.key()), leaf(inputs.value()));
            Tensor output = AttentionTest.softmax(leaves, mask);
            output.mul(factors.to(torch.ScalarType.Double).flatten(1, 2)).sum().backward();
            return new Expected(
                    leaves.query().grad(), leaves.key().grad(), leaves.value().grad());
        }

        private static Tensor leaf(Tensor tensor) {
            return tensor.to(torch.ScalarType.Double).clone().set_requires_grad(true);
        }
    }

    static void assertGradients(Gradients gradients, Expected expected, double limit) {
        // A single token sees itself alone: then the gradients of scores are zero, and what is left is rounding.
        boolean alone = expected.query.norm().item_double() < 1e-12;
        assertThat(difference(gradients.query(), expected.query, alone)).isLessThan(limit);
        assertThat(difference(gradients.key(), expected.key, alone)).isLessThan(limit);
        assertThat(Golden.relativeL2(gradients.value(), expected.value)).isLessThan(limit);
    }

    private static double difference(Tensor a, Tensor b, boolean absolute) {
        return absolute ? Golden.maxAbsoluteDifference(a, b) : Golden.relativeL2(a, b);
    }

    @ParameterizedTest
    @MethodSource("sequences")
    void denseHasThemInChunksOfAnySize(int text, int width, int height, AttentionWindow window, int headDim) {
        TokenLayout layout = TokenLayout.raster(text, width, height, window.ratio());
        try (TokenMask mask = new TokenMask(layout, window, Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(layout.tokens(), 2, headDim, torch.ScalarType.Double);
                Tensor factors = torch.randn_like(inputs.query());
                Expected expected = Expected.of(inputs, factors, mask);
                for (long chunk : new long[] {30L * layout.tokens(), 1L << 26}) {
                    DenseAttention attention = new DenseAttention(mask, chunk);
                    Attended attended = attention.attendForGradients(inputs.query(), inputs.key(), inputs.value());
                    assertThat(Golden.relativeL2(attended.output().flatten(1, 2), AttentionTest.softmax(inputs, mask)))
                            .isLessThan(1e-12);
                    assertGradients(
                            attention.gradients(inputs.query(), inputs.key(), inputs.value(), attended, factors),
                            expected,
                            1e-10);
                }
            });
        }
    }

    @ParameterizedTest
    @MethodSource("sequences")
    void nativeHasThem(int text, int width, int height, AttentionWindow window, int headDim) {
        assertNative(text, width, height, window, headDim, torch.ScalarType.Float, 1e-5);
    }

    @ParameterizedTest
    @MethodSource("sequences")
    void nativeHasThemInBfloat16(int text, int width, int height, AttentionWindow window, int headDim) {
        assertNative(text, width, height, window, headDim, torch.ScalarType.BFloat16, 1.5e-2);
    }

    private static void assertNative(
            int text,
            int width,
            int height,
            AttentionWindow window,
            int headDim,
            torch.ScalarType dtype,
            double limit) {
        try (Geometry geometry = Geometry.windowed(text, width, height, window);
                TokenMask mask = new TokenMask(geometry.layout(), window, Placement.FLOAT32_CPU);
                NativeAttention attention = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
            Tensors.run(() -> {
                for (int round = 0; round < 2; round++) { // the second one finds a used workspace
                    Inputs inputs = Inputs.random(geometry.layout().tokens(), 2, headDim, dtype);
                    Tensor factors = torch.randn_like(inputs.query());
                    Attended attended = attention.attendForGradients(inputs.query(), inputs.key(), inputs.value());
                    assertGradients(
                            attention.gradients(inputs.query(), inputs.key(), inputs.value(), attended, factors),
                            Expected.of(inputs, factors, mask),
                            limit);
                }
            });
        }
    }

    @Test
    void autogradPassesThroughIt() {
        try (Geometry geometry = Geometry.windowed(9, 20, 13, AttentionWindow.DEFAULT);
                TokenMask mask = new TokenMask(geometry.layout(), AttentionWindow.DEFAULT, Placement.FLOAT32_CPU);
                NativeAttention core = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(geometry.layout().tokens(), 2, 64, torch.ScalarType.Float);
                Tensor factors = torch.randn_like(inputs.query());
                Expected expected = Expected.of(inputs, factors, mask);
                Tensor query = inputs.query().set_requires_grad(true);
                Tensor key = inputs.key().set_requires_grad(true);
                Tensor value = inputs.value().set_requires_grad(true);
                for (int round = 0; round < 20; round++) { // more hooks than the presets hand out at a time
                    try (AutogradAttention attention = new AutogradAttention(core)) {
                        Tensor output = attention.attend(query, key, value);
                        assertThat(output.equal(core.attend(query, key, value))).isTrue();
                        output.mul(factors.flatten(1, 2)).sum().backward();
                    }
                    assertGradients(new Gradients(query.grad(), key.grad(), value.grad()), expected, 1e-5);
                    query.mutable_grad().zero_();
                    key.mutable_grad().zero_();
                    value.mutable_grad().zero_();
                }
            });
        }
    }

    @Test
    void whatDoesNotFitIsNamed() {
        try (Geometry geometry = Geometry.windowed(1, 8, 8, AttentionWindow.DEFAULT);
                NativeAttention attention = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
            Tensors.run(() -> {
                Tensor right = torch.zeros(new long[] {69, 2, 64}, Placement.FLOAT32_CPU.options());
                Attended attended = attention.attendForGradients(right, right, right);
                assertThatThrownBy(() -> attention.gradients(right, right, right, attended, right.narrow(0, 0, 68)))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(
                                "output gradient has shape [68, 128], expected [tokens, heads * head_dim] = [69, 128]");
                Attended without = new Attended(attended.output(), torch.zeros(2, 68));
                assertThatThrownBy(() -> attention.gradients(right, right, right, without, right))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(
                                "log-sum-exp has shape [2, 68] of Float, expected [heads, tokens] = [2, 69] of Float"
                                        + " without gaps");
                assertThatThrownBy(() ->
                                attention.gradients(right, right, right, attended, right.to(torch.ScalarType.BFloat16)))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage("output_gradient.dtype is 1, expected 0 as for query");
            });
        }
    }
}
