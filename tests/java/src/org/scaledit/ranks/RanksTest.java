package org.scaledit.ranks;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** How ranks end. */
@Timeout(value = 1, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RanksTest {
    private static void sleep() {
        try {
            Thread.sleep(100_000);
        } catch (InterruptedException e) {
            throw new CancellationException("interrupted");
        }
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException e) {
            throw new CancellationException("interrupted");
        }
    }

    @Test
    void anInterruptOfTheFirstRankThatHasEndedInterruptsTheOthers() {
        AtomicInteger ended = new AtomicInteger();
        Thread caller = Thread.currentThread();
        assertThatThrownBy(() -> Ranks.run(3, false, exchange -> {
                    if (exchange.rank() == 0) {
                        return;
                    }
                    if (exchange.rank() == 1) {
                        caller.interrupt();
                    }
                    try {
                        sleep();
                    } finally {
                        ended.incrementAndGet();
                    }
                }))
                .isInstanceOf(CancellationException.class)
                .hasMessage("stopped while other GPUs were at work");
        assertThat(ended.get()).isEqualTo(2);
        assertThat(Thread.interrupted()).isFalse();
    }

    @Test
    void aFailureInterruptsThoseThatAreAtWorkAndIsSeenByTheFirst() {
        assertThatThrownBy(() -> Ranks.run(3, false, exchange -> {
                    switch (exchange.rank()) {
                        case 0 -> {
                            while (true) {
                                exchange.requireOthers();
                                LockSupport.parkNanos(1_000_000);
                            }
                        }
                        case 1 -> sleep();
                        default -> throw new IllegalStateException("GPU 2 is gone");
                    }
                }))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("GPU 2 is gone");
    }

    /** As of a system that has no thread left: those that run are not left to wait for the others. */
    @Test
    void ifAThreadCannotBeStartedThoseThatRunAreSentAway() throws InterruptedException {
        AtomicInteger made = new AtomicInteger();
        List<Thread> threads = new CopyOnWriteArrayList<>();
        ThreadFactory factory = work -> {
            boolean last = made.incrementAndGet() == 3;
            Thread thread = new Thread(work) {
                @Override
                public void start() {
                    if (last) {
                        throw new OutOfMemoryError("unable to create native thread");
                    }
                    super.start();
                }
            };
            threads.add(thread);
            return thread;
        };
        assertThatThrownBy(() -> Ranks.run(5, false, Duration.ofSeconds(20), factory, Exchange::meet))
                .isInstanceOf(OutOfMemoryError.class)
                .hasMessage("unable to create native thread");
        assertThat(threads).hasSize(4);
        for (Thread thread : threads) {
            thread.join(5_000); // it has said that it is done
            assertThat(thread.isAlive()).isFalse();
        }
    }

    /** Rank 0, which stops, may have something to write yet. */
    @Test
    void whoIsSentAwaySendsNobodyAway() {
        CountDownLatch away = new CountDownLatch(1);
        AtomicBoolean disturbed = new AtomicBoolean();
        assertThatThrownBy(() -> Ranks.run(3, false, exchange -> {
                    switch (exchange.rank()) {
                        case 0 -> {
                            Thread.currentThread().interrupt();
                            try {
                                exchange.meet();
                            } catch (CancellationException e) {
                                await(away);
                                LockSupport.parkNanos(200_000_000);
                                assertThat(disturbed).isFalse();
                                throw e;
                            }
                        }
                        case 1 -> {
                            try {
                                exchange.meet();
                            } finally {
                                away.countDown();
                            }
                        }
                        default -> {
                            try {
                                sleep();
                            } finally {
                                disturbed.set(true);
                            }
                        }
                    }
                }))
                .isInstanceOf(CancellationException.class)
                .hasMessage("stopped while waiting for the other GPUs");
        assertThat(disturbed).isTrue(); // when rank 0 has left
    }

    @Test
    void oneThatDoesNotEndIsLeftBehind() {
        CountDownLatch end = new CountDownLatch(1);
        try {
            assertThatThrownBy(() -> Ranks.run(2, false, Duration.ofMillis(300), exchange -> {
                        if (exchange.rank() == 0) {
                            throw new IllegalStateException("GPU 0 is gone");
                        }
                        while (end.getCount() > 0) { // whatever it is told
                            LockSupport.parkNanos(1_000_000);
                        }
                    }))
                    .isInstanceOf(RankLeftBehindException.class)
                    .hasMessage("GPU 0 is gone; another GPU did not stop then, and this process can paint with GPUs no"
                            + " more");
        } finally {
            end.countDown();
        }
    }
}
