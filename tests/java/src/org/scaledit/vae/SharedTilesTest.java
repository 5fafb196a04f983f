package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** Tiles that ranks compute together become the picture of one rank, and what ends one rank ends all. */
@Timeout(value = 2, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class SharedTilesTest {
    private static final int RANKS = 3;

    /** Six rows of three tiles, each 12 after the one before. */
    private static final Tiles TILES = new Tiles(70, 30, 16, 16);

    private static final int COLUMNS = 3;
    private static final int STEP = 12;

    private final AtomicInteger begun = new AtomicInteger();
    private final CountDownLatch atWork = new CountDownLatch(RANKS);

    @ParameterizedTest
    @CsvSource({"16, 16", "17, 3", "16, 30", "26, 26", "61, 37", "14, 50"})
    void ranksDecodeThePictureOfOne(int height, int width) {
        for (int ranks = 1; ranks <= RANKS; ranks++) {
            assertDecoded(ranks, Placement.FLOAT32_CPU, height, width);
        }
    }

    @Test
    @Tag("gpus")
    void gpusDecodeThePictureOfOne() {
        CudaAttention.requireGpus(2);
        assertDecoded(2, Gpu.BFLOAT16, 61, 37);
    }

    private static void assertDecoded(int ranks, Placement placement, int height, int width) {
        Tensors.run(() -> {
            Tensor latent = torch.randn(16, height, width);
            Tensor image = torch.empty(3, 8L * height, 8L * width);
            List<Integer> left = new ArrayList<>();
            try (AutoencoderKl vae = load(placement);
                    SharedTiles tiles = vae.sharedTiles(latent, ranks)) {
                Ranks.run(ranks, placement.cuda(), exchange -> {
                    if (exchange.rank() == 0) {
                        TileListener listener = (finished, all) -> left.add(all - finished);
                        vae.decode(
                                latent,
                                tiles,
                                exchange,
                                listener,
                                (row, band) ->
                                        image.narrow(1, row, band.size(1)).copy_(band));
                        return;
                    }
                    try (AutoencoderKl own = load(placement)) {
                        own.follow(latent, tiles, exchange);
                    }
                });
                assertThat(image.equal(vae.decode(latent, TileListener.NONE))).isTrue();
            }
            int all = left.get(0);
            assertThat(left)
                    .isEqualTo(IntStream.rangeClosed(0, all)
                            .mapToObj(finished -> all - finished)
                            .toList());
        });
    }

    private static AutoencoderKl load(Placement placement) {
        return AutoencoderKl.load(Golden.tinyFlux().resolve("vae"), placement);
    }

    /** What a rank does with a tile, or before it. */
    private interface Work {
        Work NONE = (rank, tile) -> {};

        void before(int rank, Tiles.Tile tile);
    }

    /** By ranks whose first tiles wait for each other, so that each has one. */
    private void run(Work work, BandConsumer sink) {
        try (SharedTiles tiles = new SharedTiles(TILES, RANKS)) {
            Ranks.run(RANKS, false, exchange -> {
                Tiles.Compute compute = tile -> {
                    atWork.countDown();
                    awaitAll();
                    begun.incrementAndGet();
                    work.before(exchange.rank(), tile);
                    return torch.zeros(1, tile.height(), tile.width()).add(new Scalar((double) tile.number()));
                };
                if (exchange.rank() == 0) {
                    tiles.run(1, compute, exchange, TileListener.NONE, sink);
                } else {
                    tiles.follow(compute, exchange);
                }
            });
        }
    }

    private void awaitAll() {
        try {
            atWork.await();
        } catch (InterruptedException e) {
            throw new CancellationException("interrupted");
        }
    }

    /** Waits until no other tile may be begun. */
    private void awaitRest(int taken) {
        while (begun.get() < most(taken)) {
            LockSupport.parkNanos(1_000_000);
        }
    }

    /** That may be begun once rank 0 has taken so many. */
    private static int most(int taken) {
        return Math.min(TILES.count(), taken + COLUMNS + RANKS);
    }

    @Test
    void aRowOfTilesAndOneForEachRankAreComputedAheadOfABandAndNoMore() {
        List<Integer> rows = new ArrayList<>();
        run(Work.NONE, (firstRow, band) -> {
            int taken = COLUMNS * (firstRow / STEP + 1);
            awaitRest(taken);
            LockSupport.parkNanos(50_000_000);
            assertThat(begun.get()).isEqualTo(most(taken));
            rows.add(firstRow);
        });
        assertThat(rows).containsExactly(0, 12, 24, 36, 48, 60);
        assertThat(begun.get()).isEqualTo(TILES.count());
    }

    /** Rank 0 waits for that tile by then, and the other one until it may begin a tile. */
    @Test
    void aTileThatFailsEndsAllRanks() {
        long start = System.nanoTime();
        assertThatThrownBy(() -> run(
                        (rank, tile) -> {
                            if (rank == 1) {
                                awaitRest(tile.number());
                                throw new IllegalStateException("tile " + tile.number() + " is lost");
                            }
                        },
                        (firstRow, band) -> {}))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageMatching("tile [0-2] is lost");
        assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofSeconds(5));
    }

    @Test
    void anInterruptOfTheFirstRankEndsAll() {
        Thread caller = Thread.currentThread();
        CountDownLatch never = new CountDownLatch(1);
        AtomicInteger interrupted = new AtomicInteger();
        assertThatThrownBy(() -> run(
                        (rank, tile) -> {
                            if (rank == 1) {
                                awaitRest(tile.number());
                                caller.interrupt();
                                try {
                                    never.await();
                                } catch (InterruptedException e) {
                                    interrupted.incrementAndGet();
                                }
                            }
                        },
                        (firstRow, band) -> {}))
                .isInstanceOf(CancellationException.class)
                .hasMessage("stopped while waiting for the other GPUs");
        assertThat(interrupted.get()).isEqualTo(1);
        assertThat(Thread.interrupted()).isFalse();
    }

    @Test
    void tilesThatNobodyTakesAreFreed() {
        long handles = 0;
        for (int round = 0; round < 20; round++) {
            if (round == 4) {
                handles = Pointer.totalCount();
            }
            begun.set(0);
            assertThatThrownBy(() -> run(Work.NONE, (firstRow, band) -> {
                        awaitRest(COLUMNS);
                        throw new IllegalStateException("the disk is full");
                    }))
                    .hasMessage("the disk is full");
        }
        assertThat(Pointer.totalCount() - handles).isLessThan(20);
    }
}
