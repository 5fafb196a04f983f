package org.scaledit.transformer;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Attention;
import org.scaledit.attention.Preparation;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Tensors;

/**
 * What all blocks of one forward pass have in common. The hidden state is {@code [text ; image ; guidance]}, without the
 * guidance tokens if their keys and values are put back.
 *
 * @param conditioning SiLU of the embedding: [1, width], with guidance tokens [2, width]
 * @param guidanceTokens of the hidden state
 * @param kept where the guidance tokens' keys and values are kept or come from
 * @param begins told which part of the pass begins
 */
record Pass(
        Tensor conditioning,
        RotaryEmbedding rotary,
        Attention attention,
        TokenWise tokenWise,
        long textTokens,
        long guidanceTokens,
        Optional<KeptGuidance> kept,
        FluxConfig config,
        Consumer<Part> begins) {

    /** The modulation of tokens among which are the guidance tokens: from a layer width → parts * width */
    Modulation modulation(Linear layer) {
        begins(Part.EMBED);
        long guidanceRow = conditioning.size(0) - 1;
        return new Modulation(layer.forward(conditioning, guidanceRow), config.width(), guidanceTokens);
    }

    /** The modulation of tokens without guidance. */
    Modulation modulationWithoutGuidance(Linear layer) {
        begins(Part.EMBED);
        return new Modulation(layer.forward(conditioning.narrow(0, 0, 1), 0), config.width(), 0);
    }

    /** Layer norm, scale and shift of some rows: [rows, width] → [rows, width] */
    Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale) {
        begins(Part.MODULATE);
        return tokenWise.modulated(hidden, modulation, shift, scale);
    }

    /** Adds {@code gate · y} to some rows of the hidden state: [rows, width] */
    void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate) {
        begins(Part.GATE);
        tokenWise.addGated(hidden, y, modulation, gate);
    }

    /** {@link #addGated} and then {@link #modulated} of the sum. */
    Matrix addedAndModulated(Tensor hidden, Tensor y, Modulation modulation, int gate, int shift, int scale) {
        begins(Part.MODULATE);
        return tokenWise.addedAndModulated(hidden, y, modulation, gate, shift, scale);
    }

    /**
     * Consecutive tokens on their way into attention.
     *
     * @param x [rows, width], normed and modulated
     */
    record Stream(Matrix x, long guidanceRows, HeadProjections projections) {}

    /**
     * Attention of all tokens.
     *
     * @param norms of queries and keys of all tokens, or of those that are not text
     * @param streams whose rows together are the hidden state's
     * @return [rows, width], in the caller's scope
     */
    Tensor attend(Norms norms, Optional<Norms> textNorms, List<Stream> streams) {
        return Tensors.scoped(() -> {
            Preparation preparation = new Preparation(norms, textNorms, textTokens, rotary.turns());
            if (streams.get(0).x.values().requires_grad()) {
                return attendForGradients(streams, preparation);
            }
            long rows = streams.stream().mapToLong(stream -> stream.x.rows()).sum();
            long tokens = rows + kept.map(KeptGuidance::missing).orElse(0L) + attention.importedTokens();
            Tensor attended = torch.empty(new long[] {tokens, config.width()}, conditioning.options(), null);
            attend(streams, preparation, attended);
            return attended.narrow(0, 0, rows);
        });
    }

    /** Without a place that tensors are written to: autograd would copy all of it with each. */
    private Tensor attendForGradients(List<Stream> streams, Preparation preparation) {
        int groups = streams.get(0).projections.groups().size();
        Tensor[] outputs = new Tensor[groups];
        for (int group = 0; group < groups; group++) {
            int current = group;
            outputs[group] = Tensors.scoped(() -> {
                begins(Part.PROJECT);
                Tensor[] projected = streams.stream()
                        .map(stream -> stream.projections.groups().get(current).forward(stream.x, stream.guidanceRows))
                        .toArray(Tensor[]::new);
                begins(Part.ATTEND);
                return attention.attend(joined(0, projected).unflatten(1, 3, -1, config.headDim()), preparation);
            });
        }
        return joined(1, outputs);
    }

    private static Tensor joined(long dimension, Tensor[] parts) {
        return parts.length == 1 ? parts[0] : Tensors.concatenate(dimension, parts);
    }

    /** Fills attention's output, one group of heads after the other: [tokens, width] */
    private void attend(List<Stream> streams, Preparation preparation, Tensor attended) {
        int groups = streams.get(0).projections.groups().size();
        long columns = config.width() / groups;
        // Where ranks exchange, the next group is projected while they do: in all of them, as they exchange in one
        // order.
        int ahead = attention.exchanges() ? 2 : 1;
        Deque<Tensor> projected = new ArrayDeque<>();
        try {
            int next = 0;
            for (int group = 0; group < groups; group++) {
                for (; next < Math.min(group + ahead, groups); next++) {
                    int current = next;
                    projected.add(Tensors.outlive(() -> projected(current, streams, attended.size(0), columns)));
                }
                try (Tensor heads = projected.remove()) {
                    begins(Part.ATTEND);
                    Tensor output = attended.narrow(1, group * columns, columns);
                    Tensors.run(() -> attention.attend(
                            heads.select(1, 0), heads.select(1, 1), heads.select(1, 2), preparation, output));
                }
            }
            attention.finish();
        } finally {
            projected.forEach(Tensor::close);
        }
    }

    /** Queries, keys and values of one group of heads: [tokens, 3, heads, head_dim] */
    private Tensor projected(int group, List<Stream> streams, long tokens, long columns) {
        begins(Part.PROJECT);
        Tensor projected = torch.empty(new long[] {tokens, 3 * columns}, conditioning.options(), null);
        long row = 0;
        for (Stream stream : streams) {
            Tensor rows = projected.narrow(0, row, stream.x.rows());
            stream.projections.groups().get(group).forward(stream.x, stream.guidanceRows, rows);
            row += stream.x.rows();
        }
        long own = tokens - attention.importedTokens();
        kept.ifPresent(guidance -> guidance.keepOrPutBack(projected.narrow(0, 0, own)));
        Tensor heads = projected.unflatten(1, 3, -1, config.headDim());
        attention.begin(heads.select(1, 1), heads.select(1, 2));
        return heads;
    }

    /** The same pass with another attention and other token-wise work; nothing of it is kept. */
    Pass with(Attention otherAttention, TokenWise otherTokenWise) {
        return new Pass(
                conditioning,
                rotary,
                otherAttention,
                otherTokenWise,
                textTokens,
                guidanceTokens,
                Optional.empty(),
                config,
                begins);
    }

    void begins(Part part) {
        begins.accept(part);
    }
}
