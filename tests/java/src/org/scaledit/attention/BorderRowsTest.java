package org.scaledit.attention;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** Keys and values that ranks give each other are those of the tokens that are named. */
class BorderRowsTest {
    private static final int TOKENS = 300;

    @Test
    void floatsStayAsTheyAre() {
        assertGiven(BorderRows.EXACT, Placement.FLOAT32_CPU, 3, 128, 200, 0);
    }

    @Tag("gpu")
    @ParameterizedTest
    @CsvSource({"12, 128, 200", "1, 64, 7", "24, 128, 1", "3, 64, 0"})
    void aGpusBecomeInt8(int heads, int headDim, int rows) {
        CudaAttention.requireGpu();
        assertGiven(BorderRows.EXACT, Gpu.BFLOAT16, heads, headDim, rows, 0);
        assertGiven(BorderRows.INT8, Gpu.BFLOAT16, heads, headDim, rows, 7e-3);
        Tensors.run(() -> {
            Tensor keys = torch.empty(new long[] {TOKENS, heads, headDim}, Gpu.BFLOAT16.options(), null);
            assertThat(BorderRows.INT8.room(rows, keys).nbytes())
                    .isEqualTo(BorderRows.EXACT.room(rows, keys).nbytes() * 17 / 32);
        });
    }

    /** From a projection into the last rows of another. */
    private static void assertGiven(
            BorderRows how, Placement placement, int heads, int headDim, int rows, double lossBelow) {
        Tensors.run(() -> {
            Tensor from = projection(placement, heads, headDim);
            Tensor to = projection(placement, heads, headDim);
            Tensor before = to.clone();
            long[] numbers = new long[rows];
            for (int row = 0; row < rows; row++) {
                numbers[row] = row * 7L % TOKENS;
            }
            Tensor tokens = placement.with(torch.ScalarType.Long).place(Tensors.of(numbers, rows));
            Tensor given = how.room(rows, from.select(1, 1));
            how.give(from.select(1, 1), from.select(1, 2), tokens, given);
            Tensor imported = to.narrow(0, TOKENS - rows, rows);
            how.take(given, imported.select(1, 1), imported.select(1, 2));

            for (int part = 1; part <= 2 && rows > 0; part++) {
                assertThat(Golden.relativeL2(
                                imported.select(1, part), from.select(1, part).index_select(0, tokens)))
                        .isLessThanOrEqualTo(lossBelow);
            }
            assertThat(to.select(1, 0).equal(before.select(1, 0)))
                    .as("queries are left alone")
                    .isTrue();
            assertThat(to.narrow(0, 0, TOKENS - rows).equal(before.narrow(0, 0, TOKENS - rows)))
                    .as("own rows are left alone")
                    .isTrue();
        });
    }

    /** Queries, keys and values as a group of heads leaves them. */
    private static Tensor projection(Placement placement, int heads, int headDim) {
        return placement.place(torch.randn(TOKENS, 3, heads, headDim));
    }

    @Tag("gpu")
    @Test
    void headsThatAreNotSideBySideAreRefused() {
        CudaAttention.requireGpu();
        Tensors.run(() -> {
            Tensor keys = projection(Gpu.BFLOAT16, 4, 64).select(1, 1);
            Tensor apart = keys.transpose(0, 1).contiguous().transpose(0, 1);
            Tensor given = BorderRows.INT8.room(2, keys);
            Tensor tokens = Gpu.BFLOAT16.with(torch.ScalarType.Long).place(Tensors.of(new long[] {5, 6}, 2));
            assertThatThrownBy(() -> BorderRows.INT8.give(apart, keys, tokens, given))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("key of shape [300, 4, 64] has strides 19200 and 1 in a token, expected 64 and 1");
        });
    }
}
