package org.scaledit.file;

import java.util.concurrent.CancellationException;

/** An interrupt closes the file that its thread is reading: then no file is wrong. */
public final class Interrupts {
    private Interrupts() {}

    /**
     * Says what was cancelled, if the thread is interrupted.
     *
     * @param failure that may have come of it
     * @throws CancellationException if it is, which takes note of it
     */
    public static void throwIfInterrupted(String what, Exception failure) {
        if (Thread.interrupted()) {
            CancellationException cancelled = new CancellationException(what + " was cancelled");
            cancelled.initCause(failure);
            throw cancelled;
        }
    }
}
