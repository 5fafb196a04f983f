package org.scaledit.training;

import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CudaAttention;
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
                Geometry geometry = Geometry.windowed(textTokens, grid.width(), grid.height(), window);
                yield new GradientAttention(geometry.layout(), core(geometry, placement), geometry::close);
            }
            case DENSE -> {
                TokenLayout layout = TokenLayout.raster(textTokens, grid.width(), grid.height(), window.ratio());
                yield new GradientAttention(layout, DenseAttention.windowed(layout, window, placement), () -> {});
            }
        };
    }

    /** Closes the geometry if it fails. */
    private static DifferentiableAttention core(Geometry geometry, Placement placement) {
        try {
            return placement.cuda()
                    ? new CudaAttention(geometry, CudaAttention.Arithmetic.BFLOAT16)
                    : new NativeAttention(geometry, NativeAttention.Arithmetic.FLOAT32);
        } catch (RuntimeException | Error e) {
            geometry.close();
            throw e;
        }
    }

    @Override
    public void close() {
        attention.close();
        release.run();
    }
}
