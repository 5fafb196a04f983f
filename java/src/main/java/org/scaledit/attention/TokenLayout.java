package org.scaledit.attention;

import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * The tokens of one sequence, {@code [text ; image ; guidance]}, and the order in which image and guidance tokens lie
 * in memory, each on its own grid. A plain FLUX sequence has no guidance tokens.
 */
public final class TokenLayout {
    private final int textTokens;
    private final int width;
    private final int height;
    private final int ratio;
    private final long[] imageOrder;
    private final long[] guidanceOrder;

    /**
     * @param width tokens of the image's grid, W
     * @param height likewise, H
     * @param ratio ρ; 0 for a sequence without guidance tokens
     * @param imageOrder {@code [W·H]}: the number in raster order of the image token at each position
     * @param guidanceOrder {@code [w·h]}: likewise of the guidance tokens
     */
    TokenLayout(int textTokens, int width, int height, int ratio, long[] imageOrder, long[] guidanceOrder) {
        this.textTokens = textTokens;
        this.width = width;
        this.height = height;
        this.ratio = ratio;
        this.imageOrder = imageOrder;
        this.guidanceOrder = guidanceOrder;
    }

    /** Row by row, with guidance tokens. */
    public static TokenLayout raster(int textTokens, int width, int height, int ratio) {
        return new TokenLayout(
                textTokens,
                width,
                height,
                ratio,
                rasterOrder((long) width * height),
                rasterOrder((long) shrunk(width, ratio) * shrunk(height, ratio)));
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

    /** Packed latents in raster order {@code [W·H, channels]} → in this order. */
    public Tensor arrangeImage(Tensor raster) {
        return pick(raster, imageOrder);
    }

    /** Packed guidance latents in raster order {@code [w·h, channels]} → in this order. */
    public Tensor arrangeGuidance(Tensor raster) {
        return pick(raster, guidanceOrder);
    }

    /** Image tokens in this order {@code [W·H, channels]} → in raster order. */
    public Tensor restoreImage(Tensor arranged) {
        long[] position = new long[imageOrder.length];
        for (int p = 0; p < imageOrder.length; p++) {
            position[(int) imageOrder[p]] = p;
        }
        return pick(arranged, position);
    }

    private static Tensor pick(Tensor tokens, long[] rows) {
        if (tokens.size(0) != rows.length) {
            throw new IllegalArgumentException(
                    "tokens have shape " + Tensors.shape(tokens) + ", expected [" + rows.length + ", channels]");
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

    public int imageTokens() {
        return imageOrder.length;
    }

    public int guidanceTokens() {
        return guidanceOrder.length;
    }

    /** Of the whole sequence. */
    public int tokens() {
        return textTokens + imageOrder.length + guidanceOrder.length;
    }

    /** The row in the image's grid of the image token at a position among the image tokens. */
    public int imageRow(int position) {
        return (int) (imageOrder[position] / width);
    }

    public int imageColumn(int position) {
        return (int) (imageOrder[position] % width);
    }

    /** The row in the guidance grid of the guidance token at a position among the guidance tokens. */
    public int guidanceRow(int position) {
        return (int) (guidanceOrder[position] / guidanceWidth());
    }

    public int guidanceColumn(int position) {
        return (int) (guidanceOrder[position] % guidanceWidth());
    }
}
