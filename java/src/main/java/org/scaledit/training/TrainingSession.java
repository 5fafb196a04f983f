package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.PeftLora;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.FluxTransformer;

/** The steps that one process makes of a training: what rank 0 does, and it alone. */
final class TrainingSession implements TrainingLoop.Steps, AutoCloseable {
    private static final double WEIGHT_DECAY = 0.01;

    private final LoraTraining.Run run;
    private final Recipe recipe;
    private final TrainingListener listener;
    private final Map<String, String> origin;
    private final FluxTransformer trained;
    private final StepGradients gradients;
    private final Map<String, Tensor> parameters;
    private final Optimizer optimizer;
    private final Optional<MovingAverage> average;
    private Optional<SamplePainter> painter = Optional.empty();

    /** @param origin what a checkpoint says of where it comes from */
    TrainingSession(
            LoraTraining.Run run,
            Map<String, String> origin,
            FluxTransformer trained,
            StepGradients gradients,
            TrainingListener listener) {
        this.run = run;
        this.recipe = run.recipe();
        this.listener = listener;
        this.origin = origin;
        this.trained = trained;
        this.gradients = gradients;
        this.parameters = gradients.parameters();
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
        this.average = recipe.average().isPresent()
                ? Optional.of(new MovingAverage(parameters, recipe.average().getAsDouble()))
                : Optional.empty();
    }

    void run() {
        long first = run.resume() ? resumed() : 0;
        TrainingLoop.run(new TrainingLoop.Length(run.lossLog(), run.steps(), run.saveEvery()), first, this, listener);
    }

    private long resumed() {
        try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint())) {
            checkpoint.restore(state(), optimizer);
            return checkpoint.steps();
        }
    }

    /** What is restored beside the optimizer's. */
    private Map<String, Tensor> state() {
        Map<String, Tensor> state = new LinkedHashMap<>(parameters);
        average.ifPresent(of -> state.putAll(of.state()));
        return state;
    }

    /** Does something with the matrices that come out. */
    private void withResult(Runnable body) {
        average.ifPresentOrElse(of -> of.inForce(body), body);
    }

    /** Has pictures made between the steps. */
    void paint(SamplePainter samples) {
        painter = Optional.of(samples);
    }

    @Override
    public void between(long made) {
        painter.filter(samples -> samples.isDue(made)).ifPresent(samples -> withResult(() -> samples.paint(made)));
    }

    @Override
    public long samples(long steps) {
        return steps * recipe.accumulate();
    }

    /** The gradients of its samples, and what the optimizer makes of them. The matrices change at its very end. */
    @Override
    public List<LossLog.Row> step(long step) {
        double loss = gradients.of(step);
        double norm = gradientNorm();
        gradients.requireWhole(); // now that a GPU has been waited for
        if (!Double.isFinite(norm)) {
            throw new TrainingException("the gradients are no numbers at step " + step);
        }
        recipe.clipNorm().ifPresent(most -> clip(norm, most));
        double rate = optimizer.learningRate();
        optimizer.step();
        average.ifPresent(of -> of.follow(step));
        return List.of(new LossLog.Row(step, loss, rate, norm));
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
        TrainingCheckpoint.write(run.checkpoint(), step, origin, state(), optimizer);
        if (step > 0) {
            Map<String, String> metadata = new LinkedHashMap<>();
            origin.forEach((name, value) -> metadata.put("scaledit." + name, value));
            metadata.put("scaledit.steps", String.valueOf(step));
            withResult(() -> PeftLora.write(run.output(), trained.trainedLayers(), metadata));
        }
    }

    @Override
    public void close() {
        average.ifPresent(MovingAverage::close);
        optimizer.close();
    }
}
