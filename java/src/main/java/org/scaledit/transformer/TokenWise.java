package org.scaledit.transformer;

import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Matrix;

/**
 * What happens to each token by itself between the matrix products of a block, up to the form in which the next product
 * takes it.
 */
interface TokenWise {

    /**
     * Layer norm without weights of its own, then {@code (1 + scale) · normed + shift}.
     *
     * @param hidden [rows, width]
     * @param shift which part of the modulation; {@code scale} likewise
     * @return [rows, width], in the caller's scope
     */
    Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale);

    /** Attention's output: [rows, width] → [rows, width], in the caller's scope */
    Matrix attended(Tensor attended);

    /**
     * The first product of an MLP and GELU, in its tanh form.
     *
     * @param x [rows, width]
     * @return [rows, mlp width], in the caller's scope
     */
    Matrix gelu(Linear mlpIn, Matrix x, long guidanceRows);

    /**
     * Adds {@code gate · y} to the hidden state.
     *
     * @param hidden [rows, width], changed
     * @param y [rows, width]
     * @param gate which part of the modulation
     */
    void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate);
}
