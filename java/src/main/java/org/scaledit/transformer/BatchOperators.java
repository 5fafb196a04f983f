package org.scaledit.transformer;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * What blocks do to a batch of pictures between their products, in a form whose gradients can be found. The products are
 * torch's, and so is GELU where a product comes right behind it. Made for one pass and the way back; used by one thread.
 */
interface BatchOperators extends AutoCloseable {

    /** On a GPU it is the core's, which takes bfloat16, if the core has kernels for the model's sizes. */
    static BatchOperators of(FluxConfig config, Placement placement) {
        boolean core =
                placement.cuda() && placement.dtype() == torch.ScalarType.BFloat16 && CudaBatchKernels.take(config);
        return core ? new TapedBatch(config, new CudaBatchKernels(), placement) : new AutogradBatch(config);
    }

    /**
     * What layers made of their input, as operators take it: the way back through the layers comes after theirs.
     *
     * @param made with the graph of its layers
     * @return the same values
     */
    Tensor taken(Tensor made);

    /** @param parts of the modulation side by side, with the graph of their layer: [batch, parts * width] */
    BatchModulation modulation(Tensor parts);

    /** Shifts, scales and gates of each picture. */
    interface BatchModulation {

        /** Layer norm, scale and shift: [batch, rows, width] → the same */
        Tensor modulated(Tensor hidden, int shift, int scale);

        /** {@code hidden + gate · y}: [batch, rows, width]; y with the graph of its layer */
        Tensor gated(Tensor hidden, Tensor y, int gate);
    }

    /**
     * What a stream of tokens brings to attention.
     *
     * @param projected queries, keys and values side by side, with the graph of their layers: [batch, rows, 3 * width]
     */
    record Stream(Norms norms, Tensor projected) {}

    /**
     * Attention of all tokens of a picture to each other.
     *
     * @param streams consecutive tokens
     * @param turns [tokens of all streams, 1, head_dim / 2], complex64
     * @return of each stream, [batch, rows, width]
     */
    List<Tensor> attended(List<Stream> streams, Tensor turns);

    /**
     * Attention's output of a single stream and, beside it, GELU, in its tanh form.
     *
     * @param stream what is behind the values is GELU's: [batch, rows, 3 * width + mlp width]
     * @return [batch, rows, width + mlp width]
     */
    Tensor attendedBesideGelu(Stream stream, Tensor turns);

    /** Streams one after the other: [batch, rows of both, width] */
    Tensor joined(List<Tensor> streams);

    /**
     * Adds gradients to those of all that the outputs come from.
     *
     * @param outputs of operators of this pass, or with graphs
     * @param gradients theirs, a tensor of its own for each, which may be changed
     */
    void backward(List<Tensor> outputs, List<Tensor> gradients);

    /** Frees what the way back would need. */
    @Override
    void close();

    /** Streams one after the other; one alone as it is. */
    static Tensor one(List<Tensor> streams) {
        return streams.size() == 1 ? streams.get(0) : Tensors.concatenate(1, streams.toArray(Tensor[]::new));
    }
}
