package org.scaledit.ranks;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.scaledit.tensor.Cuda;

/**
 * Runs the ranks of this process, which compute together: the first one on the caller's thread, each other one on a thread of its
 * own, and on GPUs the r-th of them on the r-th. When one fails the others are sent away, on all hosts.
 */
public final class Ranks implements AutoCloseable {
    /** What is computed between two exchanges is waited for; a GPU that hangs is left to the end of the process. */
    private static final int SECONDS_TO_STOP = 20;

    /** The same where it may have taken some to notice that another host is gone. */
    private static final int SECONDS_TO_STOP_BESIDE_HOSTS = 15;

    /** How often the first rank looks whether another one has failed while it waits for all. */
    private static final int MILLISECONDS_TO_LOOK = 100;

    /** What every rank does. */
    public interface Work {
        void run(Exchange exchange);
    }

    private final boolean cuda;
    private final Duration toStop;
    private final Optional<Hosts> hosts;
    private final Meeting meeting;
    private final List<GroupExchange> groups; // empty where ranks share memory
    private final List<? extends Exchange> exchanges; // of this process's ranks
    private final List<Thread> threads =
            new ArrayList<>(); // of all ranks but the first; all there before one is started
    private final CountDownLatch running;
    private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();

    private Ranks(int ranks, boolean cuda, Duration toStop) {
        this.cuda = cuda;
        this.toStop = toStop;
        this.hosts = Optional.empty();
        this.meeting = new Meeting(ranks, () -> {});
        this.groups = cuda ? GroupExchange.onGpus(ranks, meeting) : List.of();
        this.exchanges = cuda ? groups : LocalExchange.of(ranks, meeting);
        this.running = new CountDownLatch(ranks - 1);
    }

    private Ranks(Hosts hosts, boolean cuda) {
        this.cuda = cuda;
        this.toStop = Duration.ofSeconds(SECONDS_TO_STOP_BESIDE_HOSTS);
        this.hosts = Optional.of(hosts);
        this.meeting = new Meeting(hosts.ownRanks(), hosts::meet);
        this.groups = GroupExchange.of(hosts, cuda, meeting);
        this.exchanges = groups;
        this.running = new CountDownLatch(hosts.ownRanks() - 1);
    }

    /**
     * Loads what ranks on GPUs of their own exchange by, so that a want of it is said before there is work to lose.
     *
     * @throws IllegalStateException in one sentence, if NCCL cannot be loaded
     */
    public static void requireGpus() {
        GroupExchange.load();
    }

    /**
     * Returns when all ranks have done their work. Interrupting the thread interrupts rank 0 and, where that waits for the others
     * to end, them.
     *
     * @param cuda whether each is on a GPU
     * @throws RuntimeException what the first rank that failed has thrown
     * @throws RankLeftBehindException if another one goes on then
     */
    public static void run(int ranks, boolean cuda, Work work) {
        run(ranks, cuda, Duration.ofSeconds(SECONDS_TO_STOP), work);
    }

    /** @param toStop so long those that were sent away are waited for */
    static void run(int ranks, boolean cuda, Duration toStop, Work work) {
        run(ranks, cuda, toStop, Thread::new, work);
    }

    /** @param factory of the threads of all ranks but the first */
    static void run(int ranks, boolean cuda, Duration toStop, ThreadFactory factory, Work work) {
        if (ranks == 1) {
            work.run(Exchange.ALONE);
            return;
        }
        try (Ranks all = new Ranks(ranks, cuda, toStop)) {
            all.run(factory, work);
        }
    }

    /** The same with those of other hosts. */
    static void run(Hosts hosts, boolean cuda, Work work) {
        try (Ranks all = new Ranks(hosts, cuda)) {
            all.run(Thread::new, work);
        } finally {
            hosts.listen(nobody -> {});
        }
    }

    private void run(ThreadFactory factory, Work work) {
        for (int rank = 1; rank < exchanges.size(); rank++) {
            Thread thread = factory.newThread(other(rank, work));
            thread.setName("rank " + rank);
            thread.setDaemon(true);
            threads.add(thread);
        }
        hosts.ifPresent(others -> others.listen(this::fail));
        try {
            startOthers();
            if (cuda) {
                Cuda.on(0, () -> first(work));
            } else {
                first(work);
            }
        } catch (RuntimeException | Error e) {
            fail(e);
        }
        await();
        Throwable first = failure.get();
        if (first != null && running.getCount() > 0) {
            throw new RankLeftBehindException(first);
        }
        if (first instanceof Error error) {
            throw error;
        }
        if (first != null) {
            throw (RuntimeException) first;
        }
    }

    /** If the system has no thread left those that run are sent away as by any failure, and the others are not waited for. */
    private void startOthers() {
        int started = 0;
        try {
            for (Thread thread : threads) {
                thread.start();
                started++;
            }
        } finally {
            for (int missing = started; missing < threads.size(); missing++) {
                running.countDown();
            }
        }
    }

    private void first(Work work) {
        work.run(exchanges.get(0));
        synchronize();
    }

    private Runnable other(int rank, Work work) {
        return () -> {
            try {
                if (cuda) {
                    Cuda.use(rank);
                }
                work.run(exchanges.get(rank));
                synchronize();
            } catch (RuntimeException | Error e) {
                fail(e);
            } finally {
                running.countDown();
            }
        };
    }

    /**
     * Then no other rank needs this one's memory any more, and nothing of this one's is left to be aborted. Of several hosts each
     * waits for the others: what a GPU has given may be on its way yet.
     */
    private void synchronize() {
        if (cuda) {
            Cuda.synchronize();
        }
        if (hosts.isPresent()) {
            meeting.await();
        }
    }

    private void fail(Throwable cause) {
        if (cause instanceof RanksStoppedException) { // the one that stopped it says why, perhaps later
            hosts.flatMap(Hosts::failure).ifPresent(told -> failure.compareAndSet(null, told));
        } else {
            failure.compareAndSet(null, cause);
            hosts.ifPresent(others -> others.tell(cause));
        }
        meeting.end();
        if (cause instanceof RanksStoppedException && hosts.isEmpty()) {
            return; // the one that stopped it may yet need what is under way, and sends the others away when it leaves
        }
        try {
            groups.forEach(GroupExchange::abort);
        } catch (RuntimeException e) {
            cause.addSuppressed(e);
        }
        threads.stream().filter(thread -> thread != Thread.currentThread()).forEach(Thread::interrupt);
    }

    /** Waits for the other ranks. An interrupt sends them away, or is kept for later if they have been. */
    private void await() {
        boolean interrupted = false;
        long leave = Long.MAX_VALUE; // at this time, once one has failed
        while (running.getCount() > 0 && System.nanoTime() < leave) {
            try {
                running.await(MILLISECONDS_TO_LOOK, TimeUnit.MILLISECONDS);
            } catch (InterruptedException e) {
                interrupted = failure.get() != null;
                fail(new CancellationException("stopped while other GPUs were at work"));
            }
            if (failure.get() != null && leave == Long.MAX_VALUE) {
                leave = System.nanoTime() + toStop.toNanos();
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void close() {
        if (running.getCount() == 0) {
            GroupExchange.close(groups, failure.get() != null);
        }
    }
}
