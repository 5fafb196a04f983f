package org.scaledit.sampling;

import java.util.List;
import java.util.function.DoubleUnaryOperator;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;

/**
 * The noise levels of a flow-matching Euler run: {@code steps + 1} sigmas that fall from 1 to 0 (diffusers'
 * FlowMatchEulerDiscreteScheduler).
 */
public record Schedule(float[] sigmas) {
    /** Of the high-resolution pass: static, whatever the size. */
    public static final double HIGH_RESOLUTION_SHIFT = 3;

    /** What diffusers' scheduler can do besides, and no published FLUX.1 asks for. */
    private static final List<String> OTHER_SCHEDULES = List.of(
            "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling");

    /** {@code σ' = shift · σ / (1 + (shift − 1) σ)} over {@code linspace(1, 1/steps, steps)}, then 0. */
    public static Schedule shifted(int steps, double shift) {
        return of(steps, sigma -> shift * sigma / (1 + (shift - 1) * sigma));
    }

    /**
     * The schedule that the checkpoint's own scheduler config asks for, at this number of image tokens.
     *
     * @throws org.scaledit.checkpoint.CheckpointException if it is missing, asks for another schedule than FLUX's, or for one
     *     that is none at so many tokens
     */
    public static Schedule ofCheckpoint(ModelDirectory model, int steps, long imageTokens) {
        Config config = Config.read(model.part("scheduler").resolve("scheduler_config.json"));
        return ofConfig(config, steps, imageTokens);
    }

    /**
     * Refuses a scheduler config that {@link #ofCheckpoint} would refuse.
     *
     * @throws org.scaledit.checkpoint.CheckpointException if it is missing or asks for another schedule than FLUX's
     */
    public static void check(ModelDirectory model) {
        ofCheckpoint(model, 1, 1);
    }

    static Schedule ofConfig(Config config, int steps, long imageTokens) {
        for (String field : OTHER_SCHEDULES) {
            config.require(!config.flag(field, false), field, true, "false");
        }
        double terminal = config.number("shift_terminal", 0);
        config.require(terminal == 0, "shift_terminal", terminal, "none");
        if (!config.flag("use_dynamic_shifting", false)) {
            double shift = config.number("shift", 1);
            config.require(shift > 0 && Double.isFinite(shift), "shift", shift, "a number above 0");
            return shifted(steps, shift);
        }
        if (config.has("time_shift_type")) {
            config.require("time_shift_type", "exponential");
        }
        double shift = dynamicShift(config, imageTokens);
        // exp(mu) / (exp(mu) + 1/σ − 1): FLUX's time shift with exponent 1.
        return of(steps, sigma -> shift / (shift + 1 / sigma - 1));
    }

    /** The exponential of FLUX.1-dev's mu: linear in the number of image tokens, 0.5 at 256 and 1.15 at 4096. */
    private static double dynamicShift(Config config, long imageTokens) {
        double fewTokens = config.number("base_image_seq_len", 256);
        double manyTokens = config.number("max_image_seq_len", 4096);
        double least = config.number("base_shift", 0.5);
        double most = config.number("max_shift", 1.15);
        config.require(
                manyTokens > fewTokens, "max_image_seq_len", manyTokens, "more than base_image_seq_len, " + fewTokens);
        double slope = (most - least) / (manyTokens - fewTokens);
        double shift = Math.exp(least + slope * (imageTokens - fewTokens));
        config.require(
                shift > 0 && Double.isFinite(shift),
                "base_shift",
                least + " and max_shift " + most,
                "shifts whose exponential is a number above 0 at " + imageTokens + " image tokens");
        return shift;
    }

    private static Schedule of(int steps, DoubleUnaryOperator shift) {
        if (steps < 1) {
            throw new IllegalArgumentException("steps is " + steps + ", expected at least 1");
        }
        float[] sigmas = new float[steps + 1];
        for (int i = 0; i < steps; i++) {
            double linear = steps == 1 ? 1 : 1 - i * (1 - 1.0 / steps) / (steps - 1);
            sigmas[i] = (float) shift.applyAsDouble((float) linear);
        }
        return new Schedule(sigmas);
    }

    public int steps() {
        return sigmas.length - 1;
    }
}
