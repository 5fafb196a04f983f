package org.scaledit.transformer;

import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CoreAttention;
import org.scaledit.attention.CudaAttention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.tensor.Placement;

/** A layout, the attention made for it, and what both need. */
record Sequence(TokenLayout layout, Attention attention, Runnable release) implements AutoCloseable {

    /** The ways to compute the same pass. */
    enum Backend {
        DENSE_RASTER,
        NATIVE_HILBERT,
        NATIVE_INT8_HILBERT;

        boolean exact() {
            return this != NATIVE_INT8_HILBERT;
        }
    }

    /**
     * Without a window it is a plain FLUX sequence.
     *
     * @param placement of its tokens
     */
    static Sequence of(
            Backend backend, Placement placement, int text, int width, int height, Optional<AttentionWindow> window) {
        if (backend == Backend.DENSE_RASTER) {
            int ratio = window.map(AttentionWindow::ratio).orElse(0);
            TokenLayout layout = TokenLayout.raster(text, width, height, ratio);
            Attention attention = window.<Attention>map(chosen -> DenseAttention.windowed(layout, chosen, placement))
                    .orElseGet(DenseAttention::full);
            return new Sequence(layout, attention, () -> {});
        }
        Geometry geometry = window.map(chosen -> Geometry.windowed(text, width, height, chosen))
                .orElseGet(() -> Geometry.full(text, width, height));
        return new Sequence(geometry.layout(), core(geometry, backend, placement), geometry::close);
    }

    /** With the attention that a picture is sampled with, which can leave guidance out. */
    static Sequence ofPicture(
            Backend backend, Placement placement, int text, int width, int height, AttentionWindow window) {
        if (backend == Backend.DENSE_RASTER) {
            return of(backend, placement, text, width, height, Optional.of(window));
        }
        CoreAttention attention = new CoreAttention(text, width, height, window, placement.cuda(), !backend.exact());
        return new Sequence(attention.layout(), attention, () -> {});
    }

    private static Attention core(Geometry geometry, Backend backend, Placement placement) {
        return placement.cuda()
                ? new CudaAttention(
                        geometry, backend.exact() ? CudaAttention.Arithmetic.BFLOAT16 : CudaAttention.Arithmetic.INT8)
                : new NativeAttention(
                        geometry,
                        backend.exact() ? NativeAttention.Arithmetic.FLOAT32 : NativeAttention.Arithmetic.INT8);
    }

    /** The hidden states of a stream, in raster order, from those of the whole sequence. */
    Tensor textOf(Tensor hidden) {
        return hidden.narrow(0, 0, layout.textTokens());
    }

    Tensor imageOf(Tensor hidden) {
        return layout.restoreImage(hidden.narrow(0, layout.textTokens(), layout.imageTokens()));
    }

    Tensor guidanceOf(Tensor hidden) {
        Tensor tokens = hidden.narrow(0, (long) layout.textTokens() + layout.imageTokens(), layout.guidanceTokens());
        Tensor raster = tokens.clone();
        for (int p = 0; p < layout.guidanceTokens(); p++) {
            long place = (long) layout.guidanceRow(p) * layout.guidanceWidth() + layout.guidanceColumn(p);
            raster.select(0, place).copy_(tokens.select(0, p));
        }
        return raster;
    }

    @Override
    public void close() {
        attention.close();
        release.run();
    }
}
