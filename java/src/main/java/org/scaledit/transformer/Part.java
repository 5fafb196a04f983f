package org.scaledit.transformer;

/** The parts of a forward pass, for a profile. */
public enum Part {
    /** Embedders, conditioning, modulations' layers. */
    EMBED,
    /** Layer norm, shift and scale; before an MLP with the gated addition of attention's output. */
    MODULATE,
    /** Queries, keys and values. */
    PROJECT,
    /** From these to attention's output: norm, rotation, softmax. */
    ATTEND,
    /** Of attention's output. */
    OUTPUT,
    /** Both products of an MLP and GELU; in single blocks with attention's output. */
    MLP,
    /** The gated addition of a block's output to the hidden state. */
    GATE,
    /** Last norm and layer. */
    FINAL
}
