package org.scaledit.ranks;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.scaledit.tensor.Cuda;

/**
 * Runs ranks, which compute together: rank 0 on the caller's thread, each other one on a thread of its own, and on a GPU the rank
 * r on the r-th. When one fails the others are sent away.
 */
public final class Ranks implements AutoCloseable {
    /** What is computed between two exchanges is waited for; a GPU that hangs is left to the end of the process. */
    private static final int SECONDS_TO_STOP = 20;

    /** What every rank does. */
    public interface Work {
        void run(Exchange exchange);
    }

    private final boolean cuda;
    private final Meeting meeting;
    private final List<NcclExchange> onGpus;
    private final List<? extends Exchange> exchanges;
    private final CountDownLatch running;
    private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();

    private Ranks(int ranks, boolean cuda) {
        this.cuda = cuda;
        this.meeting = new Meeting(ranks);
        this.onGpus = cuda ? NcclExchange.of(ranks, meeting) : List.of();
        this.exchanges = cuda ? onGpus : LocalExchange.of(ranks, meeting);
        this.running = new CountDownLatch(ranks - 1);
    }

    /**
     * Loads what ranks on GPUs of their own exchange by, so that a want of it is said before there is work to lose.
     *
     * @throws IllegalStateException in one sentence, if NCCL cannot be loaded
     */
    public static void requireGpus() {
        NcclExchange.load();
    }

    /**
     * Returns when all ranks have done their work. Interrupting the thread interrupts rank 0.
     *
     * @param cuda whether each is on a GPU
     * @throws RuntimeException what the first rank that failed has thrown
     */
    public static void run(int ranks, boolean cuda, Work work) {
        if (ranks == 1) {
            work.run(Exchange.ALONE);
            return;
        }
        try (Ranks all = new Ranks(ranks, cuda)) {
            all.run(work);
        }
    }

    private void run(Work work) {
        List<Thread> threads = new ArrayList<>();
        for (int rank = 1; rank < exchanges.size(); rank++) {
            Thread thread = new Thread(other(rank, work), "rank " + rank);
            thread.setDaemon(true);
            thread.start();
            threads.add(thread);
        }
        try {
            work.run(exchanges.get(0));
        } catch (RuntimeException | Error e) {
            fail(e);
            threads.forEach(Thread::interrupt);
        }
        await();
        Throwable first = failure.get();
        if (first instanceof Error error) {
            throw error;
        }
        if (first != null) {
            throw (RuntimeException) first;
        }
    }

    private Runnable other(int rank, Work work) {
        return () -> {
            try {
                if (cuda) {
                    Cuda.use(rank);
                }
                work.run(exchanges.get(rank));
                if (cuda) {
                    Cuda.synchronize(); // then no other rank needs this one's memory any more
                }
            } catch (RuntimeException | Error e) {
                fail(e);
            } finally {
                running.countDown();
            }
        };
    }

    private void fail(Throwable cause) {
        if (!(cause instanceof RanksStoppedException)) { // the one that stopped it says why, perhaps later
            failure.compareAndSet(null, cause);
        }
        meeting.end();
        try {
            onGpus.forEach(NcclExchange::abort);
        } catch (RuntimeException e) {
            cause.addSuppressed(e);
        }
    }

    /** Waits for the other ranks; an interrupt is kept for later. */
    private void await() {
        boolean interrupted = false;
        boolean ended = false;
        while (!ended) {
            try {
                ended = running.await(SECONDS_TO_STOP, TimeUnit.SECONDS) || failure.get() != null;
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void close() {
        if (running.getCount() == 0) {
            NcclExchange.close(onGpus);
        }
    }
}
