package org.scaledit.benchmarks;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * What one would build from torch's own parts: the keys that a block of image tokens sees are gathered, and the blocks
 * become a batch of scaled_dot_product_attention. Keys that only some tokens of a block see are masked. Grids whose
 * sides are multiples of 16 tokens, in raster order.
 */
final class GatheredAttention {
    private static final int CELL = 8;
    private static final int WINDOW = 16;
    /** Blocks in one batch: more do not help, and gathered keys take 20 times the room of the keys. */
    private static final int BATCH = 64;

    private final int text;
    private final int width;
    private final int height;
    private final int ratio;
    private final int block;

    /** @param block tokens along the side of a block of queries: 8, a cell, or 16, a window */
    GatheredAttention(int text, int width, int height, int ratio, int block) {
        this.text = text;
        this.width = width;
        this.height = height;
        this.ratio = ratio;
        this.block = block;
    }

    private record Block(long[] queries, long[] keys) {}

    /** The mask and the indices: made once, not part of what is measured. */
    final class Prepared implements AutoCloseable {
        private final List<Tensor> queries = new ArrayList<>(); // [blocks, queries] each
        private final List<Tensor> keys = new ArrayList<>(); // [blocks, keys] each
        private final List<Tensor> masks = new ArrayList<>(); // [blocks, 1, queries, keys] each

        private Prepared() {
            List<Block> blocks = new ArrayList<>();
            for (int row = 0; row < height; row += block) {
                for (int column = 0; column < width; column += block) {
                    blocks.add(block(row, column));
                }
            }
            int longest = blocks.stream().mapToInt(b -> b.keys.length).max().orElseThrow();
            for (int first = 0; first < blocks.size(); first += BATCH) {
                add(blocks.subList(first, Math.min(first + BATCH, blocks.size())), longest);
            }
        }

        @Override
        public void close() {
            for (List<Tensor> tensors : List.of(queries, keys, masks)) {
                tensors.forEach(Tensor::close);
            }
        }

        private void add(List<Block> blocks, int longest) {
            int queryCount = block * block;
            long[] queryIndices =
                    blocks.stream().flatMapToLong(b -> Arrays.stream(b.queries)).toArray();
            long[] keyIndices = blocks.stream()
                    .flatMapToLong(b -> Arrays.stream(Arrays.copyOf(b.keys, longest)))
                    .toArray();
            float[] seen = new float[blocks.size() * queryCount * longest];
            for (int b = 0; b < blocks.size(); b++) {
                Block one = blocks.get(b);
                for (int q = 0; q < queryCount; q++) {
                    for (int k = 0; k < one.keys.length; k++) {
                        seen[(b * queryCount + q) * longest + k] = sees(one.queries[q], one.keys[k]) ? 1 : 0;
                    }
                }
            }
            queries.add(Tensors.keep(Tensors.of(queryIndices, blocks.size(), queryCount)));
            keys.add(Tensors.keep(Tensors.of(keyIndices, blocks.size(), longest)));
            masks.add(Tensors.keep(
                    Tensors.of(seen, blocks.size(), 1, queryCount, longest).to(torch.ScalarType.Bool)));
        }

        /** {@code [tokens, heads, head_dim]} each → the same. */
        Tensor attend(Tensor query, Tensor key, Tensor value) {
            return Tensors.scoped(() -> {
                Tensor output = torch.empty_like(query);
                int image = text + width * height;
                int tokens = (int) query.size(0);
                // Text sees text and image, guidance sees text and guidance: two dense pieces without a mask.
                output.narrow(0, 0, text)
                        .copy_(dense(query.narrow(0, 0, text), key.narrow(0, 0, image), value.narrow(0, 0, image)));
                Tensor others = Tensors.of(
                        IntStream.concat(IntStream.range(0, text), IntStream.range(image, tokens))
                                .asLongStream()
                                .toArray(),
                        text + tokens - image);
                output.narrow(0, image, tokens - image)
                        .copy_(dense(
                                query.narrow(0, image, tokens - image),
                                key.index_select(0, others),
                                value.index_select(0, others)));
                for (int batch = 0; batch < queries.size(); batch++) {
                    Tensor index = queries.get(batch);
                    Tensor result = sdpa(
                            gather(query, index),
                            gather(key, keys.get(batch)),
                            gather(value, keys.get(batch)),
                            masks.get(batch));
                    output.index_copy_(
                            0, index.flatten(), result.transpose(1, 2).flatten(0, 1));
                }
                return output;
            });
        }
    }

