package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** The core's token-wise work against torch's in float32. */
@Tag("gpu")
class TokenWiseGpuTest {
    /** Rounding to bfloat16: at most 2⁻⁹ of a number. */
    private static final double BFLOAT16_LIMIT = 2e-3;

    /**
     * Of codes to those that torch gives. Few numbers lie on the border of two of them; but in a row whose largest is 3.5,
     * and 448 a whole multiple of it, a sixteenth of those in bfloat16 does.
     */
    private static final double CODES_LIMIT = 1e-2;

    private static final double FP8_LEAST = 1.5e-2;
    private static final double FP8_MOST = 3.5e-2;

    /** Of a product to that of the numbers which its codes stand for: fast accumulation, and rounding to bfloat16. */
    private static final double PRODUCT_LIMIT = 8e-3;

    private static final TokenWise TORCH = new TorchTokenWise();
    private static final int GATE = 2;
    private static final int SHIFT = 3;
    private static final int SCALE = 4;

    @BeforeAll
    static void requireGpu() {
        CudaAttention.requireGpu();
        MatrixProduct.requireFp8(1);
    }

    @BeforeEach
    void seed() {
        torch.manual_seed(9);
    }

    /**
     * Tokens, what is to be added to them, and their modulation.
     *
     * @param state [4 + rows + 4, width]: hidden, and rows around it that must stay as they are
     */
    private record Tokens(Tensor state, Tensor hidden, Tensor update, Modulation modulation) {
        static Tokens random(long rows, long guidanceRows, long width) {
            Tensor state = normal(4 + rows + 4, width).mul(new Scalar(3)).add(new Scalar(1));
            return new Tokens(
                    state,
                    state.narrow(0, 4, rows),
                    normal(rows, width),
                    new Modulation(normal(2, 6 * width), width, guidanceRows));
        }

        /** The same numbers in memory of their own, in float32. */
        Tokens inFloat32() {
            Tensor wide = Tensors.toFloat32(state);
            return new Tokens(
                    wide,
                    wide.narrow(0, 4, hidden.size(0)),
                    Tensors.toFloat32(update),
                    new Modulation(
                            Tensors.toFloat32(modulation.parts()), modulation.width(), modulation.guidanceRows()));
        }
    }

    private static Tensor normal(long... shape) {
        return torch.randn(shape, Gpu.BFLOAT16.options());
    }

    @ParameterizedTest
    @CsvSource({"1, 0, 3072", "131, 0, 3072", "131, 17, 3072", "131, 131, 3072", "77, 5, 264"})
    void tokensAreNormedAndModulated(long rows, long guidanceRows, long width) {
        Tensors.run(() -> {
            Tokens tokens = Tokens.random(rows, guidanceRows, width);
            Tokens wide = tokens.inFloat32();
            Tensor expected =
                    TORCH.modulated(wide.hidden, wide.modulation, SHIFT, SCALE).values();
            Matrix plain = CudaTokenWise.BFLOAT16.modulated(tokens.hidden, tokens.modulation, SHIFT, SCALE);
            assertThat(plain.isQuantised()).isFalse();
            assertThat(Golden.relativeL2(plain.values(), expected)).isLessThan(BFLOAT16_LIMIT);
            assertQuantised(CudaTokenWise.FP8.modulated(tokens.hidden, tokens.modulation, SHIFT, SCALE), expected);
            assertThat(Tensors.toFloat32(tokens.state).equal(wide.state)).isTrue();
        });
    }

    @ParameterizedTest
    @CsvSource({"1, 1, 3072", "131, 0, 3072", "131, 17, 3072", "131, 131, 3072", "77, 5, 264"})
    void anUpdateIsAddedUnderItsGate(long rows, long guidanceRows, long width) {
        Tensors.run(() -> {
            Tokens tokens = Tokens.random(rows, guidanceRows, width);
            Tokens wide = tokens.inFloat32();
            TORCH.addGated(wide.hidden, wide.update, wide.modulation, GATE);
            CudaTokenWise.BFLOAT16.addGated(tokens.hidden, tokens.update, tokens.modulation, GATE);
            assertThat(Golden.relativeL2(tokens.hidden, wide.hidden)).isLessThan(BFLOAT16_LIMIT);
            for (long first : new long[] {0, 4 + rows}) {
                assertThat(Tensors.toFloat32(tokens.state.narrow(0, first, 4)).equal(wide.state.narrow(0, first, 4)))
                        .isTrue();
            }
        });
    }

