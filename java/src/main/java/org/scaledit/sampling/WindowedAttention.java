package org.scaledit.sampling;

import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Attention;
import org.scaledit.attention.CudaAttention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.attention.Preparation;
import org.scaledit.attention.TokenLayout;
import org.scaledit.tensor.Placement;

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

    /** @param placement of the tokens */
    static WindowedAttention of(Plan plan, int textTokens, TokenGrid grid, Placement placement) {
        return switch (plan.backend()) {
            case NATIVE_EXACT, NATIVE_INT8 -> ofCore(plan, textTokens, grid, placement);
            case DENSE -> {
                int ratio = plan.window().ratio();
                TokenLayout layout = TokenLayout.raster(textTokens, grid.width(), grid.height(), ratio);
                yield new WindowedAttention(
                        layout, DenseAttention.windowed(layout, plan.window(), placement), () -> {});
            }
        };
    }

    private static WindowedAttention ofCore(Plan plan, int textTokens, TokenGrid grid, Placement placement) {
        boolean int8 = plan.backend() == Plan.Backend.NATIVE_INT8;
        Geometry geometry = Geometry.windowed(textTokens, grid.width(), grid.height(), plan.window());
        try {
            Attention attention = placement.cuda()
                    ? new CudaAttention(
                            geometry, int8 ? CudaAttention.Arithmetic.INT8 : CudaAttention.Arithmetic.BFLOAT16)
                    : new NativeAttention(
                            geometry, int8 ? NativeAttention.Arithmetic.INT8 : NativeAttention.Arithmetic.FLOAT32);
            return new WindowedAttention(geometry.layout(), attention, geometry::close);
        } catch (RuntimeException | Error e) {
            geometry.close();
            throw e;
        }
    }

    TokenLayout layout() {
        return layout;
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return attention.attend(query, key, value);
    }

    @Override
    public void attend(Tensor query, Tensor key, Tensor value, Preparation preparation, Tensor output) {
        attention.attend(query, key, value, preparation, output);
    }

    @Override
    public void close() {
        attention.close();
        release.run();
    }
}
