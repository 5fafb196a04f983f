package org.scaledit.vae;

import static org.scaledit.tensor.Tensors.scoped;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;

/**
 * The forms a latent takes: raw as the autoencoder has it, scaled as the transformer has it; a map, or packed into tokens
 * of 2 × 2 latents (FLUX {@code sampling.prepare} and {@code unpack}).
 */
public final class Latents {
    private Latents() {}

    /** Tokens in raster order; a token's values are ordered by channel, row in the patch, column in the patch. */
    public static Tensor pack(Tensor latent) { // [channels, 2H, 2W] -> [H · W, 4 · channels]
        long channels = latent.size(0);
        long height = latent.size(1) / 2;
        long width = latent.size(2) / 2;
        return scoped(() -> latent.reshape(channels, height, 2, width, 2)
                .permute(1, 3, 0, 2, 4)
                .reshape(height * width, 4 * channels));
    }

    /** The inverse of {@link #pack} for a grid of {@code height × width} tokens. */
    public static Tensor unpack(Tensor tokens, int height, int width) { // [H · W, 4 · channels] -> [channels, 2H, 2W]
        long channels = tokens.size(1) / 4;
        return scoped(() -> tokens.reshape(height, width, channels, 2, 2)
                .permute(2, 0, 3, 1, 4)
                .reshape(channels, 2L * height, 2L * width));
    }

    /** Raw to scaled: {@code (z − shift) · scale}. */
    public static Tensor scale(Tensor raw, VaeConfig config) {
        return scoped(() -> raw.sub(new Scalar(config.shiftFactor())).mul(new Scalar(config.scalingFactor())));
    }

    /** Scaled to raw: {@code z / scale + shift}. */
    public static Tensor unscale(Tensor scaled, VaeConfig config) {
        return scoped(() -> scaled.div(new Scalar(config.scalingFactor())).add(new Scalar(config.shiftFactor())));
    }
}
