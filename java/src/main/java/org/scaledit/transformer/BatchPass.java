package org.scaledit.transformer;

import java.util.Arrays;
import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Preparation;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.tensor.Tensors;

/**
 * What all blocks have in common when a batch of pictures of one size is trained: a plain pass, all of it torch's own
 * operators out of place, so that autograd finds the gradients of every weight.
 *
 * @param conditioning SiLU of the embedding: [batch, width]
 * @param turns [text + image, 1, head_dim / 2], complex64
 */
record BatchPass(Tensor conditioning, Tensor turns, long textTokens, FluxConfig config) {

    /** Shifts, scales and gates of each picture, from a layer width → parts * width. */
    Modulation modulation(Linear layer) {
        Tensor parts = layer.batched(conditioning).unsqueeze(1); // [batch, 1, parts * width]
        long[] sizes = new long[(int) (parts.size(2) / config.width())];
        Arrays.fill(sizes, config.width());
        return new Modulation(Tensors.split(parts, 2, sizes), config.width());
    }

    /** @param parts [batch, 1, width] each */
    record Modulation(List<Tensor> parts, long width) {

        /** Layer norm, scale and shift: [batch, rows, width] → the same */
        Tensor modulated(Tensor hidden, int shift, int scale) {
            return Tensors.scoped(() -> {
                Tensor normed = torch.layer_norm(
                        hidden, new long[] {width}, Tensors.none(), Tensors.none(), TokenWise.EPSILON, true);
                return torch.addcmul(parts.get(shift), normed, parts.get(scale).add(new Scalar(1)));
            });
        }

        /** {@code hidden + gate · y}: [batch, rows, width] */
        Tensor gated(Tensor hidden, Tensor y, int gate) {
            return torch.addcmul(hidden, y, parts.get(gate));
        }
    }

    /** Text and image of a hidden state or of what has its rows: [batch, text, …] and [batch, image, …] */
    List<Tensor> streams(Tensor hidden) {
        return Tensors.split(hidden, 1, textTokens, hidden.size(1) - textTokens);
    }

    /**
     * What a stream of tokens brings to attention.
     *
     * @param heads queries, keys and values [batch, rows, width]
     */
    record Attending(Norms norms, List<Tensor> heads) {}

    /**
     * Attention of all tokens of a picture to each other.
     *
     * @param streams consecutive tokens
     * @return [batch, text + image, width]
     */
    Tensor attend(List<Attending> streams) {
        return Tensors.scoped(() -> {
            Tensor rotated = Preparation.rotated( // queries and keys: [batch, text + image, 2 * heads, head_dim]
                    joined(streams.stream().map(this::normed).toList()), turns);
            List<Tensor> prepared = Tensors.split(rotated, 2, config.heads(), config.heads());
            Tensor values = joined(
                    streams.stream().map(stream -> heads(stream.heads.get(2))).toList());
            return torch.scaled_dot_product_attention(
                            prepared.get(0).transpose(1, 2), prepared.get(1).transpose(1, 2), values.transpose(1, 2))
                    .transpose(1, 2)
                    .flatten(2, 3);
        });
    }

    private static Tensor joined(List<Tensor> streams) {
        return streams.size() == 1 ? streams.get(0) : Tensors.concatenate(1, streams.toArray(Tensor[]::new));
    }

    /** [batch, rows, width] → [batch, rows, heads, head_dim] */
    private Tensor heads(Tensor projected) {
        return projected.unflatten(2, config.heads(), config.headDim());
    }

    /** [batch, rows, 2 * heads, head_dim] */
    private Tensor normed(Attending stream) {
        return Tensors.concatenate(
                2,
                Preparation.normed(heads(stream.heads.get(0)), stream.norms.query()),
                Preparation.normed(heads(stream.heads.get(1)), stream.norms.key()));
    }
}
