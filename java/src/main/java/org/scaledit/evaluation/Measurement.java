package org.scaledit.evaluation;

import java.util.Locale;
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
 * @param failure why there is no result, or none of the picture, in one sentence
 */
public record Measurement(Method method, int size, long tokens, Optional<Result> result, Optional<String> failure) {
    static final String OUT_OF_MEMORY = "out of memory";

    static final String OF_PICTURE = "picture: ";

    /** Whether there is neither a result nor a want of memory: something is missing or wrong. */
    public boolean failed() {
        return failure.isPresent()
                && !failure.get().equals(OUT_OF_MEMORY)
                && !failure.get().equals(OF_PICTURE + OUT_OF_MEMORY);
    }

    /** The same with what came of a picture. */
    Measurement with(Picture picture) {
        return new Measurement(method, size, tokens, result.map(step -> step.with(picture)), failure);
    }

    /** The same without a picture. */
    Measurement withoutPicture(String sentence) {
        return new Measurement(method, size, tokens, result, Optional.of(OF_PICTURE + sentence));
    }

    /**
     * The seconds of a whole picture, the model loaded and the text encoded.
     *
     * @param guidance of the guidance image, in so many steps
     * @param highResolution of the pass, in so many steps
     * @param decode from latents to pixels
     */
    public record Picture(
            int guidanceSteps, double guidance, int highResolutionSteps, double highResolution, double decode) {

        /** Of all of it. */
        public double seconds() {
            return guidance + highResolution + decode;
        }

        /** In words. */
        String text() {
            return String.format(
                    Locale.ROOT,
                    "%d steps of guidance %.2f s, %d of high resolution %.2f s, decode %.2f s, together %.2f s",
                    guidanceSteps,
                    guidance,
                    highResolutionSteps,
                    highResolution,
                    decode,
                    seconds());
        }
    }

    /**
     * @param seconds a step, the median
     * @param fastest a step, the fastest
     * @param steps that were counted
     * @param bareSeconds of the same step's matrix products alone; empty if these did not fit the memory
     * @param operations of these products
     * @param bytesAboveWeights the most memory of the GPU handed out during a step beyond the weights that it holds; empty on
     *     a CPU
     * @param peakBytes the same with these weights
     * @param parts seconds of each part of a step, if asked for
     * @param picture of a whole one, if asked for
     */
    public record Result(
            double seconds,
            double fastest,
            int steps,
            OptionalDouble bareSeconds,
            double operations,
            OptionalLong bytesAboveWeights,
            OptionalLong peakBytes,
            Map<String, Double> parts,
            Optional<Picture> picture) {

        private Result with(Picture whole) {
            return new Result(
                    seconds,
                    fastest,
                    steps,
                    bareSeconds,
                    operations,
                    bytesAboveWeights,
                    peakBytes,
                    parts,
                    Optional.of(whole));
        }

        /** Of a step to its bare matrix products. */
        public OptionalDouble ratio() {
            return bareSeconds.isPresent() ? OptionalDouble.of(seconds / bareSeconds.getAsDouble()) : bareSeconds;
        }
    }
}
