package org.scaledit.sampling;

import java.util.function.Supplier;
import org.bytedeco.pytorch.Tensor;

/**
 * Told how far sampling is, and of what came about. An exception that it throws ends the sampling and reaches whoever
 * asked for it. What it does not listen to it need not implement. Tensors are float32 on any device, tokens in raster order, valid during the call.
 */
public interface SamplingListener {
    /** Finished steps of the guidance image; 0 before the first. */
    default void guidanceImage(int step, int steps) {}

    /** Finished VAE tiles of enlarging the guidance of a level. */
    default void enlarge(int level, int tiles, int allTiles) {}

    /** Finished steps of a high-resolution pass; 0 before the first. */
    default void highResolution(int level, int step, int steps) {}

    /** Called after every transformer block, and after every VAE tile that nothing else tells of. */
    default void betweenBlocks() {}

    /** @param latents {@code [w·h, 64]}: the clean guidance image */
    default void guidanceLatents(Tensor latents) {}

    default void schedule(int level, Schedule schedule) {}

    /** @param latents {@code [W·H, 64]} after so many steps of a high-resolution pass, computed when asked for */
    default void latents(int level, int step, Supplier<Tensor> latents) {}
}
