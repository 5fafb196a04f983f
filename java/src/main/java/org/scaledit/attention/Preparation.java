package org.scaledit.attention;

import java.util.Arrays;
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

    /** Numbers that are prepared at a time on a CPU: 1 MiB in float32, four or five times that on the way. */
    private static final long PIECE = 1 << 18;

    /**
     * The scales of the RMSNorms of one block.
     *
     * @param query {@code [head_dim]}
     * @param key {@code [head_dim]}
     */
    public record Norms(Tensor query, Tensor key) {
        private void requireFor(long headDim) {
            requireNorm(query, headDim);
            requireNorm(key, headDim);
        }
    }

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
        if (axis == 0 && !projected.is_cuda() && !projected.requires_grad() && !scale.requires_grad()) {
            return inPieces(projected, scale, textScale);
        }
        return Tensors.scoped(() -> rotated(
                Tensors.scoped(() -> textScale
                        .map(ofText -> Tensors.concatenate(
                                axis,
                                normed(projected.narrow(axis, 0, textTokens), ofText),
                                normed(projected.narrow(axis, textTokens, projected.size(axis) - textTokens), scale)))
                        .orElseGet(() -> normed(projected, scale))),
                turns));
    }

    /** The same, so few tokens at a time that what is computed on the way stays in a processor's cache. */
    private Tensor inPieces(Tensor projected, Tensor scale, Optional<Tensor> textScale) {
        return Tensors.scoped(() -> {
            Tensor output = torch.empty(projected.shape(), projected.options(), null);
            long tokens = projected.size(0);
            long text = textScale.isPresent() ? textTokens : 0;
            long most = Math.max(1, PIECE / (projected.size(1) * projected.size(2)));
            long count;
            for (long first = 0; first < tokens; first += count) {
                long from = first;
                long rows = Math.min(most, (first < text ? text : tokens) - first);
                Tensor norm = first < text ? textScale.orElseThrow() : scale;
                Tensors.run(() -> output.narrow(0, from, rows)
                        .copy_(rotated(normed(projected.narrow(0, from, rows), norm), turns.narrow(0, from, rows))));
                count = rows;
            }
            return output;
        });
    }

    /**
     * The core is told where they begin alone.
     *
     * @throws IllegalArgumentException naming what is not of so many tokens, or of so many channels
     */
    void requireFor(long tokens, long headDim) {
        requireTurns(turns, tokens, headDim);
        norms.requireFor(headDim);
        textNorms.ifPresent(ofText -> ofText.requireFor(headDim));
    }

    static void requireNorm(Tensor norm, long headDim) {
        boolean fits = norm.scalar_type().intern() == torch.ScalarType.BFloat16
                && norm.is_contiguous()
                && Arrays.equals(norm.shape(), new long[] {headDim});
        if (!fits) {
            throw new IllegalArgumentException("norm has shape " + Tensors.shape(norm) + " of "
                    + norm.scalar_type().intern() + ", expected [" + headDim + "] of BFloat16 without gaps");
        }
    }

    /**
     * The core is told where turns begin alone.
     *
     * @throws IllegalArgumentException if these are not those of so many tokens
     */
    public static void requireTurns(Tensor turns, long tokens, long headDim) {
        boolean fit = turns.scalar_type().intern() == torch.ScalarType.ComplexFloat
                && turns.is_contiguous()
                && Arrays.equals(turns.shape(), new long[] {tokens, 1, headDim / 2});
        if (!fit) {
            throw new IllegalArgumentException("rotation has shape " + Tensors.shape(turns) + " of "
                    + turns.scalar_type().intern() + ", expected [" + tokens + ", 1, " + headDim / 2
                    + "] of ComplexFloat without gaps");
        }
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
