package org.scaledit.transformer;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.SoftmaxAttention;
import org.scaledit.tensor.Tensors;

/**
 * Fused kernels, each of which reads and writes everything once, and a tape for the way back. Torch does what is between
 * them: products, and attention itself. The gradient of the hidden state is one tensor through all blocks of a kind, to which
 * each adds in place.
 */
final class TapedBatch implements BatchOperators {
    private static final int QUERIES = 0;
    private static final int KEYS = 1;
    private static final int VALUES = 2;

    private final FluxConfig config;
    private final BatchKernels kernels;
    private final Placement placement;
    private final Placement sums;
    private final Tape tape = new Tape();
    private final List<Modulation> modulations = new ArrayList<>();

    /** @param placement of the tokens */
    TapedBatch(FluxConfig config, BatchKernels kernels, Placement placement) {
        this.config = config;
        this.kernels = kernels;
        this.placement = placement;
        this.sums = placement.with(torch.ScalarType.Float);
    }

    @Override
    public Tensor taken(Tensor made) {
        Tensor output = Tape.leaf(made);
        Tensor graph = tape.keep(made);
        Tensor leaf = tape.keep(output);
        tape.add(() -> Tape.flow(graph, Tape.gradient(leaf)));
        return output;
    }

    @Override
    public BatchModulation modulation(Tensor parts) {
        Modulation modulation = new Modulation(parts.detach());
        Tensor graph = tape.keep(parts);
        tape.add(() -> modulation.finish(graph));
        modulations.add(modulation);
        return modulation;
    }

    private final class Modulation implements BatchModulation {
        private final Tensor values; // [batch, parts * width], without a graph
        private final long columns;
        private @Nullable Tensor gradients; // [groups * batch, parts * width], float32, on the way back

        Modulation(Tensor values) {
            this.values = values;
            this.columns = values.size(1);
        }

        private Tensor part(int part) {
            return values.narrow(1, part * config.width(), config.width());
        }

        /** Where the gradient of a part is written, by the one operator that takes it. */
        private Tensor gradientRoom(int part, Tensor ofInput) {
            Tensor room = gradients;
            if (room == null) {
                long batch = ofInput.size(0);
                long groups = kernels.gradientParts(batch, ofInput.size(1));
                room = Tensors.outlive(() -> torch.zeros(new long[] {groups * batch, columns}, sums.options()));
                gradients = room;
            }
            return room.narrow(1, part * config.width(), config.width());
        }

        /** Has torch take the gradients further. */
        private void finish(Tensor graph) {
            Tensor written = gradients;
            if (written != null) {
                Tensor sum = written.view(-1, graph.size(0), graph.size(1)).sum(0);
                Tape.flow(graph, sum.to(graph.scalar_type()));
                free();
            }
        }

        void free() {
            if (gradients != null) {
                gradients.close();
                gradients = null;
            }
        }

        @Override
        public Tensor modulated(Tensor hidden, int shift, int scale) {
            Tensor output = Tape.leaf(kernels.modulated(hidden.detach(), part(shift), part(scale)));
            Tensor input = tape.keep(hidden);
            Tensor factor = tape.keep(part(scale));
            Tensor leaf = tape.keep(output);
            tape.add(() -> {
                Tensor before = input.grad();
                Tensor gradient = before.defined() ? before : torch.empty_like(input);
                kernels.modulatedGradient(
                        input.detach(),
                        factor,
                        Tape.gradient(leaf),
                        gradient,
                        before.defined(),
                        gradientRoom(shift, input),
                        gradientRoom(scale, input));
                if (!before.defined()) {
                    Tape.flow(input, gradient);
                }
            });
            return output;
        }

        @Override
        public Tensor gated(Tensor hidden, Tensor y, int gate) {
            Tensor output = Tape.leaf(kernels.gated(hidden.detach(), y.detach(), part(gate)));
            Tensor input = tape.keep(hidden);
            Tensor update = tape.keep(y);
            Tensor factor = tape.keep(part(gate));
            Tensor leaf = tape.keep(output);
            tape.add(() -> {
                Tensor gradient = Tape.gradient(leaf);
                Tensor ofUpdate = kernels.gatedGradient(update.detach(), factor, gradient, gradientRoom(gate, update));
                Tape.flow(input, gradient);
                Tape.flow(update, ofUpdate);
            });
            return output;
        }
    }

    @Override
    public List<Tensor> attended(List<Stream> streams, Tensor turns) {
        Attention attention = new Attention(streams, turns);
        List<Tensor> outputs =
                attention.split(attention.output).stream().map(Tape::leaf).toList();
        List<Tensor> leaves = outputs.stream().map(tape::keep).toList();
        tape.add(() -> attention.back(
                Tensors.concatenate(1, leaves.stream().map(Tape::gradient).toArray(Tensor[]::new)), gradient -> {}));
        return outputs;
    }

