package org.scaledit.transformer;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorArrayRefOptional;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
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
    private @Nullable TokenLayout layout; // of the last batch
    private @Nullable RotaryEmbedding rotary; // likewise

    /**
     * @param weights by diffusers' names: leaves of torch's autograd, which stay the caller's
     * @param checkpointing whether each block's input alone is kept for its gradients, and the block computed once more
     */
    public TrainedTransformer(
            FluxConfig config, Map<String, Tensor> weights, Placement placement, boolean checkpointing) {
        this.config = config;
        this.placement = placement;
        this.checkpointing = checkpointing;
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

    /** The velocities with their graph: {@code [batch, width · height, 64]}, float32, in the caller's scope. */
    public Tensor velocity(Batch batch) {
        return Tensors.scoped(() -> passed(batch, Optional.empty()).velocity);
    }

    /** @param second loss, if there is one */
    private record Passed(Tensor velocity, Optional<Tensor> second) {}

    private Passed passed(Batch batch, Optional<HiddenLoss> second) {
        BatchPass pass = pass(conditioning(batch), batch);
        Tensor hidden = embedded(batch);
        List<FluxModel.Block> blocks = transformer.model().blocks();
        Optional<Tensor> value = Optional.empty();
        for (int block = 0; block < blocks.size(); block++) {
            if (second.isPresent() && second.get().block == block) {
                value = Optional.of(second.get().loss.apply(image(hidden, pass)));
            }
            hidden = blocks.get(block).forward(hidden, pass);
        }
        return new Passed(velocity(hidden, pass), value);
    }

    /**
     * Adds a loss's gradients to those that all weights have, and to those of the leaves that states and pooled texts come
     * from.
     *
     * @param loss of the velocities, see {@link #velocity}: a scalar
     * @return the loss
     */
    public double addGradients(Batch batch, UnaryOperator<Tensor> loss) {
        return addGradients(batch, loss, Optional.empty());
    }

    /**
     * The same for the sum of two losses.
     *
     * @return the first one
     */
    public double addGradients(Batch batch, UnaryOperator<Tensor> loss, Optional<HiddenLoss> second) {
        if (checkpointing) {
            return addGradientsBlockByBlock(batch, loss, second);
        }
        return Tensors.compute(() -> {
            Passed passed = passed(batch, second);
            Tensor value = loss.apply(passed.velocity);
            passed.second.map(value::add).orElse(value).backward();
            return value.item_double();
        });
    }

    private double addGradientsBlockByBlock(Batch batch, UnaryOperator<Tensor> loss, Optional<HiddenLoss> second) {
        Deque<Tensor> inputs = new ArrayDeque<>(); // of the blocks, the last one first
        try {
            return Tensors.compute(() -> {
                Tensor conditioning = conditioning(batch);
                Tensor leaf = conditioning.detach();
                leaf.set_requires_grad(true);
                BatchPass pass = pass(leaf, batch);
                List<FluxModel.Block> blocks = transformer.model().blocks();
                Tensor embedded = embedded(batch);
                inputs.push(Tensors.keep(embedded.detach()));
                Tensors.withoutGradients(() -> blocks.forEach(
                        block -> inputs.push(Tensors.outlive(() -> block.forward(inputs.getFirst(), pass)))));
                Tensor gradient;
                Tensor value;
                try (Tensor last = inputs.pop()) {
                    last.set_requires_grad(true);
                    value = Tensors.scoped(() -> loss.apply(velocity(last, pass)));
                    value.backward();
                    gradient = new Tensor(last.grad());
                }
                for (int block = blocks.size() - 1; block >= 0; block--) {
                    try (Tensor input = inputs.pop();
                            Tensor ofOutput = gradient) {
                        FluxModel.Block current = blocks.get(block);
                        input.set_requires_grad(true);
                        Tensors.run(() -> backward(current.forward(input, pass), ofOutput));
                        if (second.isPresent() && second.get().block == block) {
                            UnaryOperator<Tensor> ofInput = second.get().loss;
                            Tensors.run(() -> ofInput.apply(image(input, pass)).backward());
                        }
                        gradient = new Tensor(input.grad());
                    }
                }
                backward(embedded, gradient);
                backward(conditioning, leaf.grad());
                return value.item_double();
            });
        } finally {
            inputs.forEach(Tensor::close);
        }
    }

    private static void backward(Tensor output, Tensor gradient) {
        output.backward(gradient, new BoolOptional(), false, new TensorArrayRefOptional());
    }

    private Tensor conditioning(Batch batch) {
        Placement wide = placement.with(torch.ScalarType.Float);
        return Tensors.scoped(() -> torch.silu(placement.place(transformer
                .model()
                .conditioning()
                .batched(batch.sigmas, (float) batch.guidance, wide.place(batch.pooled), placement))));
    }

    private BatchPass pass(Tensor conditioning, Batch batch) {
        int text = (int) batch.states.size(1);
        TokenLayout last = layout;
        RotaryEmbedding current = rotary;
        if (current == null
                || last == null
                || last.textTokens() != text
                || last.width() != batch.width
                || last.height() != batch.height) {
            close(current);
            TokenLayout asked = TokenLayout.raster(text, batch.width, batch.height);
            current = RotaryEmbedding.of(asked, config, FluxTransformer.THETA, placement);
            layout = asked;
            rotary = current;
        }
        return new BatchPass(conditioning, current.turns(), text, config);
    }

    /** The hidden state before the first block: [batch, text + image, width] */
    private Tensor embedded(Batch batch) {
        return Tensors.concatenate(
                1,
                transformer.model().textEmbedder().batched(placement.place(batch.states)),
                transformer.model().latentEmbedder().batched(placement.place(batch.latents)));
    }

    private static Tensor image(Tensor hidden, BatchPass pass) { // [batch, image, width]
        return pass.streams(hidden).get(1);
    }

    /** What comes after the last block. */
    private Tensor velocity(Tensor hidden, BatchPass pass) {
        return Tensors.scoped(() -> {
            Tensor modulated = pass.modulation(transformer.model().finalModulation())
                    .modulated(image(hidden, pass), 1, 0); // stores its scale first
            return Tensors.toFloat32(transformer.model().finalLayer().batched(modulated));
        });
    }

    private static void close(@Nullable RotaryEmbedding rotary) {
        if (rotary != null) {
            rotary.close();
        }
    }

    /** Leaves the weights as they are. */
    @Override
    public void close() {
        close(rotary);
        rotary = null;
        transformer.close();
    }
}
