package org.scaledit.transformer;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * FLUX.1's transformer all of whose weights are in training: plain passes of a batch of pictures of one size, every token
 * attending to every other. Its velocities are those of {@link FluxTransformer} with the same weights. Used by one thread.
 */
public final class TrainedTransformer implements AutoCloseable {
    private final FluxConfig config;
    private final FluxTransformer transformer;
    private final Placement placement;
    private final boolean checkpointing;
    private final Supplier<BatchOperators> operators;
    private final Map<Grid, RotaryEmbedding> rotaries = new HashMap<>(); // of all batches until now

    /** What a rotation depends on, in tokens. */
    private record Grid(int text, int width, int height) {}

    /**
     * @param weights by diffusers' names: leaves of torch's autograd, which stay the caller's
     * @param checkpointing whether each block's input alone is kept for its gradients, and the block computed once more
     */
    public TrainedTransformer(
            FluxConfig config, Map<String, Tensor> weights, Placement placement, boolean checkpointing) {
        this(config, weights, placement, checkpointing, () -> BatchOperators.of(config, placement));
    }

    /** @param operators makes those of a pass */
    TrainedTransformer(
            FluxConfig config,
            Map<String, Tensor> weights,
            Placement placement,
            boolean checkpointing,
            Supplier<BatchOperators> operators) {
        this.config = config;
        this.placement = placement;
        this.checkpointing = checkpointing;
        this.operators = operators;
        this.transformer = FluxTransformer.load(config, Weights.of(weights, placement), 0, false);
    }

    /**
     * A batch of noised pictures.
     *
     * @param width tokens of each picture's grid; {@code height} likewise
     * @param latents packed, in raster order: {@code [batch, width · height, 64]}
     * @param sigmas noise levels, 0 … 1: {@code [batch]}, float32 on the CPU
     * @param states T5's: {@code [batch, text, joint width]}
     * @param pooled CLIP's: {@code [batch, pooled width]}
     * @param guidance the distilled guidance scale; not looked at by a model without guidance embedder
     */
    public record Batch(
            int width, int height, Tensor latents, Tensor sigmas, Tensor states, Tensor pooled, double guidance) {}

    /**
     * A second loss, of what the transformer makes of the image on its way.
     *
     * @param block whose input is looked at, by its number from 0
     * @param loss of the image's tokens {@code [batch, width · height, width]}: a scalar
     */
    public record HiddenLoss(int block, UnaryOperator<Tensor> loss) {}

    /** The velocities, without gradients: {@code [batch, width · height, 64]}, float32, in the caller's scope. */
    public Tensor velocity(Batch batch) {
        Tensor[] velocity = new Tensor[1];
        Tensors.withoutGradients(() -> velocity[0] = Tensors.scoped(() -> {
            try (BatchOperators current = operators.get()) {
                return passed(batch, current, Optional.empty()).velocity;
            }
        }));
        return velocity[0];
    }

    /** @param second loss, if there is one */
    private record Passed(Tensor velocity, Optional<Tensor> second) {}

    private Passed passed(Batch batch, BatchOperators operators, Optional<HiddenLoss> second) {
        BatchPass pass = pass(operators.taken(conditioning(batch)), batch, operators);
        List<Tensor> streams = embedded(batch).stream().map(operators::taken).toList();
        List<FluxModel.Block> blocks = transformer.model().blocks();
        Optional<Tensor> value = Optional.empty();
        for (int block = 0; block < blocks.size(); block++) {
            if (second.isPresent() && second.get().block == block) {
                value = Optional.of(second.get().loss.apply(image(streams, batch)));
            }
            streams = blocks.get(block).forward(streams, pass);
        }
        return new Passed(velocity(streams, pass, batch), value);
    }

    /**
     * Adds a loss's gradients to those that all weights have, and to those of the leaves that states and pooled texts come
     * from.
     *
     * @param loss of the velocities, see {@link #velocity}: a scalar
     * @return the loss, where it is computed, in the caller's scope
     */
    public Tensor addGradients(Batch batch, UnaryOperator<Tensor> loss) {
        return addGradients(batch, loss, Optional.empty());
    }

    /**
     * The same for the sum of two losses.
     *
     * @return the first one, likewise
     */
    public Tensor addGradients(Batch batch, UnaryOperator<Tensor> loss, Optional<HiddenLoss> second) {
        int blocks = transformer.model().blocks().size();
        if (second.isPresent() && (second.get().block < 0 || second.get().block >= blocks)) {
            throw new IllegalArgumentException(
                    "a second loss of block " + second.get().block + ", expected one from 0 to " + (blocks - 1));
        }
        if (checkpointing) {
            return addGradientsBlockByBlock(batch, loss, second);
        }
        return Tensors.scoped(() -> {
            try (BatchOperators current = operators.get()) {
                Passed passed = passed(batch, current, second);
                Tensor value = loss.apply(passed.velocity);
                backward(current, passed.second.map(value::add).orElse(value));
                return value.detach();
            }
        });
    }

