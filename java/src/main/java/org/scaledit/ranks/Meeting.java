package org.scaledit.ranks;

import java.util.concurrent.CancellationException;

/** Where ranks wait for each other, again and again, until they are sent away. */
final class Meeting {
    private final int ranks;
    private int here;
    private long held;
    private boolean over;

    Meeting(int ranks) {
        this.ranks = ranks;
    }

    /**
     * Returns when every rank has called it. A rank that is interrupted before ends it for all, so that none takes it for one
     * that was there.
     *
     * @throws RanksStoppedException if the ranks were sent away
     * @throws CancellationException if the thread is interrupted
     */
    void await() {
        await(true);
    }

    /** The same among ranks that met just now and come at once: an interrupt is kept for later. */
    void awaitAtOnce() {
        await(false);
    }

    private synchronized void await(boolean mayLeave) {
        if (over) {
            throw new RanksStoppedException();
        }
        long now = held;
        here++;
        if (here == ranks) {
            here = 0;
            held++;
            notifyAll();
        }
        boolean interrupted = false;
        while (held == now) {
            if (over) {
                throw new RanksStoppedException();
            }
            try {
                wait();
            } catch (InterruptedException e) {
                interrupted = true;
                if (mayLeave && held == now) {
                    end();
                    throw new CancellationException("stopped while waiting for the other GPUs");
                }
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** @throws RanksStoppedException if the ranks were sent away */
    synchronized void requireHeld() {
        if (over) {
            throw new RanksStoppedException();
        }
    }

    /** Sends all ranks away, those that wait and those that come later. */
    synchronized void end() {
        over = true;
        notifyAll();
    }
}
