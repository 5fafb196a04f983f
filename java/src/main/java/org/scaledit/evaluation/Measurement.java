package org.scaledit.evaluation;

import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalLong;

/**
 * What came of one method at one size.
 *
 * @param size pixels along each side
 * @param tokens of the whole sequence
 * @param result empty if the size was out of memory or the method cannot compute it
 * @param failure why there is no result, in one sentence
 */
public record Measurement(Method method, int size, long tokens, Optional<Result> result, Optional<String> failure) {
    static final String OUT_OF_MEMORY = "out of memory";

    /** Whether there is neither a result nor a want of memory: something is missing or wrong. */
    public boolean failed() {
        return failure.isPresent() && !failure.get().equals(OUT_OF_MEMORY);
    }

    /**
     * @param seconds a step, the median
     * @param fastest a step, the fastest
     * @param bareSeconds of the same step's matrix products alone; empty if these did not fit the memory
     * @param operations of these products
     * @param bytesAboveWeights the most memory of the GPU handed out during a step beyond the weights; empty on a CPU
     * @param parts seconds of each part of a step, if asked for
     */
    public record Result(
            double seconds,
            double fastest,
            OptionalDouble bareSeconds,
            double operations,
            OptionalLong bytesAboveWeights,
            Map<String, Double> parts) {

        /** Of a step to its bare matrix products. */
        public OptionalDouble ratio() {
            return bareSeconds.isPresent() ? OptionalDouble.of(seconds / bareSeconds.getAsDouble()) : bareSeconds;
        }
    }
}