    @Override
    public Tensor attendedBesideGelu(Stream stream, Tensor turns) {
        Attention attention = new Attention(List.of(stream), turns);
        Tensor output = Tape.leaf(kernels.besideGelu(
                attention.output.detach(), wide(stream.projected().detach())));
        Tensor projected = tape.keep(stream.projected());
        Tensor leaf = tape.keep(output);
        tape.add(() -> {
            Tensor gradient = Tape.gradient(leaf);
            long width = config.width();
            attention.back(
                    gradient.narrow(2, 0, width),
                    ofProjected -> kernels.geluGradient(
                            wide(projected.detach()),
                            gradient.narrow(2, width, gradient.size(2) - width),
                            wide(ofProjected)));
        });
        return output;
    }

    /** What is behind queries, keys and values. */
    private Tensor wide(Tensor projected) {
        return projected.narrow(2, 3 * config.width(), projected.size(2) - 3 * config.width());
    }

    /** A call of torch's attention, with queries and keys that a kernel prepares; kept for the step that comes next. */
    private final class Attention {
        private final List<Norms> norms; // of each stream
        private final List<Tensor> projected; // likewise, with their graph
        private final List<Tensor> inputs; // queries, keys and values of all tokens: leaves [batch, tokens, width]
        private final Tensor turns;
        final Tensor output; // [batch, tokens, width], with the graph of torch's attention

        Attention(List<Stream> streams, Tensor turns) {
            this.norms = streams.stream().map(Stream::norms).toList();
            this.projected = streams.stream()
                    .map(stream -> tape.keep(stream.projected()))
                    .toList();
            this.turns = tape.keep(turns);
            this.inputs = List.of(prepared(QUERIES), prepared(KEYS), values());
            this.output = tape.keep(SoftmaxAttention.attend(heads(QUERIES), heads(KEYS), heads(VALUES))
                    .transpose(1, 2)
                    .flatten(2, 3));
        }

        private Tensor prepared(int part) {
            Tensor first = projected.get(0);
            Tensor sequence =
                    torch.empty(new long[] {first.size(0), turns.size(0), config.width()}, placement.options(), null);
            long token = 0;
            for (int stream = 0; stream < projected.size(); stream++) {
                Tensor rows = part(projected.get(stream).detach(), part);
                kernels.prepared(rows, norm(stream, part).detach(), turns, token, sequence);
                token += rows.size(1);
            }
            return tape.keep(Tape.leaf(sequence));
        }

        private Tensor values() {
            List<Tensor> values =
                    projected.stream().map(each -> part(each.detach(), VALUES)).toList();
            return tape.keep(Tape.leaf(BatchOperators.one(values)));
        }

        private Tensor heads(int part) { // [batch, heads, tokens, head_dim]
            return inputs.get(part)
                    .unflatten(2, config.heads(), config.headDim())
                    .transpose(1, 2);
        }

        private Tensor part(Tensor projected, int part) {
            return projected.narrow(2, part * config.width(), config.width());
        }

        private Tensor norm(int stream, int part) {
            return part == QUERIES
                    ? norms.get(stream).query()
                    : norms.get(stream).key();
        }

        /** The rows of each stream. */
        List<Tensor> split(Tensor sequence) {
            return Tensors.split(
                    sequence.detach(),
                    1,
                    projected.stream().mapToLong(each -> each.size(1)).toArray());
        }

        /**
         * The way back.
         *
         * @param gradient of the output
         * @param others writes the gradient of what is behind the values in that of a stream's projection
         */
        void back(Tensor gradient, Consumer<Tensor> others) {
            Tape.backward(List.of(output), List.of(gradient));
            List<Tensor> values = split(inputs.get(VALUES).grad());
            long token = 0;
            for (int stream = 0; stream < projected.size(); stream++) {
                Tensor graph = projected.get(stream);
                Tensor ofProjected = torch.empty_like(graph);
                for (int part : List.of(QUERIES, KEYS)) {
                    Tensor norm = norm(stream, part);
                    Tensor ofNorm = kernels.preparedGradient(
                            part(graph.detach(), part),
                            norm.detach(),
                            turns,
                            token,
                            inputs.get(part).grad(),
                            part(ofProjected, part));
                    Tape.flow(norm, ofNorm.to(norm.scalar_type()));
                }
                part(ofProjected, VALUES).copy_(values.get(stream));
                others.accept(ofProjected);
                Tape.flow(graph, ofProjected);
                token += graph.size(1);
            }
        }
    }

    @Override
    public Tensor joined(List<Tensor> streams) {
        if (streams.size() == 1) {
            return streams.get(0);
        }
        Tensor output = Tape.leaf(
                Tensors.concatenate(1, streams.stream().map(Tensor::detach).toArray(Tensor[]::new)));
        List<Tensor> inputs = streams.stream().map(tape::keep).toList();
        Tensor leaf = tape.keep(output);
        tape.add(() -> {
            long token = 0;
            for (Tensor input : inputs) {
                Tape.flow(
                        input,
                        Tape.gradient(leaf).narrow(1, token, input.size(1)).contiguous());
                token += input.size(1);
            }
        });
        return output;
    }

    @Override
    public void backward(List<Tensor> outputs, List<Tensor> gradients) {
        tape.walk(outputs, gradients);
    }

    @Override
    public void close() {
        tape.close();
        modulations.forEach(Modulation::free);
    }
}
