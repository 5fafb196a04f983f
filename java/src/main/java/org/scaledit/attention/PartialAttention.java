package org.scaledit.attention;

import java.util.Optional;
import org.bytedeco.pytorch.Tensor;

/** Attention whose outputs for parts of the keys can be joined. */
interface PartialAttention extends DifferentiableAttention {
    /**
     * Attention with what joins it to others of the same queries.
     *
     * @param query {@code [tokens, heads, head_dim]}; {@code key} and {@code value} likewise
     * @param lacking what queries and keys lack; empty if they are normed and rotated
     * @param output {@code [tokens, heads * head_dim]}, written; may be a strided view
     * @param logSumExp of each query's scores, {@code [heads, tokens]}, float32, contiguous, written
     */
    void attend(Tensor query, Tensor key, Tensor value, Optional<Preparation> lacking, Tensor output, Tensor logSumExp);
}
