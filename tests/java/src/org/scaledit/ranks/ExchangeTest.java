package org.scaledit.ranks;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Gpu;

/** What ranks give each other arrives where it belongs. */
@Timeout(value = 2, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ExchangeTest {
    private static final int ROUNDS = 20;

    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 4})
    void ranksOnTheCpu(int ranks) {
        assertExchanged(ranks, false, Placement.BFLOAT16_CPU);
    }

    @Tag("gpus")
    @Test
    void ranksOnGpus() {
        CudaAttention.requireGpus(2);
        assertExchanged(2, true, Gpu.BFLOAT16);
    }

    /** Rows that a rank gives another one: some none, some more than they take. */
    private static long rows(int from, int to, int round) {
        return from == to ? 0 : (from + 2 * to + round) % 4;
    }

    private static void assertExchanged(int ranks, boolean cuda, Placement placement) {
        Map<Integer, List<Float>> gathered = new ConcurrentHashMap<>();
        Ranks.run(
                ranks,
                cuda,
                exchange -> Tensors.run(() -> {
                    int rank = exchange.rank();
                    assertThat(exchange.ranks()).isEqualTo(ranks);
                    exchange.meet();
                    List<Float> all = new ArrayList<>();
                    for (int round = 0; round < ROUNDS; round++) {
                        swap(rank, ranks, round, exchange, placement);
                        Tensor own = placement.place(Tensors.of(new float[] {rank, round}, 1, 2));
                        Tensor together = torch.empty(new long[] {ranks, 1, 2}, placement.options(), null);
                        try (Exchange.Begun gather = exchange.gather(own, together)) {
                            gather.await();
                        }
                        for (float value : Tensors.floats(together)) {
                            all.add(value);
                        }
                    }
                    gathered.put(rank, all);
                }));
        List<Float> expected = new ArrayList<>();
        for (int round = 0; round < ROUNDS; round++) {
            for (int rank = 0; rank < ranks; rank++) {
                expected.addAll(List.of((float) rank, (float) round));
            }
        }
        assertThat(gathered).hasSize(ranks);
        assertThat(gathered.values()).allMatch(expected::equals);
    }

    /** Each row is who gives it, to whom, and its number. */
    private static void swap(int rank, int ranks, int round, Exchange exchange, Placement placement) {
        long[] givenRows = new long[ranks];
        long[] takenRows = new long[ranks];
        List<Float> given = new ArrayList<>();
        List<Float> expected = new ArrayList<>();
        for (int other = 0; other < ranks; other++) {
            givenRows[other] = rows(rank, other, round);
            takenRows[other] = rows(other, rank, round);
            for (int row = 0; row < givenRows[other]; row++) {
                given.addAll(List.of((float) rank, (float) other, (float) row));
            }
            for (int row = 0; row < takenRows[other]; row++) {
                expected.addAll(List.of((float) other, (float) rank, (float) row));
            }
        }
        Tensor taken = torch.empty(new long[] {Arrays.stream(takenRows).sum(), 3}, placement.options(), null);
        float[] values = new float[given.size()];
        for (int i = 0; i < values.length; i++) {
            values[i] = given.get(i);
        }
        Tensor own = placement.place(Tensors.of(values, values.length / 3, 3));
        try (Exchange.Begun begun = exchange.swap(own, givenRows, taken, takenRows)) {
            begun.await();
        }
        List<Float> found = new ArrayList<>();
        if (taken.size(0) > 0) {
            for (float value : Tensors.floats(taken)) {
                found.add(value);
            }
        }
        assertThat(found).isEqualTo(expected);
    }
}
