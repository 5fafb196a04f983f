package org.scaledit.tensor;

import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/** Torch's own attention, {@code softmax(scale · query · keyᵀ + bias) · value} for each head, with gradients where asked for. */
public final class SoftmaxAttention {
    private SoftmaxAttention() {}

    /** {@link #attend(Tensor, Tensor, Tensor, TensorOptional, boolean, DoubleOptional)} to everything, by the usual scale. */
    public static Tensor attend(Tensor query, Tensor key, Tensor value) {
        return attend(query, key, value, Tensors.none(), false, new DoubleOptional());
    }

    /**
     * On a CPU in bfloat16 it computes in float32 and rounds at the end: there torch multiplies bfloat16 by a plain loop, which
     * is four times as slow (seen without AMX).
     *
     * @param query {@code [batch, heads, tokens, size]}; key and value likewise, with as many tokens as are attended to
     * @param bias what is added to the scores, or booleans, false where nothing is seen; {@code [batch or 1, heads or 1, tokens,
     *     tokens]}
     * @param causal whether a token sees itself and those before it alone; there is no bias then
     * @param scale without one {@code 1 / √size}
     * @return {@code [batch, heads, tokens, size]}, in the caller's scope
     */
    public static Tensor attend(
            Tensor query, Tensor key, Tensor value, TensorOptional bias, boolean causal, DoubleOptional scale) {
        return Tensors.scoped(() -> {
            if (query.is_cuda() || query.scalar_type().intern() != torch.ScalarType.BFloat16) {
                return torch.scaled_dot_product_attention(query, key, value, bias, 0, causal, scale, false);
            }
            boolean added = bias.has_value() && bias.get().is_floating_point();
            return torch.scaled_dot_product_attention(
                            Tensors.toFloat32(query),
                            Tensors.toFloat32(key),
                            Tensors.toFloat32(value),
                            added ? Tensors.optional(Tensors.toFloat32(bias.get())) : bias,
                            0,
                            causal,
                            scale,
                            false)
                    .to(query.scalar_type());
        });
    }
}
