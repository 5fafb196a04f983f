package org.scaledit.sampling;

import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Attention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.attention.TokenLayout;

/** The attention of a high-resolution pass together with the order of tokens that it works on. */
final class WindowedAttention implements Attention {
    private final TokenLayout layout;
    private final Attention attention;
    private final Runnable release;

    private WindowedAttention(TokenLayout layout, Attention attention, Runnable release) {
        this.layout = layout;
        this.attention = attention;
        this.release = release;
    }

    static WindowedAttention of(Plan plan, int textTokens, TokenGrid grid) {
        return switch (plan.backend()) {
            case NATIVE_FLOAT32 -> ofCore(plan, textTokens, grid, NativeAttention.Arithmetic.FLOAT32);
            case NATIVE_INT8 -> ofCore(plan, textTokens, grid, NativeAttention.Arithmetic.INT8);
            case DENSE -> {
                int ratio = plan.window().ratio();
                TokenLayout layout = TokenLayout.raster(textTokens, grid.width(), grid.height(), ratio);
                yield new WindowedAttention(layout, DenseAttention.windowed(layout, plan.window()), () -> {});
            }
        };
    }

    private static WindowedAttention ofCore(
            Plan plan, int textTokens, TokenGrid grid, NativeAttention.Arithmetic arithmetic) {
        Geometry geometry = Geometry.windowed(textTokens, grid.width(), grid.height(), plan.window());
        return new WindowedAttention(geometry.layout(), new NativeAttention(geometry, arithmetic), geometry::close);
    }

    TokenLayout layout() {
        return layout;
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return attention.attend(query, key, value);
    }

    @Override
    public void close() {
        attention.close();
        release.run();
    }
}
