package org.scaledit.sampling;

import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.vae.Latents;

/**
 * Noise from torch's CPU generator, drawn in the shape of unpacked latents, {@code [1, 16, 2H, 2W]} in float32: the
 * guidance image's noise is what diffusers' FluxPipeline draws from a CPU generator of the same seed. Each level has a
 * generator of its own, so that a picture's noise does not depend on how its guidance image came about.
 */
public record SeededNoise(long seed) implements Noise {
    private static final int LATENT_CHANNELS = 16;
    private static final long GOLDEN_RATIO = 0x9E3779B97F4A7C15L;

    @Override
    public Tensor guidance(TokenGrid grid) {
        return draw(seed, grid);
    }

    @Override
    public Tensor image(int level, TokenGrid grid) {
        return draw(seed ^ (level * GOLDEN_RATIO), grid);
    }

    /** The noise of a seed: {@code [W·H, 64]}, float32 on the CPU, packed, in raster order. */
    public static Tensor draw(long seed, TokenGrid grid) {
        return Tensors.scoped(() -> {
            Generator generator = torch.createCPUGenerator(seed);
            long[] shape = {LATENT_CHANNELS, 2L * grid.height(), 2L * grid.width()};
            return Latents.pack(torch.randn(shape, new GeneratorOptional(generator), Placement.FLOAT32_CPU.options()));
        });
    }
}
