package org.scaledit.sampling;

import java.util.function.BiFunction;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxTransformer;

/**
 * Plain FLUX, by the checkpoint's own schedule: every token attends to every other. It paints guidance images, and the
 * pictures to train on.
 *
 * @param directory has the schedule
 * @param transformer without LoRAs
 * @param dense whether attention is torch's in any case; a GPU's own takes bfloat16 alone
 * @param guidance the distilled one
 */
public record PlainPass(
        ModelDirectory directory, FluxTransformer transformer, boolean dense, int steps, float guidance) {

    /** Told how far a pass is. What it throws ends the pass. */
    public interface Listener {
        /** Finished steps; 0 before the first. */
        void step(int step, int steps);

        /** Called after every transformer block. */
        void betweenBlocks();
    }

    /**
     * Paints.
     *
     * @param noise {@code [w·h, 64]}, float32, packed, in raster order
     * @return clean latents, likewise, where the transformer is
     */
    public Tensor paint(TokenGrid grid, Prompt prompt, Tensor noise, Listener listener) {
        Schedule schedule = Schedule.ofCheckpoint(directory, steps, grid.tokens());
        return pass(
                grid,
                prompt,
                noise,
                (denoiser, start) -> Euler.integrate(
                        start,
                        schedule,
                        0,
                        (latents, sigma) -> denoiser.velocity(latents, sigma, listener::betweenBlocks),
                        (step, latents) -> listener.step(step, schedule.steps())));
    }

    /**
     * The velocity of latents at one noise level.
     *
     * @param latents {@code [w·h, 64]}, float32, packed, in raster order
     * @param sigma their noise level, 0 … 1
     * @param betweenBlocks called after every transformer block; what it throws ends the pass
     * @return likewise, where the transformer is
     */
    public Tensor velocity(TokenGrid grid, Prompt prompt, Tensor latents, double sigma, Runnable betweenBlocks) {
        return pass(grid, prompt, latents, (denoiser, noised) -> denoiser.velocity(noised, sigma, betweenBlocks));
    }

    /** From latents in raster order to latents in raster order, by what computes in the order of attention's tokens. */
    private Tensor pass(TokenGrid grid, Prompt prompt, Tensor given, BiFunction<Denoiser, Tensor, Tensor> body) {
        Placement placement = transformer.placement();
        return Tensors.scoped(() -> {
            try (PassAttention attention = PassAttention.plain(dense, prompt.textTokens(), grid, placement);
                    Denoiser denoiser = transformer.denoiser(
                            attention.layout(),
                            attention.attention(),
                            FluxTransformer.THETA,
                            prompt.text().states(),
                            prompt.text().pooled(),
                            guidance)) {
                prompt.guide(denoiser);
                Tensor placed = placement.with(torch.ScalarType.Float).place(given);
                Tensor result = body.apply(denoiser, attention.layout().arrangeImage(placed));
                return attention.layout().restoreImage(result);
            }
        });
    }
}
