package org.scaledit.attention;

import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/** Attention over one sequence, {@code [text ; image ; guidance]}, of all heads or of some. */
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

    /**
     * The same for queries and keys as they come from their projections, and for any part of the heads.
     *
     * @param query {@code [tokens, heads, head_dim]}, neither normed nor rotated; may be a strided view
     * @param key {@code [tokens, heads, head_dim]}, likewise
     * @param value {@code [tokens, heads, head_dim]}, likewise
     * @param output {@code [tokens, heads * head_dim]}, written, whole after {@link #finish}; may be a strided view
     */
    default void attend(Tensor query, Tensor key, Tensor value, Preparation preparation, Tensor output) {
        Tensors.run(() -> output.copy_(attend(preparation.query(query), preparation.key(key), value)));
    }

    /**
     * The same for queries, keys and values side by side, as one projection leaves them.
     *
     * @param projected {@code [tokens, 3, heads, head_dim]}, queries and keys neither normed nor rotated
     * @return {@code [tokens, heads * head_dim]}, in the caller's scope
     */
    default Tensor attend(Tensor projected, Preparation preparation) {
        return Tensors.scoped(() -> attend(
                preparation.query(projected.select(1, 0)),
                preparation.key(projected.select(1, 1)),
                projected.select(1, 2)));
    }

    /**
     * Whether guidance tokens attend to none but each other, so that their keys and values do not depend on the other
     * tokens.
     */
    default boolean guidanceStandsAlone() {
        return false;
    }

    /**
     * Tells that from now on guidance tokens are keys and values alone: their queries are finite but mean nothing, and
     * nobody looks at their rows of the output.
     */
    default void leaveOutGuidanceQueries() {}

    /**
     * Tokens that belong to other shards of the picture: the last rows of query, key, value and output. The attention
     * writes them there by itself, but for the output's, which mean nothing. 0 if the sequence is a whole picture's.
     */
    default int importedTokens() {
        return 0;
    }

    /** Whether it exchanges with other ranks, in all of which the answer is the same. */
    default boolean exchanges() {
        return false;
    }

    /**
     * Tells of keys and values of a call that is still to come, in the order of the calls: what other ranks need of them, and
     * this one of theirs, is then on its way meanwhile. They must stay as they are. Nothing has to be told.
     */
    default void begin(Tensor key, Tensor value) {}

    /**
     * Makes whole what {@link #attend(Tensor, Tensor, Tensor, Preparation, Tensor)} has written since the last time: until then
     * rows of it may lack the other ranks' part.
     */
    default void finish() {}

    /** Frees what is kept from call to call. */
    @Override
    default void close() {}
}
