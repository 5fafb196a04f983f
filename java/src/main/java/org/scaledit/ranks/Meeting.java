package org.scaledit.ranks;

import java.util.concurrent.CancellationException;

/** Where the ranks of a process wait for each other, again and again, until they are sent away. */
final class Meeting {
    private final int ranks;
    private final Runnable others;
    private int here;
    private long held;
    private boolean over;

    /** @param others waits for those of other processes, on behalf of all of this one's, when these are there */
    Meeting(int ranks, Runnable others) {
        this.ranks = ranks;
        this.others = others;
    }

    /**
     * Returns when every rank has called it. A rank that is interrupted before ends it for all, so that none takes it for one
     * that was there.
     *
     * @throws RanksStoppedException if the ranks were sent away
     * @throws CancellationException if the thread is interrupted
     */
    void await() {
        await(true, others);
    }

    /** The same among this process's ranks, which met just now and come at once: an interrupt is kept for later. */
    void awaitAtOnce() {
        await(false, () -> {});
    }

    private void await(boolean mayLeave, Runnable beforeItIsHeld) {
        long now;
        boolean last;
        synchronized (this) {
            requireHeld();
            now = held;
            here++;
            last = here == ranks;
        }
        if (last) {
            beforeItIsHeld.run();
            hold();
        } else {
            awaitLast(now, mayLeave);
        }
    }

    private synchronized void hold() {
        requireHeld();
        here = 0;
        held++;
        notifyAll();
    }

    private synchronized void awaitLast(long now, boolean mayLeave) {
        boolean interrupted = false;
        while (held == now) {
            requireHeld();
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
