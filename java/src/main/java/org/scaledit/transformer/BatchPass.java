package org.scaledit.transformer;

import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;
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
        return new Modulation(layer.batched(conditioning).unsqueeze(1), config.width());
    }

    /** @param parts [batch, 1, parts * width] */
    record Modulation(Tensor parts, long width) {

        /** Layer norm, scale and shift: [batch, rows, width] → the same */
        Tensor modulated(Tensor hidden, int shift, int scale) {
            return Tensors.scoped(() -> {
                Tensor normed = torch.layer_norm(
                        hidden, new long[] {width}, Tensors.none(), Tensors.none(), TokenWise.EPSILON, true);
                return torch.addcmul(part(shift), normed, part(scale).add(new Scalar(1)));
            });
        }

        /** {@code hidden + gate · y}: [batch, rows, width] */
        Tensor gated(Tensor hidden, Tensor y, int gate) {
            return torch.addcmul(hidden, y, part(gate));
        }

        private Tensor part(int part) {
            return parts.narrow(2, part * width, width);
        }
    }

    /**
     * Attention of all tokens of a picture to each other.
     *
     * @param streams queries, keys and values [batch, rows, width] of consecutive tokens
     * @return [batch, text + image, width]
     */
    Tensor attend(Norms norms, Optional<Norms> textNorms, List<List<Tensor>> streams) {
        return Tensors.scoped(() -> {
            Preparation preparation = new Preparation(norms, textNorms, textTokens, turns);
            List<Tensor> heads = IntStream.range(0, 3) // [batch, text + image, heads, head_dim]
                    .mapToObj(part -> Tensors.concatenate(
                                    1,
                                    streams.stream()
                                            .map(stream -> stream.get(part))
                                            .toArray(Tensor[]::new))
                            .unflatten(2, config.heads(), config.headDim()))
                    .toList();
            return torch.scaled_dot_product_attention(
                            preparation.query(heads.get(0)).transpose(1, 2),
                            preparation.key(heads.get(1)).transpose(1, 2),
                            heads.get(2).transpose(1, 2))
                    .transpose(1, 2)
                    .flatten(2, 3);
        });
    }
}
