package org.scaledit.training;

import java.util.List;
import java.util.Map;
import java.util.function.LongToDoubleFunction;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/** Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), bias corrected. */
public final class AdamW implements Optimizer {
    private static final double BETA1 = 0.9;
    private static final double BETA2 = 0.999;
    private static final double EPSILON = 1e-8;

    private final LongToDoubleFunction learningRate;
    private final double weightDecay;
    private final List<Tensor> parameters;
    private final OptimizerState state = new OptimizerState();
    private final OptimizerState.Number steps;
    private final List<Tensor> means;
    private final List<Tensor> squares;

    /** @param parameters by name; each step goes through them in this order */
    public AdamW(Map<String, Tensor> parameters, double learningRate, double weightDecay) {
        this(parameters, step -> learningRate, weightDecay);
    }

    /** @param learningRate of each step, from 1 */
    public AdamW(Map<String, Tensor> parameters, LongToDoubleFunction learningRate, double weightDecay) {
        this.learningRate = learningRate;
        this.weightDecay = weightDecay;
        this.parameters = List.copyOf(parameters.values());
        this.steps = state.number("steps", 0);
        this.means = state.zeros("mean", parameters);
        this.squares = state.zeros("square", parameters);
    }

    @Override
    public void step() {
        double rate = learningRate();
        double step = steps.get() + 1;
        steps.set(step);
        double meanCorrection = 1 - Math.pow(BETA1, step);
        double squareCorrection = Math.sqrt(1 - Math.pow(BETA2, step));
        Tensors.withoutGradients(() -> {
            for (int i = 0; i < parameters.size(); i++) {
                Tensor parameter = parameters.get(i);
                Tensor mean = means.get(i);
                Tensor square = squares.get(i);
                Tensors.run(() -> {
                    Tensor gradient = parameter.grad();
                    parameter.mul_(new Scalar(1 - rate * weightDecay));
                    mean.mul_(new Scalar(BETA1)).add_(gradient, new Scalar(1 - BETA1));
                    square.mul_(new Scalar(BETA2)).addcmul_(gradient, gradient, new Scalar(1 - BETA2));
                    Tensor root =
                            square.sqrt().div_(new Scalar(squareCorrection)).add_(new Scalar(EPSILON));
                    parameter.addcdiv_(mean, root, new Scalar(-rate / meanCorrection));
                });
            }
        });
    }

    @Override
    public double learningRate() {
        return learningRate.applyAsDouble((long) steps.get() + 1);
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
