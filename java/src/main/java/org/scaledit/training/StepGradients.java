package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.function.Function;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.ranks.Exchange;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.FluxTransformer;

/**
 * The gradients of a training's steps, each the mean over the samples of the step. Several ranks deal them out: of n, rank r
 * computes the samples r, r + n and so on, for the matrices that rank 0 has.
 */
final class StepGradients implements AutoCloseable {
    private final Recipe recipe;
    private final TrainingSet set;
    private final Exchange exchange;
    private final double[] losses;
    private final SampleOrder order;
    private final FlowMatching loss;
    private final Map<String, Tensor> parameters = new LinkedHashMap<>(); // leaves of autograd

    /**
     * @param trained has the LoRA in training; it stays the caller's
     * @param losses of a step's samples, for which all ranks have one array
     */
    StepGradients(Recipe recipe, TrainingSet set, FluxTransformer trained, Exchange exchange, double[] losses) {
        this.recipe = recipe;
        this.set = set;
        this.exchange = exchange;
        this.losses = losses;
        this.order = new SampleOrder(recipe.seed(), set.size(), recipe.timesteps());
        this.loss = new FlowMatching(trained, recipe.attention(), recipe.window());
        trained.trainedLayers().forEach((module, layer) -> {
            parameters.put(module + ".lora_A.weight", layer.down());
            parameters.put(module + ".lora_B.weight", layer.up());
        });
    }

    /** The matrices in training by their names in a file, not to be closed. */
    Map<String, Tensor> parameters() {
        return parameters;
    }

    /**
     * Gives rank 0's matrices to all ranks, and then computes their gradients, which all ranks have in the end. On GPUs these may
     * still be in a queue: whoever has read them asks {@link #requireWhole}.
     *
     * @return the mean of the samples' losses; on rank 0 alone of all of them
     * @throws TrainingException if a loss is no number
     * @throws java.util.concurrent.CancellationException if the thread is interrupted; the matrices are then as they were
     */
    double of(long step) {
        together(
                parameter -> parameter,
                (parameter, shared) -> Tensors.withoutGradients(() -> parameter.copy_(shared)),
                exchange::share);
        clear(); // those of a step that was not finished, too
        for (int sample = exchange.rank(); sample < losses.length; sample += exchange.ranks()) {
            TrainingLoop.throwIfInterruptedAfter(step - 1);
            losses[sample] = add((step - 1) * losses.length + sample, step);
        }
        together(Tensor::grad, (parameter, sum) -> parameter.mutable_grad().copy_(sum), exchange::sum);
        double sum = 0;
        for (double value : losses) {
            sum += value;
        }
        return sum / losses.length;
    }

    /**
     * Looks whether the gradients that were read are the sum of what all ranks gave.
     *
     * @throws org.scaledit.ranks.RanksStoppedException if they may not be, as a rank has failed
     */
    void requireWhole() {
        exchange.requireWhole();
    }

    /** @param count of the samples before this one */
    private double add(long count, long step) {
        int sample = order.sample(count);
        TokenGrid grid = set.bucket(sample).grid();
        double value = Tensors.compute(() -> loss.addGradients(
                grid,
                set.inputs(sample),
                new FlowMatching.Noising(order.sigma(count), SeededNoise.draw(order.noise(count), grid)),
                1.0 / losses.length));
        if (!Double.isFinite(value)) {
            throw new TrainingException(
                    "the loss of " + set.name(sample) + " is " + value + " at step " + step + ", expected a number");
        }
        return value;
    }

    private void clear() {
        Tensors.run(() -> parameters.values().forEach(parameter -> {
            if (parameter.grad().defined()) {
                parameter.mutable_grad().zero_();
            }
        }));
    }

    private interface Collective {
        void apply(Tensor tensor);
    }

    /** One exchange for all matrices: small ones each on their own would be as many as 700. */
    private void together(Function<Tensor, Tensor> part, BiConsumer<Tensor, Tensor> back, Collective collective) {
        if (exchange.ranks() == 1) {
            return;
        }
        Tensors.run(() -> {
            Tensor flat = Tensors.concatenate(
                    0,
                    parameters.values().stream()
                            .map(parameter -> part.apply(parameter).detach().flatten())
                            .toArray(Tensor[]::new)); // [elements of all]
            collective.apply(flat);
            long offset = 0;
            for (Tensor parameter : parameters.values()) {
                back.accept(parameter, flat.narrow(0, offset, parameter.numel()).view_as(parameter));
                offset += parameter.numel();
            }
        });
    }

    @Override
    public void close() {
        loss.close();
    }
}
