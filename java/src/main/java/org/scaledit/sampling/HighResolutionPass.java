package org.scaledit.sampling;

import java.util.function.Supplier;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.ranks.Exchange;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxTransformer;

/**
 * High-resolution passes, by one rank or by several together: each denoises its own part of the picture, some of the windows
 * along the Hilbert curve, with a transformer of its own.
 *
 * @param transformer under its LoRAs
 * @param exchange of the ranks
 */
record HighResolutionPass(FluxTransformer transformer, Plan plan, Prompt prompt, Exchange exchange) {
    /** Told how far a pass is, in the rank that it is of. What it throws ends the pass. */
    interface Listener {
        /** Of a rank that nobody watches. */
        static Listener silent(Runnable betweenBlocks) {
            return new Listener() {
                @Override
                public void step(int step, int steps, Supplier<Tensor> latents) {}

                @Override
                public void betweenBlocks() {
                    betweenBlocks.run();
                }
            };
        }

        /**
         * Finished steps; 0 before the first.
         *
         * @param latents {@code [W·H, 64]} in raster order, computed when asked for; of a picture that one rank paints
         */
        void step(int step, int steps, Supplier<Tensor> latents);

        /** Called after every transformer block. */
        void betweenBlocks();
    }

    /** Whatever the checkpoint's own schedule is. */
    Schedule schedule() {
        return Schedule.shifted(plan.steps(), Schedule.HIGH_RESOLUTION_SHIFT);
    }

    /**
     * Paints.
     *
     * @param guidance clean latents, the same in all ranks: {@code [w·h, 64]}, or {@link #withoutGuidance}, float32 where the transformer is, in raster
     *     order
     * @param start latents at the noise level of the first step, likewise: {@code [W·H, 64]}
     * @return clean latents, likewise
     */
    Tensor paint(TokenGrid grid, Tensor guidance, Tensor start, Listener listener) {
        Schedule schedule = schedule();
        int steps = schedule.steps() - plan.firstStep();
        return Tensors.scoped(() -> {
            try (PassAttention attention =
                            PassAttention.windowed(plan, prompt.textTokens(), grid, transformer.placement(), exchange);
                    Denoiser denoiser = transformer.denoiser(
                            attention.layout(),
                            attention.attention(),
                            FluxTransformer.NTK_THETA,
                            prompt.text().states(),
                            prompt.text().pooled(),
                            plan.guidance(),
                            attention.layout().arrangeGuidance(guidance))) {
                prompt.guide(denoiser);
                Tensor end = Euler.integrate(
                        attention.layout().arrangeImage(start),
                        schedule,
                        plan.firstStep(),
                        (latents, sigma) -> {
                            exchange.meet(); // one may have waited for whoever watches it
                            return denoiser.velocity(latents, sigma, listener::betweenBlocks);
                        },
                        (step, latents) -> listener.step(step, steps, () -> restored(attention, latents)));
                exchange.meet();
                return attention.restoreImage(end);
            }
        });
    }

    private Tensor restored(PassAttention attention, Tensor latents) {
        if (exchange.ranks() > 1) {
            throw new IllegalStateException("states of a picture on the way are asked of one of " + exchange.ranks()
                    + " ranks, expected one rank");
        }
        return attention.restoreImage(latents);
    }

    /**
     * Makes every rank's latents those of rank 0.
     *
     * @param latents {@code [tokens, 64]}; of the other ranks not looked at
     * @return likewise, float32 where the transformer is
     */
    Tensor shared(Tensor latents) {
        return Tensors.scoped(() -> {
            Tensor placed = placement().place(latents).contiguous();
            exchange.share(placed);
            return placed;
        });
    }

    /** Latents of rank 0 in another one: {@code [tokens, 64]}. */
    private Tensor received(TokenGrid grid) {
        return Tensors.scoped(() -> {
            long[] shape = {grid.tokens(), transformer.config().latentChannels()};
            Tensor latents = torch.empty(shape, placement().options(), null);
            exchange.share(latents);
            return latents;
        });
    }

    private Placement placement() {
        return transformer.placement().with(torch.ScalarType.Float);
    }

    /** In the place of guidance latents: {@code [0, 64]}. */
    Tensor withoutGuidance() {
        long[] shape = {0, transformer.config().latentChannels()};
        return torch.empty(shape, placement().options(), null);
    }

    /** What the ranks but the first one do for a picture. */
    void follow(Listener listener) {
        Tensors.run(() -> {
            Tensor latents = plan.isGuided() ? received(plan.guidanceGrid()) : withoutGuidance();
            TokenGrid grid = plan.grid();
            for (int level = 1; level <= plan.levels(); level++) {
                grid = level == 1 ? grid : grid.enlarged(plan.window().ratio());
                latents = paint(grid, latents, received(grid), listener);
            }
        });
    }
}
