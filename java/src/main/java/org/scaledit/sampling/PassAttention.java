package org.scaledit.sampling;

import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Attention;
import org.scaledit.attention.CoreAttention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.ShardedAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.ranks.Exchange;
import org.scaledit.tensor.Placement;

/**
 * The attention of a pass.
 *
 * @param layout the order of tokens that it works on
 */
record PassAttention(TokenLayout layout, Attention attention) implements AutoCloseable {

    /**
     * Of a plain FLUX pass. Nothing is quantised: on a GPU the core's is as quick as torch's, and norms and rotates by
     * itself; on a CPU it is torch's.
     *
     * @param dense whether it is torch's in any case
     * @param placement of the tokens
     */
    static PassAttention plain(boolean dense, int textTokens, TokenGrid grid, Placement placement) {
        if (dense || !placement.cuda()) {
            return new PassAttention(
                    TokenLayout.raster(textTokens, grid.width(), grid.height()), DenseAttention.full());
        }
        CoreAttention attention = CoreAttention.plain(textTokens, grid.width(), grid.height(), true, false);
        return new PassAttention(attention.layout(), attention);
    }

    /**
     * Of a high-resolution pass.
     *
     * @param placement of the tokens
     * @param exchange of the ranks that paint it; attention is the core's if there are several
     */
    static PassAttention windowed(Plan plan, int textTokens, TokenGrid grid, Placement placement, Exchange exchange) {
        return switch (plan.backend()) {
            case NATIVE_EXACT, NATIVE_INT8 -> {
                boolean int8 = plan.backend() == Plan.Backend.NATIVE_INT8;
                if (exchange.ranks() > 1) {
                    ShardedAttention attention = new ShardedAttention(
                            textTokens, grid.width(), grid.height(), plan.window(), placement.cuda(), int8, exchange);
                    yield new PassAttention(attention.layout(), attention);
                }
                CoreAttention attention = new CoreAttention(
                        textTokens, grid.width(), grid.height(), plan.window(), placement.cuda(), int8);
                yield new PassAttention(attention.layout(), attention);
            }
            case DENSE -> {
                if (exchange.ranks() > 1) {
                    throw new IllegalArgumentException("attention dense is asked of " + exchange.ranks()
                            + " GPUs together, expected attention native, or one GPU");
                }
                int ratio = plan.window().ratio();
                TokenLayout layout = TokenLayout.raster(textTokens, grid.width(), grid.height(), ratio);
                yield new PassAttention(layout, DenseAttention.windowed(layout, plan.window(), placement));
            }
        };
    }

    /**
     * The image tokens of all ranks in raster order, of which this one has its own: {@code [tokens, 64]} → {@code [W·H, 64]}.
     * All ranks call it.
     */
    Tensor restoreImage(Tensor own) {
        return attention instanceof ShardedAttention sharded ? sharded.restoreImage(own) : layout.restoreImage(own);
    }

    @Override
    public void close() {
        attention.close();
    }
}
