package org.scaledit.attention;

import org.bytedeco.pytorch.Tensor;

/** Attention of all heads of a sequence and its gradients, computed without torch's autograd: training needs both. */
public interface DifferentiableAttention extends Attention {

    /**
     * What the gradients need of the forward pass.
     *
     * @param output {@code [tokens, heads, head_dim]}
     * @param logSumExp of each query's scores, {@code [heads, tokens]}; float32 unless the tokens are float64
     */
    record Attended(Tensor output, Tensor logSumExp) {}

    /** Of a loss, {@code [tokens, heads, head_dim]} each. */
    record Gradients(Tensor query, Tensor key, Tensor value) {}

    /**
     * {@link #attend(Tensor, Tensor, Tensor)} with what {@link #gradients} needs.
     *
     * @return in the caller's scope
     */
    Attended attendForGradients(Tensor query, Tensor key, Tensor value);

    /**
     * The gradients of a loss.
     *
     * @param attended what {@link #attendForGradients} gave for this query, key and value
     * @param outputGradient the loss's gradient of the output, {@code [tokens, heads, head_dim]}
     * @return in the caller's scope
     */
    Gradients gradients(Tensor query, Tensor key, Tensor value, Attended attended, Tensor outputGradient);
}
