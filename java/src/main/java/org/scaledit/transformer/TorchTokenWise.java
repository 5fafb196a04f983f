package org.scaledit.transformer;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Tensors;

/** Token-wise work by torch's own kernels, anywhere and in the precision of the tokens. */
final class TorchTokenWise implements TokenWise {

    /** Shift and scale go through the norm as its bias and weight: one pass over the tokens. */
    @Override
    public Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale) {
        return Matrix.of(Tensors.scoped(() -> {
            Tensor y = normed(hidden, modulation, 0, shift, scale);
            for (int stream = 1; stream < modulation.streams(); stream++) {
                Tensor rows = modulation.rows(hidden, stream);
                if (rows.size(0) > 0) {
                    modulation.rows(y, stream).copy_(normed(rows, modulation, stream, shift, scale));
                }
            }
            return y;
        }));
    }

    private static Tensor normed(Tensor x, Modulation modulation, int stream, int shift, int scale) {
        return Tensors.scoped(() -> torch.layer_norm(
                x,
                new long[] {x.size(1)},
                Tensors.optional(modulation.part(scale, stream).add(new Scalar(1))),
                Tensors.optional(modulation.part(shift, stream)),
                EPSILON,
                true));
    }

    @Override
    public void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate) {
        Tensors.run(() -> {
            for (int stream = 0; stream < modulation.streams(); stream++) {
                Tensor rows = modulation.rows(hidden, stream);
                if (rows.size(0) > 0) {
                    rows.addcmul_(modulation.rows(y, stream), modulation.part(gate, stream));
                }
            }
        });
    }
}
