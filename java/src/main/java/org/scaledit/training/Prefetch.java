package org.scaledit.training;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.LongFunction;

/**
 * Makes a row of things ahead of time, on other threads, and gives them in their order. What is not taken is closed.
 *
 * @param <T> made by one thread and used by another: it owns what it holds
 */
final class Prefetch<T extends AutoCloseable> implements AutoCloseable {
    /** A thing, to be made on another thread. */
    interface Work<T> {
        T make() throws Exception;
    }

    private final LongFunction<Work<T>> works;
    private final long end;
    private final int ahead;
    private final ExecutorService workers;
    private final Deque<Future<Optional<T>>> coming = new ArrayDeque<>();
    private long next;
    private volatile boolean ended;

    /**
     * @param sharers how many of these share the machine's processors
     * @param begin what each of the threads does first
     * @param works what is to be made for each number from {@code first} to {@code end} − 1; asked on the caller's thread
     */
    Prefetch(long first, long end, int sharers, Runnable begin, LongFunction<Work<T>> works) {
        int threads = Math.max(1, Runtime.getRuntime().availableProcessors() / sharers);
        this.works = works;
        this.next = first;
        this.end = end;
        this.ahead = threads + 2;
        this.workers = Executors.newFixedThreadPool(threads, task -> {
            Runnable begun = () -> {
                begin.run();
                task.run();
            };
            Thread thread = new Thread(begun, "training-prefetch");
            thread.setDaemon(true);
            return thread;
        });
    }

    /**
     * The next one; the caller closes it.
     *
     * @param when the thread is interrupted, for the message
     * @throws CancellationException if it is
     */
    T take(String when) {
        while (coming.size() < ahead && next < end) {
            Work<T> work = works.apply(next++);
            coming.add(workers.submit(() -> ended ? Optional.empty() : Optional.of(work.make())));
        }
        try {
            T made = coming.element().get().orElseThrow();
            coming.remove();
            return made;
        } catch (InterruptedException e) {
            throw TrainingLoop.stopped(when);
        } catch (ExecutionException e) {
            if (e.getCause() instanceof Error error) {
                throw error;
            }
            throw e.getCause() instanceof RuntimeException reason ? reason : new IllegalStateException(e.getCause());
        }
    }

    /** Waits for what is being made. */
    @Override
    public void close() {
        ended = true;
        workers.shutdown();
        coming.forEach(Prefetch::discard);
        coming.clear();
    }

    /** However often the thread is interrupted meanwhile: what is being made holds memory that nobody else would free. */
    private static <T extends AutoCloseable> void discard(Future<Optional<T>> future) {
        boolean interrupted = false;
        boolean ended = false;
        while (!ended) {
            try {
                Optional<T> made = future.get();
                ended = true;
                if (made.isPresent()) {
                    made.get().close();
                }
            } catch (InterruptedException e) {
                interrupted = true;
            } catch (Exception e) {
                ended = true; // it was not wanted any more, whatever went wrong
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
