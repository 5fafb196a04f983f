package org.scaledit.transformer;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * Adaptive layer norm: shifts, scales and gates from the conditioning. Guidance tokens, the last {@code guidanceRows},
 * have their own, because they are clean at every step.
 *
 * @param parts [1, parts * width], or [2, parts * width] with those of guidance tokens in the second row
 */
record Modulation(Tensor parts, long width, long guidanceRows) {
    private static final double EPSILON = 1e-6;

    /** {@code (1 + scale) · norm(hidden) + shift}: [rows, width] → [rows, width] */
    Tensor modulated(Tensor hidden, int shift, int scale) {
        return Tensors.scoped(() -> {
            Tensor y = torch.layer_norm(hidden, new long[] {width}, Tensors.none(), Tensors.none(), EPSILON, true);
            for (int stream = 0; stream < parts.size(0); stream++) {
                rows(y, stream).mul_(part(scale, stream).add(new Scalar(1))).add_(part(shift, stream));
            }
            return y;
        });
    }

    /** Adds {@code gate · y} to the hidden state: [rows, width] */
    void addGated(Tensor hidden, int gate, Tensor y) {
        Tensors.run(() -> {
            for (int stream = 0; stream < parts.size(0); stream++) {
                rows(hidden, stream).addcmul_(rows(y, stream), part(gate, stream));
            }
        });
    }

    /** The rows of the current tokens (stream 0) or of the guidance tokens (stream 1). */
    private Tensor rows(Tensor x, int stream) {
        long current = x.size(0) - guidanceRows;
        return stream == 0 ? x.narrow(0, 0, current) : x.narrow(0, current, guidanceRows);
    }

    /** [width] */
    private Tensor part(int part, int stream) {
        return parts.select(0, stream).narrow(0, part * width, width);
    }
}
