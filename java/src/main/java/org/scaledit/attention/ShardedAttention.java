package org.scaledit.attention;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.ranks.Exchange;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * The attention of one rank of several that paint a picture together, each a shard of it: a run of windows along the Hilbert
 * curve and one of the guidance image's cells, with about the same work. A call's sequence is {@code [text ; own image
 * tokens ; own guidance tokens ; imported tokens]}, see {@link TokenLayout}.
 *
 * <p>Local attention needs little of the other shards. Before each call ranks exchange the keys and values of the cells on
 * their borders, and of guidance tokens, as they come from the projections: as the mask names them, and no others. Text
 * attends to all image tokens: each rank computes the part of its own, and the parts are joined by their log-sum-exp, in the
 * ranks' order, so that all ranks have the same bits.
 *
 * <p>All ranks make the same calls in the same order, having met a moment before the first one.
 */
public final class ShardedAttention implements Attention {
    private final Exchange exchange;
    private final Border border;
    private final TokenLayout whole; // the shards' image tokens one after the other
    private final CoreAttention attention;
    private final boolean guidanceStandsAlone;
    private final Tensor given; // rows of the sequence for the other ranks
    private final Deque<Import> begun = new ArrayDeque<>();

    /**
     * Keys and values on their way.
     *
     * @param given for other ranks: {@code [rows, 2, heads, head_dim]}
     * @param taken from them, likewise
     */
    private record Import(Tensor given, Tensor taken, Exchange.Begun exchange) implements AutoCloseable {
        @Override
        public void close() {
            exchange.close();
            given.close();
            taken.close();
        }
    }

    /**
     * @param width tokens of the whole image's grid; {@code height} likewise
     * @param cuda whether the tokens are on a GPU
     * @param int8 whether queries and keys are quantised
     * @param exchange of as many ranks as there are shards
     * @throws IllegalArgumentException in one sentence, if the image has fewer windows than there are ranks, or naming the
     *     argument that the core does not take
     */
    public ShardedAttention(
            int textTokens,
            int width,
            int height,
            AttentionWindow window,
            boolean cuda,
            boolean int8,
            Exchange exchange) {
        this.exchange = exchange;
        this.guidanceStandsAlone = !window.guidanceSeesText();
        try (Geometry geometry = Geometry.windowed(textTokens, width, height, window)) {
            this.whole = geometry.layout();
            this.border = Border.of(geometry, exchange.ranks(), exchange.rank());
            this.attention = CoreAttention.shard(geometry, exchange.ranks(), exchange.rank(), cuda, int8);
        }
        Placement placement = new Placement(torch.ScalarType.Long, cuda);
        try {
            this.given = Tensors.outlive(() -> placement.place(Tensors.of(border.given(), border.given().length)));
        } catch (RuntimeException | Error e) {
            attention.close();
            throw e;
        }
    }

    /** How the shard's tokens must lie in memory. */
    public TokenLayout layout() {
        return attention.layout();
    }

    /**
     * The image tokens of all ranks, in raster order: as {@link TokenLayout#restoreImage} of the whole picture.
     *
     * @param own the shard's, {@code [own tokens, channels]}
     * @return {@code [W·H, channels]}, the same bits in all ranks
     */
    public Tensor restoreImage(Tensor own) {
        return Tensors.scoped(() -> {
            long most = LongStream.of(border.own()).max().orElseThrow();
            Tensor padded = torch.zeros(new long[] {most, own.size(1)}, own.options());
            padded.narrow(0, 0, own.size(0)).copy_(own);
            Tensor all = gathered(padded);
            Tensor[] parts = IntStream.range(0, exchange.ranks())
                    .mapToObj(rank -> all.select(0, rank).narrow(0, 0, border.own()[rank]))
                    .toArray(Tensor[]::new);
            return whole.restoreImage(Tensors.concatenate(0, parts));
        });
    }

    /** Tokens of which this rank takes a key and a value for each head and call. */
    @Override
    public int importedTokens() {
        return attention.layout().importedTokens();
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return Tensors.scoped(() -> {
            long[] shape = {query.size(0), query.size(1) * query.size(2)};
            Tensor output = torch.empty(shape, query.options(), null);
            attend(query, key, value, Optional.empty(), output);
            return output;
        });
    }

