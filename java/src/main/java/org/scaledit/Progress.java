package org.scaledit;

import java.time.Duration;

/**
 * Where a generation stands. One is sent when a stage begins ({@code step} 0) and after each of its steps.
 *
 * @param stage what is being done
 * @param level which picture of a recursion, 1 to {@code levels}
 * @param levels pictures in all; 1 unless {@link ImageRequest#levels(int)} or {@link ImageRequest#plainSize(int)} asks for
 *     more
 * @param step finished steps of this stage: sampling steps, or VAE tiles
 * @param steps steps of this stage in all
 * @param elapsed since this stage began
 */
public record Progress(Stage stage, int level, int levels, int step, int steps, Duration elapsed) {

    /** The stages of a generation, in their order. */
    public enum Stage {
        /** Weights are read; the prompt is encoded. */
        LOAD,
        /** Plain FLUX paints the small guidance image. */
        GUIDANCE_IMAGE,
        /** The guidance image is decoded, enlarged and encoded; only with {@link ImageRequest.Init#GUIDANCE}. */
        ENLARGE,
        /** The high-resolution steps. */
        HIGH_RESOLUTION,
        /** Latents become pixels. */
        DECODE
    }

    /** Time left in this stage at the pace of its finished steps; zero before the first. */
    public Duration remaining() {
        return step == 0 ? Duration.ZERO : elapsed.multipliedBy(steps - step).dividedBy(step);
    }
}
