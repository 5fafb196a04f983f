package org.scaledit.attention;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Optional;
import java.util.function.Function;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.AttentionWindow.GuidanceAttention;
import org.scaledit.attention.NativeAttention.Arithmetic;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** Dense and native attention against softmax written out in float64. */
class AttentionTest {
    private static final AttentionWindow LOCAL = new AttentionWindow(2, 32, 0, 1, GuidanceAttention.LOCAL, false);

    @BeforeEach
    void seed() {
        torch.manual_seed(20);
    }

    /** Text tokens, width, height, window, head size. */
    static Stream<Arguments> sequences() {
        return Stream.of(
                Arguments.of(0, 1, 1, AttentionWindow.DEFAULT, 64),
                Arguments.of(3, 7, 5, AttentionWindow.DEFAULT, 128),
                Arguments.of(77, 37, 29, AttentionWindow.DEFAULT, 128),
                Arguments.of(65, 33, 18, LOCAL, 64));
    }

    @ParameterizedTest
    @MethodSource("sequences")
    void denseIsSoftmaxUnderTheMaskInChunksOfAnySize(
            int text, int width, int height, AttentionWindow window, int headDim) {
        TokenLayout layout = TokenLayout.raster(text, width, height, window.ratio());
        try (TokenMask mask = new TokenMask(layout, window, Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(layout.tokens(), 2, headDim, torch.ScalarType.Float);
                Tensor expected = softmax(inputs, mask);
                for (long chunk : new long[] {9L * layout.tokens(), 1L << 26}) {
                    Tensor attended = new DenseAttention(mask, chunk).attend(inputs.query, inputs.key, inputs.value);
                    assertThat(Golden.relativeL2(attended, expected)).isLessThan(1e-6);
                }
            });
        }
    }

    @ParameterizedTest
    @MethodSource("sequences")
    void nativeFloat32IsSoftmaxUnderTheMask(int text, int width, int height, AttentionWindow window, int headDim) {
        assertNative(text, width, height, window, headDim, Arithmetic.FLOAT32, torch.ScalarType.Float, 1e-5);
    }

    @ParameterizedTest
    @MethodSource("sequences")
    void nativeFloat32TakesBfloat16(int text, int width, int height, AttentionWindow window, int headDim) {
        assertNative(text, width, height, window, headDim, Arithmetic.FLOAT32, torch.ScalarType.BFloat16, 4e-3);
    }

    @ParameterizedTest
    @MethodSource("sequences")
    void nativeInt8IsSoftmaxUnderTheMask(int text, int width, int height, AttentionWindow window, int headDim) {
        assertNative(text, width, height, window, headDim, Arithmetic.INT8, torch.ScalarType.Float, 2e-2);
    }

    private static void assertNative(
            int text,
            int width,
            int height,
            AttentionWindow window,
            int headDim,
            Arithmetic arithmetic,
            torch.ScalarType dtype,
            double limit) {
        try (Geometry geometry = Geometry.windowed(text, width, height, window);
                TokenMask mask = new TokenMask(geometry.layout(), window, Placement.FLOAT32_CPU);
                NativeAttention attention = new NativeAttention(geometry, arithmetic)) {
            Tensors.run(() -> {
                for (int round = 0; round < 2; round++) { // the second one finds a used workspace
                    Inputs inputs = Inputs.random(geometry.layout().tokens(), 2, headDim, dtype);
                    Tensor attended = attention.attend(inputs.query, inputs.key, inputs.value);
                    assertThat(attended.scalar_type().intern()).isEqualTo(dtype);
                    assertThat(attended.is_contiguous()).isTrue();
                    assertThat(Golden.relativeL2(attended, softmax(inputs, mask)))
                            .isLessThan(limit);
                }
            });
        }
    }

    @Test
    void fullAttentionIsTheSameDenseAndNative() {
        try (Geometry geometry = Geometry.full(19, 21, 10);
                NativeAttention attention = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
            int tokens = geometry.layout().tokens();
            assertThat(tokens).isEqualTo(19 + 210);
            assertThat(geometry.layout().guidanceTokens()).isZero();
            assertThat(geometry.pairs()).isEqualTo((long) tokens * tokens);
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(tokens, 3, 64, torch.ScalarType.Float);
                Tensor dense = DenseAttention.full().attend(inputs.query, inputs.key, inputs.value);
                Tensor sparse = attention.attend(inputs.query, inputs.key, inputs.value);
                assertThat(Golden.relativeL2(sparse, dense)).isLessThan(1e-5);
            });
        }
    }

    @Test
    void nativeTakesViewsOfAFusedProjection() {
        try (Geometry geometry = Geometry.windowed(9, 20, 13, AttentionWindow.DEFAULT);
                NativeAttention attention = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
            Tensors.run(() -> {
                long tokens = geometry.layout().tokens();
                Tensor fused = torch.randn(new long[] {tokens, 3, 2, 64}, Placement.FLOAT32_CPU.options());
                Tensor query = fused.select(1, 0);
                Tensor key = fused.select(1, 1);
                Tensor value = fused.select(1, 2).transpose(0, 1).contiguous().transpose(0, 1); // heads outermost
                Tensor before = fused.clone();
                Tensor strided = attention.attend(query, key, value);
                Tensor plain = attention.attend(query.contiguous(), key.contiguous(), value.contiguous());
                assertThat(strided.equal(plain)).isTrue();
                assertThat(fused.equal(before)).isTrue();
            });
        }
    }

    @Test
    void tensorsThatDoNotFitAreNamed() {
        try (Geometry geometry = Geometry.windowed(1, 8, 8, AttentionWindow.DEFAULT);
                NativeAttention attention = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
            Tensors.run(() -> {
                Tensor right = torch.zeros(new long[] {69, 2, 64}, Placement.FLOAT32_CPU.options());
                Tensor shorter = right.narrow(0, 0, 68);
                assertThatThrownBy(() -> attention.attend(right, shorter, right))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage("key has shape [68, 2, 64], expected [tokens, heads, head_dim] = [69, 2, 64]");
                assertThatThrownBy(() -> attention.attend(right, right, right.to(torch.ScalarType.Double)))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage("value is Double, expected Float or BFloat16");
                Tensor turned = torch.zeros(new long[] {69, 64, 2}, Placement.FLOAT32_CPU.options())
                        .transpose(1, 2);
                assertThatThrownBy(() -> attention.attend(turned, right, right))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage(
                                "query lies on the CPU with stride 2 along head_dim, expected the CPU and stride 1");
                Tensor odd = torch.zeros(new long[] {69, 2, 65}, Placement.FLOAT32_CPU.options());
                assertThatThrownBy(() -> attention.attend(odd, odd, odd))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageContaining("head_dim")
                        .hasMessageContaining("65");
            });
        }
    }

    @Test
    void sizesThatTheCoreDoesNotTakeAreNamed() {
        assertThatThrownBy(() -> Geometry.windowed(1, 0, 8, AttentionWindow.DEFAULT))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("image_width");
        assertThatThrownBy(() -> Geometry.full(1, 8, 4097))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("image_height")
                .hasMessageContaining("4097");
        assertThatThrownBy(() -> new AttentionWindow(3, 16, 1, 3, GuidanceAttention.GLOBAL, true))
                .hasMessage("ratio is 3, expected 0, 1, 2, 4 or 8");
        assertThatThrownBy(() -> new AttentionWindow(4, 48, 1, 3, GuidanceAttention.GLOBAL, true))
                .hasMessage("window is 48, expected 16, 32 or 64");
        assertThatThrownBy(() -> new AttentionWindow(4, 16, -1, 3, GuidanceAttention.GLOBAL, true))
                .hasMessage("reach is -1, expected 0 or more");
        assertThatThrownBy(() -> new AttentionWindow(4, 16, 1, -1, GuidanceAttention.GLOBAL, true))
                .hasMessage("guidance margin is -1, expected 0 or more");
    }

    @Test
    void arrangingAndRestoringIsNoChange() {
        try (Geometry geometry = Geometry.windowed(4, 37, 29, AttentionWindow.DEFAULT)) {
            TokenLayout layout = geometry.layout();
            assertThat(layout.guidanceWidth()).isEqualTo(10);
            assertThat(layout.guidanceHeight()).isEqualTo(8);
            Tensors.run(() -> {
                Tensor image = torch.randn(new long[] {37 * 29, 3}, Placement.FLOAT32_CPU.options());
                Tensor arranged = layout.arrangeImage(image);
                assertThat(layout.restoreImage(arranged).equal(image)).isTrue();
                assertThat(arranged.equal(image)).isFalse();
                for (int p : new int[] {0, 100, 1072}) {
                    Tensor token = image.select(0, layout.imageRow(p) * 37L + layout.imageColumn(p));
                    assertThat(arranged.select(0, p).equal(token)).isTrue();
                }
                Tensor guidance = torch.randn(new long[] {80, 3}, Placement.FLOAT32_CPU.options());
                Tensor arrangedGuidance = layout.arrangeGuidance(guidance);
                for (int p : new int[] {0, 13, 79}) {
                    Tensor token = guidance.select(0, layout.guidanceRow(p) * 10L + layout.guidanceColumn(p));
                    assertThat(arrangedGuidance.select(0, p).equal(token)).isTrue();
                }
                assertThatThrownBy(() -> layout.arrangeImage(guidance))
                        .hasMessage("tokens have shape [80, 3], expected [1073, channels]");
            });
        }
    }

    @Test
    void projectionsAreNormedAndRotatedOnTheWayIntoAnyColumns() {
        TokenLayout layout = TokenLayout.raster(9, 20, 13, 4);
        try (Geometry geometry = Geometry.windowed(9, 20, 13, AttentionWindow.DEFAULT);
                NativeAttention attention = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
            Tensors.run(() -> {
                Inputs inputs = Inputs.random(layout.tokens(), 2, 64, torch.ScalarType.Float);
                Preparation preparation = preparation(layout.tokens(), 9, 64, Placement.FLOAT32_CPU);
                Tensor query = written(inputs.query, preparation, Preparation.Norms::query);
                Tensor key = written(inputs.key, preparation, Preparation.Norms::key);
                assertThat(Golden.relativeL2(preparation.query(inputs.query), query))
                        .isLessThan(1e-6);
                Tensor expected = attention.attend(query, key, inputs.value);
                Tensor wide = torch.zeros(layout.tokens(), 200);
                attention.attend(inputs.query, inputs.key, inputs.value, preparation, wide.narrow(1, 64, 128));
                assertThat(Golden.relativeL2(wide.narrow(1, 64, 128), expected)).isLessThan(1e-5);
                assertThat(wide.narrow(1, 0, 64).abs().max().item_float()).isZero();
                assertThat(wide.narrow(1, 192, 8).abs().max().item_float()).isZero();
                assertThatThrownBy(() -> attention.attend(inputs.query, inputs.key, inputs.value, preparation, wide))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage("output has shape [" + layout.tokens()
                                + ", 200], expected [tokens, heads * head_dim] = [" + layout.tokens() + ", 128]");
                Tensor spread = torch.zeros(128, layout.tokens()).t();
                assertThatThrownBy(() -> attention.attend(inputs.query, inputs.key, inputs.value, preparation, spread))
                        .hasMessage("output lies on the CPU with stride " + layout.tokens()
                                + " along head_dim, expected the CPU and stride 1");
                Tensor exact = torch.zeros(layout.tokens(), 128).to(torch.ScalarType.Double);
                assertThatThrownBy(() -> attention.attend(inputs.query, inputs.key, inputs.value, preparation, exact))
                        .hasMessage("output is Double, expected Float or BFloat16");
            });
        }
    }

    /** On a CPU some at a time, of text and of other tokens apart; those of a batch all at once. */
    @ParameterizedTest
    @ValueSource(longs = {0, 1, 3000, 5000})
    void howManyArePreparedAtATimeChangesNothing(long textTokens) {
        Tensors.run(() -> {
            Tensor fused = torch.randn(5000, 3, 2, 64); // queries, keys and values of each token side by side
            Tensor query = fused.select(1, 0);
            Preparation preparation = preparation(5000, textTokens, 64, Placement.FLOAT32_CPU);
            Tensor prepared = preparation.query(query);
            assertThat(Golden.relativeL2(prepared, written(query, preparation, Preparation.Norms::query)))
                    .isLessThan(1e-6);
            assertThat(Golden.relativeL2(
                            prepared, preparation.query(query.unsqueeze(0)).squeeze(0)))
                    .isLessThan(1e-6);
        });
    }

    @Test
    void aRotationOfAnotherSequenceIsRefused() {
        Tensors.run(() -> {
            Tensor angles = torch.randn(5, 1, 8);
            Tensor turns = torch.polar(torch.ones_like(angles), angles);
            Preparation.requireTurns(turns, 5, 16);
            assertThatThrownBy(() -> Preparation.requireTurns(turns, 6, 16))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "rotation has shape [5, 1, 8] of ComplexFloat, expected [6, 1, 8] of ComplexFloat without gaps");
            assertThatThrownBy(() -> Preparation.requireTurns(turns.narrow(2, 0, 4), 5, 8))
                    .hasMessage(
                            "rotation has shape [5, 1, 4] of ComplexFloat, expected [5, 1, 4] of ComplexFloat without gaps");
            assertThatThrownBy(() -> Preparation.requireTurns(angles, 5, 16))
                    .hasMessage(
                            "rotation has shape [5, 1, 8] of Float, expected [5, 1, 8] of ComplexFloat without gaps");
        });
    }

    @Test
    void scalesOfOtherHeadsAreRefused() {
        Tensors.run(() -> {
            Tensor angles = torch.randn(5, 1, 8);
            Tensor turns = torch.polar(torch.ones_like(angles), angles);
            Tensor fits = torch.ones(16).to(torch.ScalarType.BFloat16);
            Tensor shorter = fits.narrow(0, 0, 15);
            Preparation.Norms norms = new Preparation.Norms(fits, fits);
            new Preparation(norms, Optional.empty(), 0, turns).requireFor(5, 16);
            String message = "norm has shape [15] of BFloat16, expected [16] of BFloat16 without gaps";
            assertThatThrownBy(() -> new Preparation(new Preparation.Norms(fits, shorter), Optional.empty(), 0, turns)
                            .requireFor(5, 16))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(message);
            assertThatThrownBy(() -> new Preparation(norms, Optional.of(new Preparation.Norms(shorter, fits)), 2, turns)
                            .requireFor(5, 16))
                    .hasMessage(message);
        });
    }

    /** Random scales and angles. */
    static Preparation preparation(long tokens, long textTokens, long headDim, Placement placement) {
        Tensor angles = torch.randn(tokens, 1, headDim / 2).mul_(new Scalar(3));
        Tensor turns = torch.polar(torch.ones_like(angles), angles);
        return new Preparation(
                norms(headDim, placement),
                Optional.of(norms(headDim, placement)),
                textTokens,
                turns.to(placement.device(), torch.ScalarType.ComplexFloat));
    }

    private static Preparation.Norms norms(long headDim, Placement placement) {
        return new Preparation.Norms(
                placement.place(torch.rand(headDim).add_(new Scalar(0.5))),
                placement.place(torch.rand(headDim).add_(new Scalar(0.5))));
    }

    /** Norm and rotation written out in float64: [tokens, heads, head_dim] → the same, float32 */
    static Tensor written(Tensor x, Preparation preparation, Function<Preparation.Norms, Tensor> scale) {
        Tensor wide = x.to(torch.ScalarType.Double);
        Tensor root = wide.square()
                .mean(new long[] {2}, true, new ScalarTypeOptional())
                .add_(new Scalar(1e-6))
                .sqrt_();
        Tensor normed = wide.div(root);
        long text = preparation.textTokens();
        normed.narrow(0, 0, text).mul_(scale.apply(preparation.textNorms().orElseThrow()));
        normed.narrow(0, text, x.size(0) - text).mul_(scale.apply(preparation.norms()));
        Tensor turns = torch.view_as_real(preparation.turns()); // [tokens, 1, head_dim / 2, 2]
        Tensor cosine = turns.select(3, 0);
        Tensor sine = turns.select(3, 1);
        Tensor pairs = normed.unflatten(2, -1, 2);
        Tensor first = pairs.select(3, 0);
        Tensor second = pairs.select(3, 1);
        TensorVector turned = new TensorVector(
                first.mul(cosine).sub(second.mul(sine)), first.mul(sine).add(second.mul(cosine)));
        return Tensors.toFloat32(torch.stack(turned, 3).flatten(2, 3));
    }

    /** [tokens, heads, head_dim] each; the key with a bias, as models have it. */
    record Inputs(Tensor query, Tensor key, Tensor value) {
        static Inputs random(long tokens, long heads, long headDim, torch.ScalarType dtype) {
            long[] shape = {tokens, heads, headDim};
            Tensor bias = torch.randn(new long[] {1, heads, headDim}).mul_(new Scalar(2));
            return new Inputs(
                    torch.randn(shape).to(dtype),
                    torch.randn(shape).add_(bias).to(dtype),
                    torch.randn(shape).to(dtype));
        }
    }

    /** Softmax under the mask in float64 → [tokens, heads * head_dim] */
    static Tensor softmax(Inputs inputs, TokenMask mask) {
        Tensor query = inputs.query.to(torch.ScalarType.Double).transpose(0, 1); // [heads, tokens, head_dim]
        Tensor key = inputs.key.to(torch.ScalarType.Double).transpose(0, 1);
        Tensor value = inputs.value.to(torch.ScalarType.Double).transpose(0, 1);
        Tensor unseen = mask.rows(0, query.size(1)).logical_not();
        Tensor scores = query.matmul(key.transpose(1, 2)).div_(new Scalar(Math.sqrt(query.size(2))));
        Tensor weights =
                scores.masked_fill(unseen, new Scalar(Double.NEGATIVE_INFINITY)).softmax(-1);
        return weights.matmul(value).transpose(0, 1).flatten(1, 2);
    }

    @Test
    void headsThatTheCoreIsNotMadeForAreRefused() {
        NativeAttention.requireHeadDim(64);
        NativeAttention.requireHeadDim(128);
        assertThatThrownBy(() -> NativeAttention.requireHeadDim(32))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "attention_head_dim of the transformer is 32, expected 64 or 128, which the native core is made for,"
                                + " or attention dense");
    }

    /** 215 x 215 cells of image, 54 x 54 of guidance: at most 46,340 with text. */
    @Test
    void aMaskOfMoreCellsThanAnArrayHasIsRefused() {
        DenseAttention.requireMask(215 * 8, 215 * 8, 0);
        assertThatThrownBy(() -> DenseAttention.requireMask(215 * 8 + 1, 215 * 8, 0))
                .hasMessageContaining("46441 cells");
        assertThatThrownBy(() -> DenseAttention.requireMask(215 * 8, 215 * 8, 4))
                .hasMessageContaining("49142 cells");
    }
}
