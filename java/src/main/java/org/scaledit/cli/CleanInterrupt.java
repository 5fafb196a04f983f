package org.scaledit.cli;

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
        Thread worker = Thread.currentThread();
        hook = new Thread(() -> {
            worker.interrupt();
            try {
                done.await(SECONDS_TO_CLEAN_UP, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        });
        Runtime.getRuntime().addShutdownHook(hook);
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
