package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.PeftLora;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.FluxTransformer;

/** The steps that one process makes of a training. */
final class TrainingSession implements TrainingLoop.Steps, AutoCloseable {
    private static final double WEIGHT_DECAY = 0.01;

    private final LoraTraining.Run run;
    private final Recipe recipe;
    private final TrainingListener listener;
    private final TrainingSet set;
    private final SampleOrder order;
    private final Map<String, String> origin;
    private final FluxTransformer trained;
    private final Map<String, Tensor> parameters = new LinkedHashMap<>(); // leaves of autograd
    private final Optimizer optimizer;
    private final FlowMatching loss;
    private Optional<SamplePainter> painter = Optional.empty();

    /** @param origin what a checkpoint says of where it comes from */
    TrainingSession(
            LoraTraining.Run run,
            TrainingSet set,
            SampleOrder order,
            Map<String, String> origin,
            FluxTransformer trained,
            TrainingListener listener) {
        this.run = run;
        this.recipe = run.recipe();
        this.listener = listener;
        this.set = set;
        this.order = order;
        this.origin = origin;
        this.trained = trained;
        trained.trainedLayers().forEach((module, layer) -> {
            parameters.put(module + ".lora_A.weight", layer.down());
            parameters.put(module + ".lora_B.weight", layer.up());
        });
        this.optimizer = switch (recipe.optimizer()) {
            case PRODIGY -> {
                Prodigy.Settings usual = Prodigy.Settings.DEFAULT;
                yield new Prodigy(
                        parameters,
                        new Prodigy.Settings(
                                recipe.learningRate(),
                                WEIGHT_DECAY,
                                usual.biasCorrection(),
                                usual.safeguardWarmup(),
                                usual.start()));
            }
            case ADAMW -> new AdamW(parameters, recipe.learningRate(), WEIGHT_DECAY);
        };
        this.loss = new FlowMatching(trained, recipe.attention(), recipe.window());
    }

    void run() {
        long first = run.resume() ? resumed() : 0;
        if (!run.resume()) {
            write(0); // so that whatever comes can be resumed
        }
        TrainingLoop.run(new TrainingLoop.Length(run.lossLog(), run.steps(), run.saveEvery()), first, this, listener);
    }

    private long resumed() {
        try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint())) {
            checkpoint.restore(parameters, optimizer);
            return checkpoint.steps();
        }
    }

    /** Has pictures made between the steps. */
    void paint(SamplePainter samples) {
        painter = Optional.of(samples);
    }

    @Override
    public void between(long made) {
        painter.ifPresent(samples -> samples.paint(made));
    }

    @Override
    public long samples(long steps) {
        return steps * recipe.accumulate();
    }

    /** The mean of several samples' gradients, and what the optimizer makes of it. */
    @Override
    public LossLog.Row step(long step) {
        clearGradients(); // those of a step that was not finished, too
        double sum = 0;
        for (int i = 0; i < recipe.accumulate(); i++) {
            TrainingLoop.throwIfInterruptedAfter(step - 1);
            sum += sample((step - 1) * recipe.accumulate() + i, step);
        }
        double norm = gradientNorm();
        if (!Double.isFinite(norm)) {
            throw new TrainingException("the gradients are no numbers at step " + step);
        }
        recipe.clipNorm().ifPresent(most -> clip(norm, most));
        double rate = optimizer.learningRate();
        optimizer.step();
        return new LossLog.Row(step, sum / recipe.accumulate(), rate, norm);
    }

    /** @param count of the samples before this one */
    private double sample(long count, long step) {
        int sample = order.sample(count);
        TokenGrid grid = set.bucket(sample).grid();
        double value = Tensors.compute(() -> loss.addGradients(
                grid,
                set.inputs(sample),
                new FlowMatching.Noising(order.sigma(count), SeededNoise.draw(order.noise(count), grid)),
                1.0 / recipe.accumulate()));
        if (!Double.isFinite(value)) {
            throw new TrainingException(
                    "the loss of " + set.name(sample) + " is " + value + " at step " + step + ", expected a number");
        }
        return value;
    }

    private void clearGradients() {
        Tensors.run(() -> parameters.values().forEach(parameter -> {
            if (parameter.grad().defined()) {
                parameter.mutable_grad().zero_();
            }
        }));
    }

    private double gradientNorm() {
        double squares = 0;
        for (Tensor parameter : parameters.values()) {
            double norm = Tensors.compute(
                    () -> parameter.grad().to(torch.ScalarType.Double).norm().item_double());
            squares += norm * norm;
        }
        return Math.sqrt(squares);
    }

    private void clip(double norm, double most) {
        if (norm > most) {
            Tensors.run(() -> {
                Scalar factor = new Scalar(most / norm);
                parameters
                        .values()
                        .forEach(parameter -> parameter.mutable_grad().mul_(factor));
            });
        }
    }

    /** The checkpoint first: a LoRA that is older than it is written again in any case. */
    @Override
    public void write(long step) {
        TrainingCheckpoint.write(run.checkpoint(), step, origin, parameters, optimizer);
        if (step > 0) {
            Map<String, String> metadata = new LinkedHashMap<>();
            origin.forEach((name, value) -> metadata.put("scaledit." + name, value));
            metadata.put("scaledit.steps", String.valueOf(step));
            PeftLora.write(run.output(), trained.trainedLayers(), metadata);
        }
    }

    @Override
    public void close() {
        loss.close();
        optimizer.close();
    }
}
