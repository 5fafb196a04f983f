package org.scaledit.sampling;

import org.scaledit.attention.Attention;
import org.scaledit.attention.CoreAttention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.tensor.Placement;

/**
 * The attention of a high-resolution pass.
 *
 * @param layout the order of tokens that it works on
 */
record WindowedAttention(TokenLayout layout, Attention attention) implements AutoCloseable {

    /** @param placement of the tokens */
    static WindowedAttention of(Plan plan, int textTokens, TokenGrid grid, Placement placement) {
        return switch (plan.backend()) {
            case NATIVE_EXACT, NATIVE_INT8 -> {
                boolean int8 = plan.backend() == Plan.Backend.NATIVE_INT8;
                CoreAttention attention = new CoreAttention(
                        textTokens, grid.width(), grid.height(), plan.window(), placement.cuda(), int8);
                yield new WindowedAttention(attention.layout(), attention);
            }
            case DENSE -> {
                int ratio = plan.window().ratio();
                TokenLayout layout = TokenLayout.raster(textTokens, grid.width(), grid.height(), ratio);
                yield new WindowedAttention(layout, DenseAttention.windowed(layout, plan.window(), placement));
            }
        };
    }

    @Override
    public void close() {
        attention.close();
    }
}