    /** Of a loss. */
    private static void backward(BatchOperators operators, Tensor loss) {
        operators.backward(List.of(loss), List.of(torch.ones_like(loss)));
    }

    private Tensor addGradientsBlockByBlock(Batch batch, UnaryOperator<Tensor> loss, Optional<HiddenLoss> second) {
        Deque<List<Tensor>> inputs = new ArrayDeque<>(); // of the blocks, the last one first; without graphs
        List<Tensor> gradients = new ArrayList<>(); // of the outputs of the block that comes next on the way back
        List<Tensor> losses = new ArrayList<>(); // one, which outlives the scope that it is computed in
        try (BatchOperators current = operators.get()) {
            return Tensors.scoped(() -> {
                Tensor conditioning = conditioning(batch);
                Tensor leaf = conditioning.detach();
                leaf.set_requires_grad(true);
                BatchPass pass = pass(leaf, batch, current);
                List<FluxModel.Block> blocks = transformer.model().blocks();
                List<Tensor> embedded = embedded(batch);
                inputs.push(embedded.stream()
                        .map(each -> Tensors.keep(each.detach()))
                        .toList());
                Tensors.withoutGradients(() -> blocks.forEach(block ->
                        Tensors.run(() -> inputs.push(block.forward(inputs.getFirst(), pass).stream()
                                .map(Tensors::keep)
                                .toList()))));
                stepBack(inputs, gradients, last -> {
                    Tensor scalar = loss.apply(velocity(last, pass, batch));
                    backward(current, scalar);
                    losses.add(Tensors.keep(scalar.detach()));
                });
                for (int block = blocks.size() - 1; block >= 0; block--) {
                    int number = block;
                    stepBack(inputs, gradients, input -> {
                        current.backward(blocks.get(number).forward(input, pass), gradients);
                        second.filter(other -> other.block == number)
                                .ifPresent(other ->
                                        other.loss.apply(image(input, batch)).backward());
                    });
                }
                current.backward(embedded, gradients);
                current.backward(List.of(conditioning), List.of(leaf.grad()));
                return losses.get(0);
            });
        } finally {
            close(losses);
            inputs.forEach(TrainedTransformer::close);
            close(gradients);
        }
    }

    /**
     * Takes the last of some inputs off them, and puts its gradients in the place of those of what was made of it.
     *
     * @param backward adds to the input's gradients
     */
    private static void stepBack(Deque<List<Tensor>> inputs, List<Tensor> gradients, Consumer<List<Tensor>> backward) {
        List<Tensor> input = inputs.pop();
        try {
            input.forEach(each -> each.set_requires_grad(true));
            Tensors.run(() -> backward.accept(input));
            close(gradients);
            gradients.clear();
            input.forEach(each -> gradients.add(Tensors.outlive(() -> new Tensor(Tape.gradient(each)))));
        } finally {
            close(input);
        }
    }

    private static void close(List<Tensor> tensors) {
        tensors.forEach(Tensor::close);
    }

    private Tensor conditioning(Batch batch) {
        Placement wide = placement.with(torch.ScalarType.Float);
        return Tensors.scoped(() -> torch.silu(placement.place(transformer
                .model()
                .conditioning()
                .batched(batch.sigmas, (float) batch.guidance, wide.place(batch.pooled), placement))));
    }

    private BatchPass pass(Tensor conditioning, Batch batch, BatchOperators operators) {
        RotaryEmbedding rotary = rotaries.computeIfAbsent(
                new Grid((int) batch.states.size(1), batch.width, batch.height),
                grid -> RotaryEmbedding.of(
                        TokenLayout.raster(grid.text, grid.width, grid.height),
                        config,
                        FluxTransformer.THETA,
                        placement));
        return new BatchPass(conditioning, rotary.turns(), operators);
    }

    /** Text and image before the first block: [batch, rows, width] */
    private List<Tensor> embedded(Batch batch) {
        return List.of(
                transformer.model().textEmbedder().batched(placement.place(batch.states)),
                transformer.model().latentEmbedder().batched(placement.place(batch.latents)));
    }

    /** @param streams text and image, or both as one; the image has [batch, width · height, width] */
    private static Tensor image(List<Tensor> streams, Batch batch) {
        Tensor last = streams.get(streams.size() - 1);
        long tokens = (long) batch.width * batch.height;
        return last.narrow(1, last.size(1) - tokens, tokens);
    }

    /** What comes after the last block. */
    private Tensor velocity(List<Tensor> streams, BatchPass pass, Batch batch) {
        return Tensors.scoped(() -> {
            Tensor image = pass.operators().taken(image(streams, batch).contiguous());
            Tensor modulated = pass.modulation(transformer.model().finalModulation())
                    .modulated(image, 1, 0); // stores its scale first
            return Tensors.toFloat32(transformer.model().finalLayer().batched(modulated));
        });
    }

    /** Leaves the weights as they are. */
    @Override
    public void close() {
        rotaries.values().forEach(RotaryEmbedding::close);
        rotaries.clear();
        transformer.close();
    }
}
