package org.scaledit.transformer;

import org.bytedeco.pytorch.Tensor;

/**
 * Kernels for the tokens of a batch of pictures, forward and back. A tensor's rows may lie apart, as columns of another
 * tensor do, but evenly. Vectors of each picture are [batch, width]; their gradients come in parts that add up to them,
 * [parts * batch, width], float32. What is returned is in the caller's scope; torch's autograd sees none of it.
 */
interface BatchKernels {

    /** In how many parts the gradient of a picture's vectors is best summed, if a picture has so many rows. */
    long gradientParts(long batch, long rows);

    /** Layer norm, scale and shift: [batch, rows, width] → the same */
    Tensor modulated(Tensor hidden, Tensor shift, Tensor scale);

    /**
     * The gradients of its inputs.
     *
     * @param hiddenGradient to which the hidden state's is added, or which it becomes: [batch, rows, width]
     * @param shiftGradient written, as is that of the scale
     */
    void modulatedGradient(
            Tensor hidden,
            Tensor scale,
            Tensor gradient,
            Tensor hiddenGradient,
            boolean adds,
            Tensor shiftGradient,
            Tensor scaleGradient);

    /** {@code hidden + gate · update}: [batch, rows, width] */
    Tensor gated(Tensor hidden, Tensor update, Tensor gate);

    /** The gradient of the update; writes the gate's. */
    Tensor gatedGradient(Tensor update, Tensor gate, Tensor gradient, Tensor gateGradient);

    /**
     * RMSNorm of each head, and rotation by position.
     *
     * @param stream queries or keys: [batch, rows, width]
     * @param turns [tokens of the sequence, 1, head_dim / 2], complex64
     * @param first token of the sequence that is the stream's
     * @param sequence whose tokens of the stream are written: [batch, tokens, width]
     */
    void prepared(Tensor stream, Tensor norm, Tensor turns, long first, Tensor sequence);

    /**
     * Writes the gradient of the stream, and returns the norm's: [head_dim], float32.
     *
     * @param gradient of the sequence
     */
    Tensor preparedGradient(
            Tensor stream, Tensor norm, Tensor turns, long first, Tensor gradient, Tensor streamGradient);

    /** An input and, beside it, GELU of another in its tanh form: [batch, rows, columns of both] */
    Tensor besideGelu(Tensor input, Tensor wide);

    /** Writes the gradient of what GELU takes. */
    void geluGradient(Tensor wide, Tensor gradient, Tensor wideGradient);
}
