package org.scaledit.transformer;

import java.util.List;
import org.bytedeco.pytorch.Tensor;

/**
 * What all blocks have in common when a batch of pictures of one size is trained: every token attends to every other.
 *
 * @param conditioning SiLU of the embedding: [batch, width]
 * @param turns [text + image, 1, head_dim / 2], complex64
 */
record BatchPass(Tensor conditioning, Tensor turns, BatchOperators operators) {

    /** Shifts, scales and gates of each picture, from a layer width → parts * width. */
    BatchOperators.BatchModulation modulation(Linear layer) {
        return operators.modulation(layer.batched(conditioning));
    }

    /**
     * Attention of all tokens of a picture to each other: of each stream [batch, rows, width].
     *
     * @param streams consecutive tokens
     */
    List<Tensor> attended(BatchOperators.Stream... streams) {
        return operators.attended(List.of(streams), turns);
    }

    /** Attention's output beside GELU of what is behind the values: [batch, rows, width + mlp width] */
    Tensor attendedBesideGelu(BatchOperators.Stream stream) {
        return operators.attendedBesideGelu(stream, turns);
    }
}
