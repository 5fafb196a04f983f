package org.scaledit.training;

import java.time.Duration;
import java.util.List;

/** Hears where a training stands, on its own thread. What it throws stops the training. */
public interface TrainingListener {
    /** Pictures and captions that have been computed for the cache, of those that it lacked. */
    void encoded(int done, int all);

    /**
     * A step was made.
     *
     * @param steps in all
     * @param pace of the steps since this process began with them
     */
    void stepped(LossLog.Row row, long steps, Pace pace);

    /**
     * Checkpoint and LoRA are written.
     *
     * @param rows of all steps until now
     */
    void saved(List<LossLog.Row> rows);

    /**
     * How fast it goes.
     *
     * @param samplesPerSecond pictures, not steps
     */
    record Pace(double samplesPerSecond, Duration remaining) {}
}
