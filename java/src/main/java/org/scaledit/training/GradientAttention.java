package org.scaledit.training;

import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CoreAttention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.DifferentiableAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;

/**
 * The attention of a grid in training.
 *
 * @param layout the order of tokens that it works on
 */
record GradientAttention(TokenLayout layout, DifferentiableAttention attention) implements AutoCloseable {

    /** @throws IllegalArgumentException if such an attention has no gradients in the tokens' precision */
    static void require(Recipe.AttentionKind kind, Placement placement) {
        if (kind == Recipe.AttentionKind.NATIVE && placement.cuda() && placement.dtype() != torch.ScalarType.BFloat16) {
            throw new IllegalArgumentException(
                    "attention native on a GPU takes bfloat16 alone, expected precision bfloat16, or attention dense");
        }
    }

    /** @param placement of the tokens */
    static GradientAttention of(
            Recipe.AttentionKind kind, int textTokens, TokenGrid grid, AttentionWindow window, Placement placement) {
        require(kind, placement);
        return switch (kind) {
            case NATIVE -> {
                CoreAttention attention =
                        new CoreAttention(textTokens, grid.width(), grid.height(), window, placement.cuda(), false);
                yield new GradientAttention(attention.layout(), attention);
            }
            case DENSE -> {
                TokenLayout layout = TokenLayout.raster(textTokens, grid.width(), grid.height(), window.ratio());
                yield new GradientAttention(layout, DenseAttention.windowed(layout, window, placement));
            }
        };
    }

    @Override
    public void close() {
        attention.close();
    }
}
