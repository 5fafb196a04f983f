package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class ChunkTest {
    private static final int WIDTH = 24;

    @ParameterizedTest
    @CsvSource({"10, 3", "10, 0", "10, 10", "7, 4", "4, 4", "1, 1"})
    void chunksCoverAStreamAndKnowTheirGuidanceRows(long rows, long guidanceRows) {
        Tensors.run(() -> {
            Modulation modulation = new Modulation(torch.zeros(2, WIDTH), WIDTH, guidanceRows);
            List<Long> guidance = new ArrayList<>();
            Chunk.forEach(rows, 4, modulation, chunk -> {
                assertThat(chunk.guidanceRows()).isIn(0L, chunk.rows());
                for (long row = 0; row < chunk.rows(); row++) {
                    guidance.add(chunk.guidanceRows() == 0 ? 0L : 1L);
                }
                assertThat(chunk.rows()).isBetween(1L, 4L);
                assertThat(chunk.of(torch.arange(new Scalar(rows))).select(0, 0).item_long())
                        .isEqualTo(chunk.first());
            });
            assertThat(guidance).hasSize((int) rows);
            assertThat(guidance.stream().mapToLong(Long::longValue).sum()).isEqualTo(guidanceRows);
            assertThat(guidance).isSorted();
        });
    }

    /** Written out: norm, then (1 + scale) and shift of each stream; and the gate. */
    @Test
    void tokenWiseWorkIsThatOfEachStream() {
        Tensors.run(() -> {
            torch.manual_seed(5);
            Tensor hidden = torch.randn(9, WIDTH).mul_(new Scalar(3)).add_(new Scalar(1));
            Modulation modulation = new Modulation(torch.randn(2, 3 * WIDTH), WIDTH, 4);
            TokenWise tokenWise = new TorchTokenWise();
            Tensor y = tokenWise.modulated(hidden, modulation, 0, 1).values();
            Tensor gated = hidden.clone();
            tokenWise.addGated(gated, y, modulation, 2);
            for (int row = 0; row < 9; row++) {
                int stream = row < 5 ? 0 : 1;
                Tensor x = hidden.select(0, row);
                Tensor centred = x.sub(x.mean());
                Tensor normed = centred.div(
                        centred.square().mean().add_(new Scalar(1e-6)).sqrt_());
                Tensor expected = normed.mul(modulation.part(1, stream).add(new Scalar(1)))
                        .add_(modulation.part(0, stream));
                assertThat(Golden.relativeL2(y.select(0, row), expected)).isLessThan(1e-6);
                assertThat(Golden.relativeL2(gated.select(0, row), x.add(expected.mul(modulation.part(2, stream)))))
                        .isLessThan(1e-6);
            }
            Tensor sum = hidden.clone();
            Tensor next =
                    tokenWise.addedAndModulated(sum, y, modulation, 2, 0, 1).values();
            assertThat(sum.equal(gated)).isTrue();
            assertThat(next.equal(tokenWise.modulated(gated, modulation, 0, 1).values()))
                    .isTrue();
        });
    }

    /** On a GPU the core's kernels, which take bfloat16. */
    @Test
    void whereTokensAreChoosesWhoWorksOnThem() {
        Placement bfloat16 = new Placement(torch.ScalarType.BFloat16, true);
        assertThat(TokenWise.of(bfloat16, false)).isEqualTo(CudaTokenWise.BFLOAT16);
        assertThat(TokenWise.of(bfloat16, true)).isEqualTo(CudaTokenWise.FP8);
        assertThat(TokenWise.of(bfloat16.with(torch.ScalarType.Float), false)).isInstanceOf(TorchTokenWise.class);
        assertThat(TokenWise.of(Placement.BFLOAT16_CPU, false)).isInstanceOf(TorchTokenWise.class);
        assertThatThrownBy(() -> TokenWise.of(Placement.BFLOAT16_CPU, true))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("bfloat16 on a GPU alone");
    }
}
