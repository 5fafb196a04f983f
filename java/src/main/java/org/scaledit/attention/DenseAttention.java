package org.scaledit.attention;

import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Attention by torch under a boolean mask: the slow twin that {@link NativeAttention} is compared with. Its mask comes
 * from the coordinates of the tokens alone, so tokens may lie in any order.
 */
public final class DenseAttention implements Attention {
    /** Mask elements of one chunk of queries: 256 MiB, because torch widens a boolean to a float. */
    private static final long CHUNK_ELEMENTS = 1L << 26;

    private final TokenMask mask;
    private final long chunkElements;

    DenseAttention(TokenMask mask, long chunkElements) {
        this.mask = mask;
        this.chunkElements = chunkElements;
    }

    /**
     * The mask of the high-resolution pass, for tokens in the layout's order.
     *
     * @param placement of the tokens
     */
    public static DenseAttention windowed(TokenLayout layout, AttentionWindow window, Placement placement) {
        return new DenseAttention(new TokenMask(layout, window, placement), CHUNK_ELEMENTS);
    }

    /** Everyone attends to everyone: plain FLUX. */
    public static Attention full() {
        return (query, key, value) -> Tensors.scoped(() -> softmax(query, key, value, Tensors.none()));
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return Tensors.scoped(() -> {
            long tokens = query.size(0);
            long chunk = Math.max(1, chunkElements / tokens);
            Tensor output = torch.empty(new long[] {tokens, query.size(1) * query.size(2)}, query.options(), null);
            for (long first = 0; first < tokens; first += chunk) {
                attend(first, Math.min(chunk, tokens - first), query, key, value, output);
            }
            return output;
        });
    }

    /** Fills the rows {@code first … first + count − 1} of the output. */
    private void attend(long first, long count, Tensor query, Tensor key, Tensor value, Tensor output) {
        Tensors.run(() -> {
            Tensor seen = mask.rows(first, count);
            Tensor rows = softmax(query.narrow(0, first, count), key, value, Tensors.optional(seen));
            output.narrow(0, first, count).copy_(rows);
        });
    }

    /** query [rows, heads, head_dim], key and value [tokens, heads, head_dim] → [rows, heads * head_dim] */
    private static Tensor softmax(Tensor query, Tensor key, Tensor value, TensorOptional mask) {
        Tensor attended = torch.scaled_dot_product_attention(
                headsFirst(query), headsFirst(key), headsFirst(value), mask, 0, false, new DoubleOptional(), false);
        return attended.squeeze(0).transpose(0, 1).flatten(1, 2);
    }

    /** [tokens, heads, head_dim] → [1, heads, tokens, head_dim] */
    private static Tensor headsFirst(Tensor tokens) {
        return tokens.transpose(0, 1).unsqueeze(0);
    }

    @Override
    public boolean guidanceStandsAlone() {
        return mask.guidanceStandsAlone();
    }

    @Override
    public void close() {
        mask.close();
    }
}
