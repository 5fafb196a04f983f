package org.scaledit.training;

import java.util.HashMap;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Placement;

/** The weights of a model to begin with, by the names of its parts and then those of diffusers and transformers. */
final class StartedWeights implements ParameterSet.Start, AutoCloseable {
    private final ModelDirectory model;
    private final Map<String, Weights> parts = new HashMap<>();

    StartedWeights(ModelDirectory model) {
        this.model = model;
    }

    @Override
    public Tensor of(String name, long[] shape) {
        int dot = name.indexOf('.');
        return parts.computeIfAbsent(
                        name.substring(0, dot), part -> Weights.of(model.weights(part), Placement.FLOAT32_CPU))
                .load(name.substring(dot + 1), shape);
    }

    @Override
    public void close() {
        parts.values().forEach(Weights::close);
        parts.clear();
    }
}
