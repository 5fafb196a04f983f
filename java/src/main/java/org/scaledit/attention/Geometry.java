package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.scaledit.bindings.GeometryHandle;
import org.scaledit.bindings.GeometryInfo;
import org.scaledit.bindings.GeometryOptions;
import org.scaledit.bindings.NativeLibrary;
import org.scaledit.bindings.Status;
import org.scaledit.bindings.Tile;
import org.scaledit.bindings.TileRange;
import org.scaledit.tensor.Tensors;

/**
 * The native core's geometry of one sequence: tokens in Hilbert order, cut into tiles that share a mask row, and for
 * each tile the tiles that it attends to. Built once for a size, used by any number of threads.
 */
public final class Geometry implements AutoCloseable {
    /** Cells of 8 tokens across the largest grid that the core takes, 4096 tokens. */
    private static final int WHOLE_GRID = 512;

    private final GeometryHandle handle;
    private final TokenLayout layout;
    private final long pairs;
    private final int tiles;
    private final int ranges;

    private Geometry(GeometryHandle handle, TokenLayout layout, GeometryInfo info) {
        this.handle = handle;
        this.layout = layout;
        this.pairs = info.pairs();
        this.tiles = Math.toIntExact(info.tiles());
        this.ranges = Math.toIntExact(info.ranges());
    }

    /**
     * The geometry of a high-resolution pass.
     *
     * @param width tokens of the image's grid, W, 1 to 4096; {@code height} likewise
     * @throws IllegalArgumentException naming the argument that the core does not take
     */
    public static Geometry windowed(int textTokens, int width, int height, AttentionWindow window) {
        return windowed(
                textTokens,
                width,
                height,
                window,
                switch (window.guidanceAttention()) {
                    case GLOBAL -> SCALEDIT_GUIDANCE_GLOBAL;
                    case LOCAL -> SCALEDIT_GUIDANCE_LOCAL;
                });
    }

    /**
     * The same sequence in the same order, but guidance tokens attend to nobody: they are keys and values alone, and their
     * rows of an attention's output are not written.
     */
    static Geometry withoutGuidanceQueries(int textTokens, int width, int height, AttentionWindow window) {
        return windowed(textTokens, width, height, window, SCALEDIT_GUIDANCE_NONE);
    }

    private static Geometry windowed(int textTokens, int width, int height, AttentionWindow window, int guidance) {
        NativeLibrary.load();
        return Tensors.compute(() -> {
            GeometryOptions options = new GeometryOptions()
                    .window(window.window())
                    .reach(window.reach())
                    .guidance_margin(window.guidanceMargin())
                    .guidance_attention(guidance)
                    .guidance_without_text(window.guidanceSeesText() ? 0 : 1);
            return create(options, textTokens, width, height, window.ratio());
        });
    }

    /** The geometry of a plain FLUX pass: no guidance tokens, everyone attends to everyone. */
    public static Geometry full(int textTokens, int width, int height) {
        NativeLibrary.load();
        return Tensors.compute(() -> {
            GeometryOptions options = new GeometryOptions();
            Status.check(scaledit_geometry_defaults(options));
            return create(options.reach(WHOLE_GRID), textTokens, width, height, 0);
        });
    }

    private static Geometry create(GeometryOptions options, int textTokens, int width, int height, int ratio) {
        options.text_tokens(textTokens).image_width(width).image_height(height).ratio(ratio);
        GeometryHandle handle = new GeometryHandle();
        Status.check(scaledit_geometry_create(options, handle));
        return described(handle, width, height, ratio);
    }

    /** Destroys the handle if it fails. */
    private static Geometry described(GeometryHandle handle, int width, int height, int ratio) {
        try {
            GeometryInfo info = new GeometryInfo();
            Status.check(scaledit_geometry_describe(handle, info));
            return new Geometry(handle, layout(handle, info, width, height, ratio), info);
        } catch (RuntimeException | Error e) {
            scaledit_geometry_destroy(handle);
            throw e;
        }
    }

