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
 * their borders, and of guidance tokens, as they come from the projections: as the mask names them, and no others; in 8 bits
 * where attention on a GPU is quantised all the same, see {@link BorderRows}. Text attends to all image tokens: each rank
 * computes the part of its own, and the parts are joined by their log-sum-exp, in the ranks' order, so that all ranks have
 * the same bits.
 *
 * <p>All ranks make the same calls in the same order, having met a moment before the first one.
 */
public final class ShardedAttention implements Attention {
    private final Exchange exchange;
    private final Border border;
    private final TokenLayout whole; // the shards' image tokens one after the other
    private final CoreAttention attention;
    private final boolean guidanceStandsAlone;
    private final BorderRows rows;
    private final Tensor given; // rows of the sequence for the other ranks
    private final Deque<Import> begun = new ArrayDeque<>();
    private final Deque<Text> unfinished = new ArrayDeque<>();

    /**
     * Keys and values on their way.
     *
     * @param given for other ranks
     * @param taken from them
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
     * The ranks' parts of the text's output on their way: side by side in one tensor, as what ranks exchange costs a wait each
     * time, are numbers of the output's type and the bits of their log-sum-exp.
     *
     * @param output this rank's part, to be replaced: {@code [text, heads, head_dim]}
     * @param own {@code [text, heads, head_dim + log-sum-exp]}
     * @param all {@code [ranks, text, heads, head_dim + log-sum-exp]}
     */
    private record Text(Tensor output, Tensor own, Tensor all, Exchange.Begun exchange) implements AutoCloseable {
        void join() {
            exchange.await();
            Tensors.run(() -> {
                long width = output.size(2);
                Tensor parts = all.narrow(3, 0, width);
                Tensor sums =
                        all.narrow(3, width, all.size(3) - width).contiguous().view(torch.ScalarType.Float);
                Tensor weights = torch.softmax(sums, 0); // [ranks, text, heads, 1]
                output.copy_(Tensors.toFloat32(parts).mul(weights).sum(0));
            });
        }

        @Override
        public void close() {
            exchange.close();
            output.close();
            own.close();
            all.close();
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
        this.rows = cuda && int8 ? BorderRows.INT8 : BorderRows.EXACT;
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
            Tensor all = forAll(padded);
            try (Exchange.Begun gather = exchange.gather(padded, all)) {
                gather.await();
            }
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
            finish();
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
        beginText(output, logSumExp, query.size(1));
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
        Tensors.run(() -> {
            Tensor own = rows.room(border.given().length, key);
            rows.give(key, value, given, own);
            Tensor taken = rows.room(border.taken(), key);
            Exchange.Begun swap = exchange.swap(own, border.givenRows(), taken, border.takenRows());
            begun.add(new Import(Tensors.keep(own), Tensors.keep(taken), swap));
        });
    }

    /** Fills the last rows: keys and values from the other ranks, and queries that nobody asks but that must be numbers. */
    private void takeImported(Tensor query, Tensor key, Tensor value) {
        try (Import first = begun.remove()) {
            first.exchange.await();
            Tensors.run(() -> {
                long imported = border.taken();
                long from = query.size(0) - imported;
                query.narrow(0, from, imported).zero_();
                rows.take(first.taken, key.narrow(0, from, imported), value.narrow(0, from, imported));
            });
        }
    }

    /**
     * Begins to replace this rank's output for the text by that of all.
     *
     * @param output {@code [tokens, heads * head_dim]}
     * @param logSumExp {@code [heads, tokens]}
     */
    private void beginText(Tensor output, Tensor logSumExp, long heads) {
        long text = layout().textTokens();
        if (text == 0) {
            return;
        }
        Tensors.run(() -> {
            Tensor rows = output.narrow(0, 0, text).unflatten(1, heads, -1);
            Tensor sums = logSumExp.narrow(1, 0, text).t().contiguous().unsqueeze(2); // [text, heads, 1]
            Tensor own = Tensors.concatenate(2, rows, sums.view(rows.scalar_type()));
            Tensor all = forAll(own);
            Exchange.Begun gather = exchange.gather(own, all);
            unfinished.add(new Text(Tensors.keep(rows), Tensors.keep(own), Tensors.keep(all), gather));
        });
    }

    @Override
    public void finish() {
        while (!unfinished.isEmpty()) {
            try (Text first = unfinished.remove()) {
                first.join();
            }
        }
    }

    /** For a tensor of each rank, one after the other. */
    private Tensor forAll(Tensor own) {
        long[] shape = LongStream.concat(LongStream.of(exchange.ranks()), LongStream.of(own.shape()))
                .toArray();
        return torch.empty(shape, own.options(), null);
    }

    /** Queries of guidance tokens that mean nothing are attended with all the same: what is exchanged stays as it is. */
    @Override
    public boolean guidanceStandsAlone() {
        return guidanceStandsAlone;
    }

    @Override
    public void close() {
        begun.forEach(Import::close); // of a call that failed, like the others
        begun.clear();
        unfinished.forEach(Text::close);
        unfinished.clear();
        attention.close();
        given.close();
    }
}
