package org.scaledit.cli;

import java.io.PrintWriter;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * While it is open, Ctrl-C interrupts the thread that opened it and gives it time to leave nothing half-written, before
 * the process ends.
 */
final class CleanInterrupt implements AutoCloseable {
    private static final int SECONDS_TO_CLEAN_UP = 30;

    private final CountDownLatch done = new CountDownLatch(1);
    private final Thread hook;

    CleanInterrupt() {
        this(done -> done.await(SECONDS_TO_CLEAN_UP, TimeUnit.SECONDS));
    }

    /** What the hook does once the thread is interrupted. */
    private interface Waiting {
        void await(CountDownLatch done) throws InterruptedException;
    }

    private CleanInterrupt(Waiting waiting) {
        Thread worker = Thread.currentThread();
        hook = new Thread(() -> {
            worker.interrupt();
            try {
                waiting.await(done);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        });
        Runtime.getRuntime().addShutdownHook(hook);
    }

    /** Of a training, which is given as long as it takes to leave its last step in a checkpoint; that is said. */
    static CleanInterrupt ofTraining(PrintWriter err) {
        return new CleanInterrupt(done -> {
            err.println("scaledit: the training is finishing what it is at, and writes a checkpoint");
            err.flush();
            done.await();
        });
    }

    @Override
    public void close() {
        done.countDown();
        try {
            Runtime.getRuntime().removeShutdownHook(hook);
        } catch (IllegalStateException endingAlready) {
            // The hook is at work, and has just been told that all is done.
        }
    }
}
