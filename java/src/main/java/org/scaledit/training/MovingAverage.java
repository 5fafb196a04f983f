package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/** The moving average of what a LoRA's training has made of its matrices, which are the caller's. */
final class MovingAverage implements AutoCloseable {
    private final Map<String, Tensor> parameters;
    private final double decay;
    private final Map<String, Tensor> averages = new LinkedHashMap<>();

    /** @param decay what stays of it at a step, 0 … 1; see {@link PartTraining#decay} */
    MovingAverage(Map<String, Tensor> parameters, double decay) {
        this.parameters = parameters;
        this.decay = decay;
        parameters.forEach((name, parameter) ->
                averages.put(name, Tensors.outlive(() -> parameter.detach().clone())));
    }

    /** Takes up the matrices as a step has left them. */
    void follow(long step) {
        double share = 1 - PartTraining.decay(decay, step);
        Tensors.withoutGradients(() -> averages.forEach(
                (name, average) -> Tensors.run(() -> average.lerp_(parameter(name), new Scalar(share)))));
    }

    /** Does something with the average in the matrices' place. */
    void inForce(Runnable body) {
        swap();
        try {
            body.run();
        } finally {
            swap();
        }
    }

    private void swap() {
        Tensors.withoutGradients(() -> averages.forEach((name, average) -> Tensors.run(() -> {
            Tensor kept = average.clone();
            average.copy_(parameter(name));
            parameter(name).copy_(kept);
        })));
    }

    private Tensor parameter(String name) {
        return Objects.requireNonNull(parameters.get(name));
    }

    /** For a checkpoint: tensors by name, to be saved, or to be overwritten with what was saved. */
    Map<String, Tensor> state() {
        Map<String, Tensor> state = new LinkedHashMap<>();
        averages.forEach((name, average) -> state.put("average." + name, average));
        return state;
    }

    @Override
    public void close() {
        averages.values().forEach(Tensor::close);
        averages.clear();
    }
}
