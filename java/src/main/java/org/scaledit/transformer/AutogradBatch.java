package org.scaledit.transformer;

import java.util.Arrays;
import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Preparation;
import org.scaledit.tensor.SoftmaxAttention;
import org.scaledit.tensor.Tensors;

/** Torch's own operators, out of place, whose gradients its autograd finds. */
record AutogradBatch(FluxConfig config) implements BatchOperators {

    @Override
    public Tensor taken(Tensor made) {
        return made;
    }

    @Override
    public BatchModulation modulation(Tensor parts) {
        long[] sizes = new long[(int) (parts.size(1) / config.width())];
        Arrays.fill(sizes, config.width());
        return new Modulation(Tensors.split(parts.unsqueeze(1), 2, sizes), config.width());
    }

    /** @param parts [batch, 1, width] each */
    private record Modulation(List<Tensor> parts, long width) implements BatchModulation {

        @Override
        public Tensor modulated(Tensor hidden, int shift, int scale) {
            return Tensors.scoped(() -> {
                Tensor normed = torch.layer_norm(
                        hidden, new long[] {width}, Tensors.none(), Tensors.none(), TokenWise.EPSILON, true);
                return torch.addcmul(parts.get(shift), normed, parts.get(scale).add(new Scalar(1)));
            });
        }

        @Override
        public Tensor gated(Tensor hidden, Tensor y, int gate) {
            return torch.addcmul(hidden, y, parts.get(gate));
        }
    }

    @Override
    public List<Tensor> attended(List<Stream> streams, Tensor turns) {
        Tensor attended = together(
                streams.stream().map(stream -> Heads.of(stream, config)).toList(), turns);
        long[] rows =
                streams.stream().mapToLong(stream -> stream.projected().size(1)).toArray();
        return Tensors.split(attended, 1, rows);
    }

    @Override
    public Tensor attendedBesideGelu(Stream stream, Tensor turns) {
        return Tensors.scoped(() -> {
            Heads heads = Heads.of(stream, config);
            Tensor attended = together(List.of(heads), turns);
            return Tensors.concatenate(2, attended, torch.gelu(heads.others, "tanh"));
        });
    }

    /**
     * A stream's queries and keys side by side, normed, its values, and what is behind them: [batch, rows, …]
     *
     * @param others may have no columns
     */
    private record Heads(Tensor queriesAndKeys, Tensor values, Tensor others) {

        static Heads of(Stream stream, FluxConfig config) {
            long width = config.width();
            Tensor projected = stream.projected();
            List<Tensor> parts = Tensors.split(projected, 2, width, width, width, projected.size(2) - 3 * width);
            List<Tensor> heads = parts.subList(0, 3).stream()
                    .map(part -> part.unflatten(2, config.heads(), config.headDim()))
                    .toList();
            Tensor normed = Tensors.concatenate(
                    2,
                    Preparation.normed(heads.get(0), stream.norms().query()),
                    Preparation.normed(heads.get(1), stream.norms().key()));
            return new Heads(normed, heads.get(2), parts.get(3));
        }
    }

    /** [batch, rows of all, width] */
    private Tensor together(List<Heads> streams, Tensor turns) {
        return Tensors.scoped(() -> {
            Tensor rotated = Preparation.rotated(
                    BatchOperators.one(
                            streams.stream().map(Heads::queriesAndKeys).toList()),
                    turns);
            List<Tensor> prepared = Tensors.split(rotated, 2, config.heads(), config.heads());
            Tensor values =
                    BatchOperators.one(streams.stream().map(Heads::values).toList());
            return SoftmaxAttention.attend(
                            prepared.get(0).transpose(1, 2), prepared.get(1).transpose(1, 2), values.transpose(1, 2))
                    .transpose(1, 2)
                    .flatten(2, 3);
        });
    }

    @Override
    public Tensor joined(List<Tensor> streams) {
        return BatchOperators.one(streams);
    }

    @Override
    public void backward(List<Tensor> outputs, List<Tensor> gradients) {
        Tape.backward(outputs, gradients);
    }

    @Override
    public void close() {
        // Torch's graph goes with its tensors.
    }
}
