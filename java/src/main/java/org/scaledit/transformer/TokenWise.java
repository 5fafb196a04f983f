package org.scaledit.transformer;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/** What happens to each token by itself between the matrix products of a block. */
interface TokenWise {

    /**
     * Layer norm without weights of its own, then {@code (1 + scale) · normed + shift}.
     *
     * @param hidden [rows, width]
     * @param shift which part of the modulation; {@code scale} likewise
     * @return [rows, width], in the caller's scope
     */
    Tensor modulated(Tensor hidden, Modulation modulation, int shift, int scale);

    /**
     * Adds {@code gate · y} to the hidden state.
     *
     * @param hidden [rows, width], changed
     * @param y [rows, width]
     * @param gate which part of the modulation
     */
    void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate);

    /** By torch's own kernels. */
    TokenWise TORCH = new TokenWise() {
        private static final double EPSILON = 1e-6;

        /** Shift and scale go through the norm as its bias and weight: one pass over the tokens. */
        @Override
        public Tensor modulated(Tensor hidden, Modulation modulation, int shift, int scale) {
            return Tensors.scoped(() -> {
                Tensor y = normed(hidden, modulation, 0, shift, scale);
                for (int stream = 1; stream < modulation.streams(); stream++) {
                    Tensor rows = modulation.rows(hidden, stream);
                    if (rows.size(0) > 0) {
                        modulation.rows(y, stream).copy_(normed(rows, modulation, stream, shift, scale));
                    }
                }
                return y;
            });
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
    };
}