    @Override
    public void attend(Tensor query, Tensor key, Tensor value, Preparation preparation, Tensor output) {
        Tensors.run(() -> attend(query, key, value, Optional.of(preparation), output));
    }

    private void attend(Tensor query, Tensor key, Tensor value, Optional<Preparation> lacking, Tensor output) {
        if (exchanges()) {
            if (begun.isEmpty()) {
                begin(key, value);
            }
            takeImported(query, key, value);
        }
        Placement placement = new Placement(torch.ScalarType.Float, query.is_cuda());
        Tensor logSumExp = torch.empty(new long[] {query.size(1), query.size(0)}, placement.options(), null);
        attention.attend(query, key, value, lacking, output, logSumExp);
        joinText(output, logSumExp, query.size(1));
    }

    @Override
    public boolean exchanges() {
        return border.exchanged() > 0;
    }

    @Override
    public void begin(Tensor key, Tensor value) {
        if (!exchanges()) {
            return;
        }
        long[] shape = {border.given().length, 2, key.size(1), key.size(2)};
        Tensor own = Tensors.outlive(() -> torch.empty(shape, key.options(), null));
        shape[0] = border.taken();
        Tensor taken = Tensors.outlive(() -> torch.empty(shape, key.options(), null));
        try {
            Tensors.run(() -> {
                own.select(1, 0).copy_(key.index_select(0, given));
                own.select(1, 1).copy_(value.index_select(0, given));
            });
            begun.add(new Import(own, taken, exchange.swap(own, border.givenRows(), taken, border.takenRows())));
        } catch (RuntimeException | Error e) {
            own.close();
            taken.close();
            throw e;
        }
    }

    /** Fills the last rows: keys and values from the other ranks, and queries that nobody asks but that must be numbers. */
    private void takeImported(Tensor query, Tensor key, Tensor value) {
        try (Import first = begun.remove()) {
            first.exchange.await();
            Tensors.run(() -> {
                long rows = border.taken();
                long from = query.size(0) - rows;
                query.narrow(0, from, rows).zero_();
                key.narrow(0, from, rows).copy_(first.taken.select(1, 0));
                value.narrow(0, from, rows).copy_(first.taken.select(1, 1));
            });
        }
    }

    /**
     * Replaces this rank's output for the text by that of all.
     *
     * @param output {@code [tokens, heads * head_dim]}
     * @param logSumExp {@code [heads, tokens]}
     */
    private void joinText(Tensor output, Tensor logSumExp, long heads) {
        long text = layout().textTokens();
        if (text == 0) {
            return;
        }
        Tensors.run(() -> {
            Tensor rows = output.narrow(0, 0, text).unflatten(1, heads, -1); // [text, heads, head_dim]
            Tensor sums = logSumExp.narrow(1, 0, text).t().contiguous().unsqueeze(2); // [text, heads, 1]
            // Side by side in one tensor: what ranks exchange costs a wait each time. The bits of the sums stay as they
            // are.
            Tensor all = gathered(Tensors.concatenate(2, rows, sums.view(rows.scalar_type())));
            long width = rows.size(2);
            Tensor parts = all.narrow(3, 0, width); // [ranks, text, heads, head_dim]
            Tensor allSums =
                    all.narrow(3, width, all.size(3) - width).contiguous().view(torch.ScalarType.Float);
            Tensor weights = torch.softmax(allSums, 0); // [ranks, text, heads, 1]
            rows.copy_(Tensors.toFloat32(parts).mul(weights).sum(0));
        });
    }

    /** A tensor of each rank, contiguous, one after the other, in the caller's scope. */
    private Tensor gathered(Tensor own) {
        long[] shape = LongStream.concat(LongStream.of(exchange.ranks()), LongStream.of(own.shape()))
                .toArray();
        Tensor all = torch.empty(shape, own.options(), null);
        exchange.gather(own, all);
        return all;
    }

    /** Queries of guidance tokens that mean nothing are attended with all the same: what is exchanged stays as it is. */
    @Override
    public boolean guidanceStandsAlone() {
        return guidanceStandsAlone;
    }

    @Override
    public void close() {
        begun.forEach(Import::close); // of a call that failed
        begun.clear();
        attention.close();
        given.close();
    }
}
