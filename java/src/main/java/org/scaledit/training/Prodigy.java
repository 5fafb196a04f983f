package org.scaledit.training;

import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/**
 * Prodigy (Mishchenko and Defazio, arXiv 2306.06101): Adam whose step size is an estimate d of the distance to the
 * solution, from how far and in which direction the parameters have come; with decoupled weight decay.
 */
public final class Prodigy implements Optimizer {
    private static final double BETA1 = 0.9;
    private static final double BETA2 = 0.999;
    private static final double BETA3 = Math.sqrt(BETA2);
    private static final double EPSILON = 1e-8;

    /**
     * @param learningRate multiplies the estimate; 1 is the method's own
     * @param biasCorrection whether Adam's bias is corrected
     * @param safeguardWarmup whether a warm-up, such as the bias correction is, stays out of the estimate's denominator
     * @param start the first estimate, d0
     */
    public record Settings(
            double learningRate, double weightDecay, boolean biasCorrection, boolean safeguardWarmup, double start) {
        /** The released training code's. */
        public static final Settings DEFAULT = new Settings(1, 0.01, true, true, 1e-6);
    }

    private final Settings settings;
    private final List<Tensor> parameters;
    private final OptimizerState state = new OptimizerState();
    private final OptimizerState.Number steps;
    private final OptimizerState.Number distance; // d
    private final OptimizerState.Number largest; // of all estimates
    private final OptimizerState.Number numerator;
    private final List<Tensor> means; // of d times the gradient
    private final List<Tensor> squares; // of its squares
    private final List<Tensor> sums; // of gradients, weighted as the numerator is
    private final List<Tensor> starts; // the parameters before the first step

    /** @param parameters by name; each step goes through them in this order */
    public Prodigy(Map<String, Tensor> parameters, Settings settings) {
        this.settings = settings;
        this.parameters = List.copyOf(parameters.values());
        this.steps = state.number("steps", 0);
        this.distance = state.number("d", settings.start);
        this.largest = state.number("d_max", settings.start);
        this.numerator = state.number("d_numerator", 0);
        this.means = state.zeros("mean", parameters);
        this.squares = state.zeros("square", parameters);
        this.sums = state.zeros("sum", parameters);
        this.starts = state.copies("start", parameters);
    }

    @Override
    public void step() {
        Tensors.withoutGradients(() -> {
            double d = distance.get();
            double stepSize = d * settings.learningRate * correction();
            double denominator = 0;
            numerator.set(numerator.get() * BETA3);
            for (int i = 0; i < parameters.size(); i++) {
                denominator += gather(i, d, stepSize);
            }
            if (denominator > 0) { // else all gradients have been zero so far
                estimate(numerator.get() / denominator);
                for (int i = 0; i < parameters.size(); i++) {
                    move(i, stepSize);
                }
            }
            steps.set(steps.get() + 1);
        });
    }

    /** Of a step for the bias of means that began at zero. */
    private double correction() {
        double step = steps.get() + 1;
        return settings.biasCorrection ? Math.sqrt(1 - Math.pow(BETA2, step)) / (1 - Math.pow(BETA1, step)) : 1;
    }

    /** Takes up a parameter's gradient; returns its part of the denominator. */
    private double gather(int i, double d, double stepSize) {
        return Tensors.compute(() -> {
            Tensor parameter = parameters.get(i);
            Tensor gradient = parameter.grad();
            double relative = d / settings.start;
            Tensor way = starts.get(i).sub(parameter);
            double progress = gradient.flatten().dot(way.flatten()).item_double();
            numerator.set(numerator.get() + relative * stepSize * progress);
            means.get(i).mul_(new Scalar(BETA1)).add_(gradient, new Scalar(d * (1 - BETA1)));
            squares.get(i).mul_(new Scalar(BETA2)).addcmul_(gradient, gradient, new Scalar(d * d * (1 - BETA2)));
            double weight = relative * (settings.safeguardWarmup ? d : stepSize);
            Tensor sum = sums.get(i).mul_(new Scalar(BETA3)).add_(gradient, new Scalar(weight));
            return sum.abs().sum().item_double();
        });
    }

    private void estimate(double estimated) {
        if (distance.get() == settings.start) {
            distance.set(Math.max(distance.get(), estimated));
        }
        largest.set(Math.max(largest.get(), estimated));
        distance.set(largest.get());
    }

    private void move(int i, double stepSize) {
        Tensors.run(() -> {
            Tensor parameter = parameters.get(i);
            Tensor root = squares.get(i).sqrt().add_(new Scalar(distance.get() * EPSILON));
            if (settings.weightDecay > 0) {
                parameter.mul_(new Scalar(1 - settings.weightDecay * stepSize));
            }
            parameter.addcdiv_(means.get(i), root, new Scalar(-stepSize));
        });
    }

    /** {@code d · learning rate}. */
    @Override
    public double learningRate() {
        return distance.get() * settings.learningRate;
    }

    @Override
    public Map<String, Tensor> state() {
        return state.tensors();
    }

    @Override
    public void close() {
        state.close();
    }
}