    /** Draws up the indices and masks. */
    Prepared prepare() {
        return new Prepared();
    }

    private Block block(int row, int column) {
        long[] queries = IntStream.range(0, block * block)
                .mapToLong(i -> text + (row + i / block) * (long) width + column + i % block)
                .toArray();
        List<Long> keys = new ArrayList<>();
        for (long t = 0; t < text; t++) {
            keys.add(t);
        }
        for (long t = text; t < text + (long) width * height; t++) {
            if (seenByAny(queries, t)) {
                keys.add(t);
            }
        }
        long all = text + (long) width * height + (long) (width / ratio) * (height / ratio);
        for (long t = text + (long) width * height; t < all; t++) {
            if (seenByAny(queries, t)) {
                keys.add(t);
            }
        }
        return new Block(queries, keys.stream().mapToLong(Long::longValue).toArray());
    }

    /** The mask is the same for all tokens of a cell: the corners of the block's cells decide. */
    private boolean seenByAny(long[] queries, long key) {
        for (int row = 0; row < block; row += CELL) {
            for (int column = 0; column < block; column += CELL) {
                if (sees(queries[row * block + column], key)) {
                    return true;
                }
            }
        }
        return false;
    }

    /** The default mask, for an image token as query: reach 1, margin 3. */
    private boolean sees(long query, long key) {
        if (key < text) {
            return true;
        }
        int i = (int) ((query - text) / width);
        int j = (int) ((query - text) % width);
        long image = (long) width * height;
        if (key < text + image) {
            int a = (int) ((key - text) / width);
            int b = (int) ((key - text) % width);
            boolean near = Math.abs(a / CELL - i / CELL) <= 1 && Math.abs(b / CELL - j / CELL) <= 1;
            return near || (a / WINDOW == i / WINDOW && b / WINDOW == j / WINDOW);
        }
        int guidanceWidth = width / ratio;
        int a = (int) ((key - text - image) / guidanceWidth);
        int b = (int) ((key - text - image) % guidanceWidth);
        return inRegion(a, i, height) && inRegion(b, j, width);
    }

    private boolean inRegion(int guidance, int token, int size) {
        int margin = 3;
        int first = Math.max(0, token / CELL * CELL / ratio - margin);
        int last = Math.min(size / ratio - 1, (token / CELL * CELL + CELL - 1) / ratio + margin);
        return guidance / CELL >= first / CELL && guidance / CELL <= last / CELL;
    }

    /** {@code [tokens, heads, dim]}, {@code [blocks, n]} → {@code [blocks, heads, n, dim]}. */
    private static Tensor gather(Tensor tokens, Tensor index) {
        return tokens.index_select(0, index.flatten())
                .view(index.size(0), index.size(1), tokens.size(1), tokens.size(2))
                .transpose(1, 2)
                .contiguous();
    }

    private static Tensor dense(Tensor query, Tensor key, Tensor value) {
        Tensor output = torch.scaled_dot_product_attention(
                query.transpose(0, 1).unsqueeze(0),
                key.transpose(0, 1).unsqueeze(0),
                value.transpose(0, 1).unsqueeze(0));
        return output.squeeze(0).transpose(0, 1);
    }

    /** {@code [batch, heads, tokens, dim]}; the mask broadcasts over heads. */
    static Tensor sdpa(Tensor query, Tensor key, Tensor value, Tensor mask) {
        return torch.scaled_dot_product_attention(
                query, key, value, new TensorOptional(mask), 0, false, new DoubleOptional(), false);
    }
}
