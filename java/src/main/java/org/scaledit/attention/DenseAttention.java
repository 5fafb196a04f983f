package org.scaledit.attention;

import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.SoftmaxAttention;
import org.scaledit.tensor.Tensors;

/**
 * Attention by torch under a boolean mask: the slow twin that {@link NativeAttention} is compared with. Its mask comes
 * from the coordinates of the tokens alone, so tokens may lie in any order. Takes any precision, float64 too.
 */
public final class DenseAttention implements DifferentiableAttention {
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

    /**
     * Refuses what has no mask, as its table of cells would be larger than an array.
     *
     * @param width of the image, in tokens; {@code height} likewise
     * @param ratio 0: there is no guidance image
     * @throws IllegalArgumentException in one sentence
     */
    public static void requireMask(int width, int height, int ratio) {
        long cells = TokenMask.cells(width, height, ratio);
        if (cells > TokenMask.MOST_CELLS) {
            throw new IllegalArgumentException(
                    "attention dense is asked for a picture that has, with guidance image and text, " + cells
                            + " cells of 8 × 8 tokens, expected at most " + TokenMask.MOST_CELLS
                            + ", or attention native");
        }
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

    @Override
    public Attended attendForGradients(Tensor query, Tensor key, Tensor value) {
        Tensor output = torch.empty_like(query);
        Tensor logSumExp = torch.empty(
                new long[] {query.size(1), query.size(0)}, statistics(query).options(), null);
        forEachChunk(query, (first, count) -> {
            Tensor scores = scores(first, count, query, key);
            Tensor sums = scores.logsumexp(-1); // [heads, rows]
            Tensor weights = scores.sub_(sums.unsqueeze(-1)).exp_();
            output.narrow(0, first, count)
                    .copy_(weights.matmul(statistics(value).transpose(0, 1)).transpose(0, 1));
            logSumExp.narrow(1, first, count).copy_(sums);
        });
        return new Attended(output, logSumExp);
    }

    @Override
    public Gradients gradients(Tensor query, Tensor key, Tensor value, Attended attended, Tensor outputGradient) {
        Gradients gradients = new Gradients(zeros(query), zeros(key), zeros(value)); // in the precision of the softmax
        Scalar scale = new Scalar(1 / Math.sqrt(query.size(2)));
        forEachChunk(query, (first, count) -> {
            Tensor ofOutput = statistics(outputGradient).narrow(0, first, count).transpose(0, 1);
            Tensor output =
                    statistics(attended.output()).narrow(0, first, count).transpose(0, 1);
            Tensor weights = scores(first, count, query, key)
                    .sub_(attended.logSumExp().narrow(1, first, count).unsqueeze(-1))
                    .exp_(); // [heads, rows, tokens]
            gradients.value().add_(weights.transpose(1, 2).matmul(ofOutput).transpose(0, 1));
            Tensor delta = ofOutput.mul(output).sum(new long[] {2}, true, new ScalarTypeOptional());
            Tensor ofScores = ofOutput.matmul(statistics(value).permute(1, 2, 0))
                    .sub_(delta)
                    .mul_(weights)
                    .mul_(scale);
            Tensor rows = statistics(query).narrow(0, first, count).transpose(0, 1);
            gradients
                    .query()
                    .narrow(0, first, count)
                    .copy_(ofScores.matmul(statistics(key).transpose(0, 1)).transpose(0, 1));
            gradients.key().add_(ofScores.transpose(1, 2).matmul(rows).transpose(0, 1));
        });
        torch.ScalarType type = query.scalar_type();
        return new Gradients(
                gradients.query().to(type),
                gradients.key().to(type),
                gradients.value().to(type));
    }

    private static Tensor zeros(Tensor like) {
        return torch.zeros_like(statistics(like));
    }

    /** In the precision of scores and softmax: float32, or float64 if the tokens are. */
    private static Tensor statistics(Tensor tensor) {
        return tensor.scalar_type().intern() == torch.ScalarType.Double ? tensor : Tensors.toFloat32(tensor);
    }

    private interface Chunk {
        void accept(long first, long count);
    }

    private void forEachChunk(Tensor query, Chunk body) {
        long tokens = query.size(0);
        long rows = Math.max(1, chunkElements / (tokens * query.size(1)));
        for (long first = 0; first < tokens; first += rows) {
            long from = first;
            long count = Math.min(rows, tokens - first);
            Tensors.run(() -> body.accept(from, count));
        }
    }

    /** Of the queries {@code first … first + count − 1}, minus infinity where they do not see: [heads, rows, tokens] */
    private Tensor scores(long first, long count, Tensor query, Tensor key) {
        Tensor rows = statistics(query).narrow(0, first, count).transpose(0, 1);
        Tensor scores = rows.matmul(statistics(key).permute(1, 2, 0)).div_(new Scalar(Math.sqrt(query.size(2))));
        return scores.masked_fill_(mask.rows(first, count).logical_not(), new Scalar(Double.NEGATIVE_INFINITY));
    }

    /** query [rows, heads, head_dim], key and value [tokens, heads, head_dim] → [rows, heads * head_dim] */
    private static Tensor softmax(Tensor query, Tensor key, Tensor value, TensorOptional mask) {
        Tensor attended = SoftmaxAttention.attend(
                headsFirst(query), headsFirst(key), headsFirst(value), mask, false, new DoubleOptional());
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
