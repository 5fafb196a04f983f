package org.scaledit.transformer;

import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Attention;
import org.scaledit.tensor.Tensors;

/**
 * What all blocks of one forward pass have in common. The hidden state is {@code [text ; image ; guidance]}.
 *
 * @param conditioning SiLU of the embedding: [1, width], with guidance tokens [2, width]
 */
record Pass(
        Tensor conditioning,
        RotaryEmbedding rotary,
        Attention attention,
        long textTokens,
        long guidanceTokens,
        FluxConfig config) {
    private static final double EPSILON = 1e-6;

    /** The modulation of tokens among which are the guidance tokens: from a layer width → parts * width */
    Modulation modulation(Linear layer) {
        long guidanceRow = conditioning.size(0) - 1;
        return new Modulation(layer.forward(conditioning, guidanceRow), config.width(), guidanceTokens);
    }

    /** The modulation of tokens without guidance. */
    Modulation modulationWithoutGuidance(Linear layer) {
        return new Modulation(layer.forward(conditioning.narrow(0, 0, 1), 0), config.width(), 0);
    }

    /** [rows, width] → [rows, heads, head_dim] */
    Tensor heads(Tensor x) {
        return x.unflatten(1, config.heads(), config.headDim());
    }

    /** Queries or keys of each head under RMSNorm: [rows, width] → [rows, heads, head_dim] */
    Tensor normed(Tensor x, Tensor scale) {
        return torch.rms_norm(
                heads(x), new long[] {config.headDim()}, Tensors.optional(scale), new DoubleOptional(EPSILON));
    }

    /** Queries or keys of the whole sequence, turned by position: [tokens, heads, head_dim] → the same */
    Tensor turned(Tensor x) {
        return rotary.rotate(x);
    }
}
