package org.scaledit.sampling;

import java.util.function.Supplier;
import org.bytedeco.pytorch.Tensor;

/**
 * Told how far sampling is, and of what came about. An exception that it throws ends the sampling and reaches whoever
 * asked for it. Tensors are float32 on any device, tokens in raster order, valid during the call.
 */
public interface SamplingListener {
    /** Finished steps of the guidance image; 0 before the first. */
    void guidanceImage(int step, int steps);

    /** Finished VAE tiles of enlarging the guidance of a level. */
    void enlarge(int level, int tiles, int allTiles);

    /** Finished steps of a high-resolution pass; 0 before the first. */
    void highResolution(int level, int step, int steps);

    /** Called after every transformer block. */
    void betweenBlocks();

    /** @param latents {@code [w·h, 64]}: the clean guidance image */
    void guidanceLatents(Tensor latents);

    void schedule(int level, Schedule schedule);

    /** @param latents {@code [W·H, 64]} after so many steps of a high-resolution pass, computed when asked for */
    void latents(int level, int step, Supplier<Tensor> latents);
}
