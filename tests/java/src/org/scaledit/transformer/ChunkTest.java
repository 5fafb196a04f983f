package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.tensor.Matrix;
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
                for (long row = 0; row < chunk.rows(); row++) {
                    guidance.add(row < chunk.rows() - chunk.guidanceRows() ? 0L : 1L);
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
            Tensor y = TorchTokenWise.PLAIN.modulated(hidden, modulation, 0, 1).values();
            Tensor gated = hidden.clone();
            TorchTokenWise.PLAIN.addGated(gated, y, modulation, 2);
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
            Matrix quantised = TorchTokenWise.FP8.modulated(hidden, modulation, 0, 1);
            assertThat(quantised.values().scalar_type().intern()).isEqualTo(torch.ScalarType.Float8_e4m3fn);
            assertThat(Golden.relativeL2(quantised.plain(torch.ScalarType.Float), y))
                    .isBetween(1e-2, 4e-2);
        });
    }
}
