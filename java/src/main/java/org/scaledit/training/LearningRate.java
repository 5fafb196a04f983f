package org.scaledit.training;

import java.util.function.LongToDoubleFunction;

/**
 * Step sizes that rise linearly to their peak and then fall along half a cosine.
 *
 * @param peak of the step {@code warmup}, or of the first one
 * @param floor what is left at the last step, in parts of the peak
 * @param warmup steps until the peak is reached
 * @param steps in all
 */
record LearningRate(double peak, double floor, long warmup, long steps) implements LongToDoubleFunction {

    /** @param step from 1 */
    @Override
    public double applyAsDouble(long step) {
        if (step <= warmup) {
            return peak * step / warmup;
        }
        double progress = Math.min(1, (double) (step - warmup) / Math.max(1, steps - warmup));
        return peak * (floor + (1 - floor) * 0.5 * (1 + StrictMath.cos(Math.PI * progress)));
    }
}
