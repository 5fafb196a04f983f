package org.scaledit.training;

import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.DifferentiableAttention;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;

/**
 * The attention of a grid in training.
 *
 * @param layout the order of tokens that it works on
 * @param release frees what the attention was made for
 */
record GradientAttention(TokenLayout layout, DifferentiableAttention attention, Runnable release)
        implements AutoCloseable {

    /** @throws UnsupportedOperationException if such an attention has no gradients where the tokens are */
    static void require(Recipe.AttentionKind kind, Placement placement) {
        if (kind == Recipe.AttentionKind.NATIVE && placement.cuda()) {
            throw new UnsupportedOperationException(
                    "native attention has no gradients on a GPU, expected --attention dense with device cuda");
        }
    }

    /** @param placement of the tokens */
    static GradientAttention of(
            Recipe.AttentionKind kind, int textTokens, TokenGrid grid, AttentionWindow window, Placement placement) {
        require(kind, placement);
        return switch (kind) {
            case NATIVE -> {
                Geometry geometry = Geometry.windowed(textTokens, grid.width(), grid.height(), window);
                yield new GradientAttention(
                        geometry.layout(),
                        new NativeAttention(geometry, NativeAttention.Arithmetic.FLOAT32),
                        geometry::close);
            }
            case DENSE -> {
                TokenLayout layout = TokenLayout.raster(textTokens, grid.width(), grid.height(), window.ratio());
                yield new GradientAttention(layout, DenseAttention.windowed(layout, window, placement), () -> {});
            }
        };
    }

    @Override
    public void close() {
        attention.close();
        release.run();
    }
}
