package org.scaledit.attention;

import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * The tokens of one sequence, {@code [text ; image ; guidance]}, and the order in which image and guidance tokens lie
 * in memory, each on its own grid. A plain FLUX sequence has no guidance tokens. That of a shard has some of the picture's
 * image and guidance tokens, and after them those of other shards that it imports: {@code [text ; image ; guidance ;
 * imported]}.
 */
public final class TokenLayout {
    private final int textTokens;
    private final int width;
    private final int height;
    private final int ratio;
    private final long[] imageOrder;
    private final long[] guidanceOrder;
    private final long[] importedOrder;

    /**
     * @param width tokens of the image's grid, W
     * @param height likewise, H
     * @param ratio ρ; 0 for a sequence without guidance tokens
     * @param imageOrder {@code [W·H]}, of a shard fewer: the number in raster order of the image token at each position
     * @param guidanceOrder {@code [w·h]}, of a shard fewer: likewise of the guidance tokens
     * @param importedOrder likewise of the imported tokens, of which guidance tokens are numbered after all image tokens; of
     *     none but for a shard
     */
    TokenLayout(
            int textTokens,
            int width,
            int height,
            int ratio,
            long[] imageOrder,
            long[] guidanceOrder,
            long[] importedOrder) {
        this.textTokens = textTokens;
        this.width = width;
        this.height = height;
        this.ratio = ratio;
        this.imageOrder = imageOrder;
        this.guidanceOrder = guidanceOrder;
        this.importedOrder = importedOrder;
    }

    /** Row by row, with guidance tokens. */
    public static TokenLayout raster(int textTokens, int width, int height, int ratio) {
        return new TokenLayout(
                textTokens,
                width,
                height,
                ratio,
                rasterOrder((long) width * height),
                rasterOrder((long) shrunk(width, ratio) * shrunk(height, ratio)),
                new long[0]);
    }

    /** Row by row, plain FLUX: text and image alone. */
    public static TokenLayout raster(int textTokens, int width, int height) {
        return raster(textTokens, width, height, 0);
    }

    private static long[] rasterOrder(long tokens) {
        return LongStream.range(0, tokens).toArray();
    }

    /** {@code ceil(size / ρ)}; 0 without guidance. */
    private static int shrunk(int size, int ratio) {
        return ratio == 0 ? 0 : (size + ratio - 1) / ratio;
    }

    /** Packed latents in raster order {@code [W·H, channels]} → in this order; for a shard its own tokens alone. */
    public Tensor arrangeImage(Tensor raster) {
        return pick(raster, (long) width * height, imageOrder);
    }

    /** Packed guidance latents in raster order {@code [w·h, channels]} → in this order; for a shard its own tokens alone. */
    public Tensor arrangeGuidance(Tensor raster) {
        return pick(raster, (long) guidanceWidth() * guidanceHeight(), guidanceOrder);
    }

    /**
     * Image tokens in this order {@code [W·H, channels]} → in raster order.
     *
     * @throws IllegalStateException for a shard, which does not have them all
     */
    public Tensor restoreImage(Tensor arranged) {
        if (imageOrder.length != (long) width * height) {
            throw new IllegalStateException("a shard of " + imageOrder.length + " tokens is asked for the "
                    + (long) width * height + " of the whole picture");
        }
        long[] position = new long[imageOrder.length];
        for (int p = 0; p < imageOrder.length; p++) {
            position[(int) imageOrder[p]] = p;
        }
        return pick(arranged, position.length, position);
    }

    private static Tensor pick(Tensor tokens, long expected, long[] rows) {
        if (tokens.size(0) != expected) {
            throw new IllegalArgumentException(
                    "tokens have shape " + Tensors.shape(tokens) + ", expected [" + expected + ", channels]");
        }
        return Tensors.scoped(
                () -> tokens.index_select(0, Tensors.of(rows, rows.length).to(tokens.device(), torch.ScalarType.Long)));
    }

    public int textTokens() {
        return textTokens;
    }

    public int width() {
        return width;
    }

    public int height() {
        return height;
    }

    /** ρ; 0 without guidance tokens. */
    public int ratio() {
        return ratio;
    }

    /** w = ceil(W / ρ). */
    public int guidanceWidth() {
        return shrunk(width, ratio);
    }

    /** h = ceil(H / ρ). */
    public int guidanceHeight() {
        return shrunk(height, ratio);
    }

    /** Of a shard: its own. */
    public int imageTokens() {
        return imageOrder.length;
    }

    /** Of a shard: its own. */
    public int guidanceTokens() {
        return guidanceOrder.length;
    }

    /** Image and guidance tokens of other shards; 0 but for a shard. */
    public int importedTokens() {
        return importedOrder.length;
    }

    /** Of the whole sequence. */
    public int tokens() {
        return textTokens + imageOrder.length + guidanceOrder.length + importedOrder.length;
    }

    /**
     * The number of the image or guidance token at a position after the text: image tokens in raster order, then guidance
     * tokens.
     */
    long number(int position) {
        int guidance = position - imageOrder.length;
        int imported = guidance - guidanceOrder.length;
        return guidance < 0
                ? imageOrder[position]
                : imported < 0 ? (long) width * height + guidanceOrder[guidance] : importedOrder[imported];
    }

    /** The row in the image's grid of the image token at a position among the image tokens. */
    public int imageRow(int position) {
        return (int) (imageOrder[position] / width);
    }

    public int imageColumn(int position) {
        return (int) (imageOrder[position] % width);
    }

    /**
     * The row in the image's grid where the token at a position among the imported tokens stands; guidance tokens stand ρ
     * apart.
     */
    public int importedRow(int position) {
        long guidance = importedOrder[position] - (long) width * height;
        return (int) (guidance < 0 ? importedOrder[position] / width : ratio * (guidance / guidanceWidth()));
    }

    public int importedColumn(int position) {
        long guidance = importedOrder[position] - (long) width * height;
        return (int) (guidance < 0 ? importedOrder[position] % width : ratio * (guidance % guidanceWidth()));
    }

    /** The row in the guidance grid of the guidance token at a position among the guidance tokens. */
    public int guidanceRow(int position) {
        return (int) (guidanceOrder[position] / guidanceWidth());
    }

    public int guidanceColumn(int position) {
        return (int) (guidanceOrder[position] % guidanceWidth());
    }
}
