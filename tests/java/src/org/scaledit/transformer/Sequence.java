package org.scaledit.transformer;

import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.attention.NativeAttention.Arithmetic;
import org.scaledit.attention.TokenLayout;

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

    /** Without a window it is a plain FLUX sequence. */
    static Sequence of(Backend backend, int text, int width, int height, Optional<AttentionWindow> window) {
        if (backend == Backend.DENSE_RASTER) {
            int ratio = window.map(AttentionWindow::ratio).orElse(0);
            TokenLayout layout = TokenLayout.raster(text, width, height, ratio);
            Attention attention = window.<Attention>map(chosen -> DenseAttention.windowed(layout, chosen))
                    .orElseGet(DenseAttention::full);
            return new Sequence(layout, attention, () -> {});
        }
        Geometry geometry = window.map(chosen -> Geometry.windowed(text, width, height, chosen))
                .orElseGet(() -> Geometry.full(text, width, height));
        Arithmetic arithmetic = backend.exact() ? Arithmetic.FLOAT32 : Arithmetic.INT8;
        return new Sequence(geometry.layout(), new NativeAttention(geometry, arithmetic), geometry::close);
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