    /**
     * The geometry of one shard of the picture: a run of its windows and one of guidance cells, whose tokens attend to what
     * they attend to in the whole picture. The text is all there; image and guidance tokens of other shards that its own
     * attend to, the imported ones, come last, as keys and values alone: by the shard that owns them. Text attends to the
     * shard's own image tokens, and in the first shard to the text: outputs of all shards are to be joined by their
     * log-sum-exp.
     *
     * @param index from 0
     * @return to be closed, as this one is
     * @throws IllegalArgumentException in one sentence, if there are fewer windows than shards
     */
    Geometry shard(int shards, int index) {
        return Tensors.compute(() -> {
            GeometryHandle shard = new GeometryHandle();
            Status.check(scaledit_geometry_shard(handle, shards, index, shard));
            return described(shard, layout.width(), layout.height(), layout.ratio());
        });
    }

    private static TokenLayout layout(GeometryHandle handle, GeometryInfo info, int width, int height, int ratio) {
        int text = Math.toIntExact(info.text_tokens());
        int guidance = text + Math.toIntExact(info.image_tokens());
        int imported = guidance + Math.toIntExact(info.guidance_tokens());
        int tokens = Math.toIntExact(info.tokens());
        long[] order = new long[tokens];
        Status.check(scaledit_geometry_order(handle, order, tokens));
        return new TokenLayout(
                text,
                width,
                height,
                ratio,
                rebased(order, text, guidance, text),
                rebased(order, guidance, imported, text + (long) width * height),
                rebased(order, imported, tokens, text));
    }

    /** A part of the order of the whole sequence, counted from a token on. */
    private static long[] rebased(long[] order, int from, int to, long first) {
        long[] part = Arrays.copyOfRange(order, from, to);
        for (int i = 0; i < part.length; i++) {
            part[i] -= first;
        }
        return part;
    }

    /** Hilbert order: how tokens must lie in memory for {@link NativeAttention} and {@link CudaAttention}. */
    public TokenLayout layout() {
        return layout;
    }

    /** (Query, key) pairs that the mask allows, per head. */
    public long pairs() {
        return pairs;
    }

    GeometryHandle handle() {
        return handle;
    }

    /** Which of the three parts of the sequence a tile is in. */
    enum Stream {
        TEXT,
        IMAGE,
        GUIDANCE
    }

    /**
     * Consecutive tokens that share a mask row, and whom they attend to.
     *
     * @param first position of the first token in the sequence
     * @param row of the cell in its grid of cells
     * @param keys the numbers of the tiles attended to, in ascending order
     */
    record QueryTile(long first, int tokens, Stream stream, int row, int column, int[] keys) {}

    /** All tiles, in the order in which they lie in memory. */
    List<QueryTile> tiles() {
        return Tensors.compute(() -> {
            Tile tile = new Tile(tiles);
            Status.check(scaledit_geometry_tiles(handle, tile, tiles));
            long[] offsets = new long[tiles + 1];
            TileRange range = new TileRange(ranges);
            Status.check(scaledit_geometry_ranges(handle, offsets, offsets.length, range, ranges));
            return IntStream.range(0, tiles)
                    .mapToObj(t -> queryTile(tile.getPointer(t), keys(range, offsets[t], offsets[t + 1])))
                    .toList();
        });
    }

    private static QueryTile queryTile(Tile tile, int[] keys) {
        return new QueryTile(
                tile.first(), tile.tokens(), Stream.values()[tile.stream()], tile.row(), tile.column(), keys);
    }

    private static int[] keys(TileRange ranges, long from, long to) {
        IntStream.Builder keys = IntStream.builder();
        for (long r = from; r < to; r++) {
            TileRange range = ranges.getPointer(r);
            for (int k = 0; k < range.count(); k++) {
                keys.add(range.first() + k);
            }
        }
        return keys.build().toArray();
    }

    @Override
    public void close() {
        if (!handle.isNull()) {
            scaledit_geometry_destroy(handle);
            handle.setNull();
        }
    }
}
