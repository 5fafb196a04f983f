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

    /**
     * Whether it norms and rotates queries and keys by itself, with gradients. If not, neither of the methods that take a
     * preparation may be called.
     */
    default boolean prepares() {
        return false;
    }

    /**
     * {@link #attendForGradients(Tensor, Tensor, Tensor)} of queries and keys that are neither normed nor rotated.
     *
     * @return in the caller's scope
     */
    default Attended attendForGradients(Tensor query, Tensor key, Tensor value, Preparation preparation) {
        throw new IllegalStateException("this attention does not prepare queries and keys");
    }

    /**
     * The gradients of a loss by query and key as they are before norm and rotation, and by value.
     *
     * @return in the caller's scope
     */
    default Gradients gradients(
            Tensor query, Tensor key, Tensor value, Preparation preparation, Attended attended, Tensor outputGradient) {
        throw new IllegalStateException("this attention does not prepare queries and keys");
    }
}
