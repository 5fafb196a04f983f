package org.scaledit.tensor;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.pytorch.Tensor;
import org.scaledit.bindings.MatrixView;

/** Tells the core where a tensor lies, and what its numbers are. */
public final class CoreViews {
    private CoreViews() {}

    /**
     * Of a tensor whose rows are evenly spaced, and have no gaps.
     *
     * @param stride from one row to the next, in numbers
     * @throws IllegalArgumentException as {@link #dtype} does
     */
    public static void describe(Tensor rows, long stride, MatrixView view) {
        view.data(rows.data_ptr()).row_stride(stride).dtype(dtype(rows));
    }

    /** @throws IllegalArgumentException if the core knows no such numbers */
    public static int dtype(Tensor tensor) {
        return switch (tensor.scalar_type().intern()) {
            case Float -> SCALEDIT_FLOAT32;
            case BFloat16 -> SCALEDIT_BFLOAT16;
            case Float8_e4m3fn -> SCALEDIT_E4M3;
            default ->
                throw new IllegalArgumentException(
                        "a tensor is " + tensor.scalar_type().intern() + ", expected Float, BFloat16 or Float8_e4m3fn");
        };
    }
}
