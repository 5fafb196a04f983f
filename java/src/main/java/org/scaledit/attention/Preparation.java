package org.scaledit.attention;

import java.util.Optional;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * What a block's queries and keys lack when they come from their projections: RMSNorm of each head, and rotation by
 * position. A kernel that quantises them does both on the way; for all others torch does it here.
 *
 * @param norms of image and guidance tokens, and of text tokens unless these have their own
 * @param textNorms of the first {@code textTokens} tokens
 * @param turns cosine and sine of each pair of channels: {@code [tokens, 1, head_dim / 2]}, complex64
 */
public record Preparation(Norms norms, Optional<Norms> textNorms, long textTokens, Tensor turns) {
    /** FLUX's, of the mean square before its root. */
    public static final double EPSILON = 1e-6;

    /**
     * The scales of the RMSNorms of one block.
     *
     * @param query {@code [head_dim]}
     * @param key {@code [head_dim]}
     */
    public record Norms(Tensor query, Tensor key) {}

    /**
     * Queries as attention multiplies them: {@code [tokens, heads, head_dim]}, or {@code [batch, tokens, heads, head_dim]}, →
     * the same, in the caller's scope.
     */
    public Tensor query(Tensor projected) {
        return prepared(projected, norms.query, textNorms.map(Norms::query));
    }

    /** Keys likewise. */
    public Tensor key(Tensor projected) {
        return prepared(projected, norms.key, textNorms.map(Norms::key));
    }

    private Tensor prepared(Tensor projected, Tensor scale, Optional<Tensor> textScale) {
        long axis = projected.dim() - 3; // of the tokens
        return Tensors.scoped(() -> rotated(
                Tensors.scoped(() -> textScale
                        .map(ofText -> Tensors.concatenate(
                                axis,
                                normed(projected.narrow(axis, 0, textTokens), ofText),
                                normed(projected.narrow(axis, textTokens, projected.size(axis) - textTokens), scale)))
                        .orElseGet(() -> normed(projected, scale))),
                turns));
    }

    /** RMSNorm of each head: […, head_dim] → the same */
    public static Tensor normed(Tensor x, Tensor scale) {
        return torch.rms_norm(x, new long[] {x.size(-1)}, Tensors.optional(scale), new DoubleOptional(EPSILON));
    }

    /**
     * Rotation by position, in float32: […, tokens, heads, head_dim] → the same, in the dtype given.
     *
     * @param turns as a preparation has them
     */
    public static Tensor rotated(Tensor x, Tensor turns) {
        Tensor pairs = Tensors.toFloat32(x).unflatten(-1, -1, 2);
        Tensor turned = torch.view_as_real(torch.view_as_complex(pairs).mul(turns));
        return turned.flatten(-2, -1).to(x.scalar_type());
    }
}
