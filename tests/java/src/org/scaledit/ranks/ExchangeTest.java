package org.scaledit.ranks;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
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
        assertExchanged(ranks, work -> Ranks.run(ranks, false, work), Placement.BFLOAT16_CPU);
    }

    /** Of each host so many. */
    static Stream<int[]> ranksOfHosts() {
        return Stream.of(new int[] {1, 1}, new int[] {2, 1}, new int[] {1, 2, 1});
    }

    @ParameterizedTest
    @MethodSource("ranksOfHosts")
    void ranksOfSeveralHosts(int[] ranks) {
        assertExchanged(
                Arrays.stream(ranks).sum(),
                work -> assertThat(HostThreads.run(ranks, hosts -> hosts.compute(false, work)))
                        .containsOnly(""),
                Placement.BFLOAT16_CPU);
    }

    @Tag("gpus")
    @Test
    void ranksOnGpus() {
        CudaAttention.requireGpus(2);
        assertExchanged(2, work -> Ranks.run(2, true, work), Gpu.BFLOAT16);
    }

    /** Rows that a rank gives another one: some none, some more than they take. */
    private static long rows(int from, int to, int round) {
        return from == to ? 0 : (from + 2 * to + round) % 4;
    }

    private static void assertExchanged(int ranks, Consumer<Ranks.Work> runner, Placement placement) {
        Map<Integer, List<Float>> gathered = new ConcurrentHashMap<>();
        runner.accept(exchange -> Tensors.run(() -> {
            int rank = exchange.rank();
            assertThat(exchange.ranks()).isEqualTo(ranks);
            exchange.meet();
            assertSummedAndShared(rank, ranks, exchange, placement);
            List<Float> all = new ArrayList<>();
            for (int round = 0; round < ROUNDS; round++) {
                swap(rank, ranks, round, exchange, placement);
                swap(rank, ranks, round, exchange, placement.with(torch.ScalarType.Byte));
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

    private static void assertSummedAndShared(int rank, int ranks, Exchange exchange, Placement placement) {
        Placement float32 = placement.with(torch.ScalarType.Float);
        Tensor sum = float32.place(Tensors.of(new float[] {rank, 1}, 2));
        exchange.sum(sum);
        assertThat(Tensors.floats(sum)).containsExactly(ranks * (ranks - 1) / 2f, ranks);
        Tensor shared = float32.place(Tensors.of(new float[] {rank + 5}, 1));
        exchange.share(shared);
        assertThat(Tensors.floats(shared)).containsExactly(5);
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
