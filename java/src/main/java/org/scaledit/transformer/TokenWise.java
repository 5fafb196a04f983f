package org.scaledit.transformer;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;

/**
 * What happens to each token by itself between the matrix products of a block, up to the form in which the next product
 * takes it: as it is, unless an implementation says otherwise.
 */
interface TokenWise {
    /** Of the layer norm, added to the variance. */
    double EPSILON = 1e-6;

    /**
     * The way for tokens of this kind. On a GPU it is the core's, which takes bfloat16: without the core there is no GPU.
     *
     * @param fp8 whether the blocks' products of all tokens are in FP8
     */
    static TokenWise of(Placement placement, boolean fp8) {
        if (placement.cuda() && placement.dtype() == torch.ScalarType.BFloat16) {
            return fp8 ? CudaTokenWise.FP8 : CudaTokenWise.BFLOAT16;
        }
        if (fp8) {
            throw new IllegalArgumentException("precision fp8 is for bfloat16 on a GPU alone, given " + placement);
        }
        return new TorchTokenWise();
    }

    /**
     * Layer norm without weights of its own, then {@code (1 + scale) · normed + shift}.
     *
     * @param hidden [rows, width]
     * @param shift which part of the modulation; {@code scale} likewise
     * @return [rows, width], in the caller's scope
     */
    Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale);

    /**
     * Adds {@code gate · y} to the hidden state.
     *
     * @param hidden [rows, width], changed
     * @param y [rows, width]
     * @param gate which part of the modulation
     */
    void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate);

    /** {@link #addGated} and then {@link #modulated} of the sum. */
    default Matrix addedAndModulated(Tensor hidden, Tensor y, Modulation modulation, int gate, int shift, int scale) {
        addGated(hidden, y, modulation, gate);
        return modulated(hidden, modulation, shift, scale);
    }

    /** Attention's output: [rows, width] → [rows, width], in the caller's scope */
    default Matrix attended(Tensor attended) {
        return Matrix.of(attended);
    }

    /**
     * The first product of an MLP and GELU, in its tanh form.
     *
     * @param x [rows, width]
     * @return [rows, mlp width], in the caller's scope
     */
    default Matrix gelu(Linear mlpIn, Matrix x, long guidanceRows) {
        return Matrix.of(mlpIn.gelu(x.values(), guidanceRows));
    }

    /**
     * Attention's output and, beside it, what {@link #gelu} gives: a single block's last product takes both.
     *
     * @return [rows, width + mlp width] as one matrix, or as two of the tokens' precision; in the caller's scope
     */
    default List<Matrix> joined(Tensor attended, Linear mlpIn, Matrix x, long guidanceRows) {
        return List.of(attended(attended), gelu(mlpIn, x, guidanceRows));
    }
}
