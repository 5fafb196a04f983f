package org.scaledit.sampling;

import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalDouble;
import org.scaledit.attention.AttentionWindow;

/**
 * How one picture is to be sampled.
 *
 * @param grid of the first high-resolution picture
 * @param levels high-resolution pictures in all, each guided by the one before it and larger by the ratio; with 0 the guidance
 *     image is all there is, and {@code grid} its own
 * @param backend what computes attention
 * @param steps of each high-resolution pass
 * @param guideSteps of the guidance image
 * @param guideImage the user's own guidance image
 * @param strength share of the steps that run when the pass starts from the enlarged guidance image; empty when it
 *     starts from noise
 */
public record Plan(
        TokenGrid grid,
        int levels,
        AttentionWindow window,
        Backend backend,
        int steps,
        float guidance,
        int guideSteps,
        float guideGuidance,
        Optional<Path> guideImage,
        OptionalDouble strength) {

    /** What computes attention in the high-resolution pass. */
    public enum Backend {
        /** The native core without quantisation: float32 arithmetic on the CPU, bfloat16 on a GPU. */
        NATIVE_EXACT,
        NATIVE_INT8,
        DENSE
    }

    public Plan {
        if (window.ratio() == 0 && (levels != 1 || guideImage.isPresent() || strength.isPresent())) {
            throw new IllegalArgumentException("ratio is 0, which is a picture without a guidance image, expected "
                    + (levels != 1 ? "1 level" : guideImage.isPresent() ? "none given" : "init noise"));
        }
        lastGrid(grid, levels, window); // refuses a picture that grows beyond the largest size
        if (strength.isPresent() && runSteps(strength.getAsDouble(), steps) == 0) {
            throw new IllegalArgumentException("strength " + strength.getAsDouble() + " of " + steps
                    + " steps runs none, expected more than " + 0.5 / steps);
        }
    }

    /** The step that a high-resolution pass begins with. */
    int firstStep() {
        return strength.isPresent() ? steps - runSteps(strength.getAsDouble(), steps) : 0;
    }

    /** Pictures that are painted one after the other, as progress counts them: a plain one is the first and last. */
    public int pictures() {
        return Math.max(1, levels);
    }

    /** Whether a high-resolution picture has a guidance image. */
    boolean isGuided() {
        return levels > 0 && window.ratio() > 0;
    }

    /** The grid of the guidance image. */
    TokenGrid guidanceGrid() {
        return levels == 0 ? grid : grid.guidance(window.ratio());
    }

    /** The grid of the picture that comes out. */
    public TokenGrid lastGrid() {
        return lastGrid(grid, levels, window);
    }

    private static TokenGrid lastGrid(TokenGrid grid, int levels, AttentionWindow window) {
        TokenGrid last = grid;
        for (int level = 2; level <= levels; level++) {
            last = last.enlarged(window.ratio());
        }
        return last;
    }

    private static int runSteps(double strength, int steps) {
        return (int) Math.rint(strength * steps);
    }
}