    /** Both calls in one give the bits of the two. */
    @ParameterizedTest
    @CsvSource({"131, 0, 3072", "131, 17, 3072", "77, 5, 264"})
    void theSumIsNormedAsItIsKept(long rows, long guidanceRows, long width) {
        Tensors.run(() -> {
            for (CudaTokenWise tokenWise : CudaTokenWise.values()) {
                Tokens tokens = Tokens.random(rows, guidanceRows, width);
                Tensor sum = tokens.hidden.clone();
                tokenWise.addGated(sum, tokens.update, tokens.modulation, GATE);
                Matrix expected = tokenWise.modulated(sum, tokens.modulation, SHIFT, SCALE);
                Matrix normed = tokenWise.addedAndModulated(
                        tokens.hidden, tokens.update, tokens.modulation, GATE, SHIFT, SCALE);
                assertThat(tokens.hidden.equal(sum)).isTrue();
                assertThat(normed.plain(torch.ScalarType.Float).equal(expected.plain(torch.ScalarType.Float)))
                        .isTrue();
            }
        });
    }

    @Test
    void attentionsOutputIsQuantised() {
        Tensors.run(() -> {
            Tensor attended = normal(300, 3072).narrow(0, 100, 131);
            assertQuantised(CudaTokenWise.FP8.attended(attended), Tensors.toFloat32(attended));
        });
    }

    /** An MLP's hidden layer by itself, and beside attention's output as a single block's last product takes it. */
    @Test
    void geluIsQuantisedAlsoBesideAttentionsOutput() {
        Tensors.run(() -> {
            Linear mlpIn = linear(256, 1024);
            Matrix x = Matrix.quantised(normal(131, 256));
            Tensor attended = normal(131, 256);
            Tensor wide = torch.gelu(Tensors.toFloat32(mlpIn.forward(x, 17)), "tanh");
            assertQuantised(CudaTokenWise.FP8.gelu(mlpIn, x, 17), wide);

            List<Matrix> joined = CudaTokenWise.FP8.joined(attended, mlpIn, x, 17);
            assertThat(joined).hasSize(1);
            Matrix row = joined.get(0);
            assertQuantised(row, Tensors.concatenate(1, Tensors.toFloat32(attended), wide));

            Tensor numbers = row.plain(torch.ScalarType.Double);
            Linear output = linear(1280, 256);
            Tensor expected = torch.linear(
                    numbers,
                    output.weight().plain(torch.ScalarType.Double),
                    Tensors.optional(output.bias().to(torch.ScalarType.Double)));
            assertThat(Golden.relativeL2(output.forward(joined, 17), expected)).isLessThan(PRODUCT_LIMIT);

            Linear.LowRank lora = new Linear.LowRank(normal(4, 1280).mul(new Scalar(0.03)), normal(256, 4), 1, true, 0);
            Tensor ofLora = numbers.narrow(0, 131 - 17, 17)
                    .matmul(lora.down().to(torch.ScalarType.Double).t())
                    .matmul(lora.up().to(torch.ScalarType.Double).t());
            Tensor withLora = new Linear(output.weight(), output.bias(), List.of(lora)).forward(joined, 17);
            Tensor added = expected.clone();
            added.narrow(0, 131 - 17, 17).add_(ofLora);
            assertThat(Golden.relativeL2(withLora, added)).isLessThan(PRODUCT_LIMIT);
        });
    }

    /** In FP8, with outputs as large as its inputs. */
    private static Linear linear(long in, long out) {
        Tensor weight = Tensors.toFloat32(normal(out, in)).mul(new Scalar(1 / Math.sqrt(in)));
        return new Linear(Matrix.quantised(weight), normal(out), List.of());
    }

    /** In e4m3, with the codes that torch gives to what it has in float32. */
    private static void assertQuantised(Matrix matrix, Tensor expected) {
        assertThat(matrix.values().scalar_type().intern()).isEqualTo(torch.ScalarType.Float8_e4m3fn);
        assertThat(matrix.scales().orElseThrow().shape()).containsExactly(expected.size(0), 1);
        Tensor plain = matrix.plain(torch.ScalarType.Float);
        assertThat(Golden.relativeL2(plain, expected)).isBetween(FP8_LEAST, FP8_MOST);
        Tensor ofTorch = Matrix.quantised(expected).plain(torch.ScalarType.Float);
        assertThat(Golden.relativeL2(plain, ofTorch)).isLessThan(CODES_LIMIT);
    }
}
