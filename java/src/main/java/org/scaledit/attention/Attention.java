package org.scaledit.attention;

import org.bytedeco.pytorch.Tensor;

/** Attention over one sequence, {@code [text ; image ; guidance]}, all heads at once. */
public interface Attention extends AutoCloseable {
    /**
     * {@code softmax(query key^T / sqrt(head_dim) + mask) value}.
     *
     * @param query {@code [tokens, heads, head_dim]}, normed and rotated; may be a strided view
     * @param key {@code [tokens, heads, head_dim]}, likewise
     * @param value {@code [tokens, heads, head_dim]}, likewise
     * @return {@code [tokens, heads * head_dim]}, contiguous, in the caller's scope
     */
    Tensor attend(Tensor query, Tensor key, Tensor value);

    /** Frees what is kept from call to call. */
    @Override
    default void close() {}
}
