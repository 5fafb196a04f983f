package org.scaledit.training;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** What an optimizer keeps from step to step: numbers in float64, and tensors in the shape of each parameter. */
final class OptimizerState implements AutoCloseable {
    private final Map<String, Tensor> tensors = new LinkedHashMap<>();

    /** A number of float64, which lies in its tensor alone. */
    final class Number {
        private final DoublePointer value;

        private Number(Tensor tensor) {
            this.value = Tensors.outlive(() -> new DoublePointer(tensor.data_ptr_double()));
        }

        double get() {
            return value.get();
        }

        void set(double number) {
            value.put(number);
        }
    }

    Number number(String name, double start) {
        Tensor tensor = Tensors.outlive(() -> torch.empty(
                new long[] {1},
                Placement.FLOAT32_CPU.with(torch.ScalarType.Double).options(),
                null));
        tensors.put(name, tensor);
        Number number = new Number(tensor);
        number.set(start);
        return number;
    }

    /** For each parameter a tensor of zeros. */
    List<Tensor> zeros(String name, Map<String, Tensor> parameters) {
        List<Tensor> made = new ArrayList<>();
        parameters.forEach((parameter, tensor) ->
                made.add(add(name + "." + parameter, Tensors.outlive(() -> torch.zeros_like(tensor.detach())))));
        return made;
    }

    /** A copy of each parameter as it is now. */
    List<Tensor> copies(String name, Map<String, Tensor> parameters) {
        List<Tensor> made = new ArrayList<>();
        parameters.forEach((parameter, tensor) -> made.add(add(
                name + "." + parameter, Tensors.outlive(() -> tensor.detach().clone()))));
        return made;
    }

    private Tensor add(String name, Tensor tensor) {
        tensors.put(name, tensor);
        return tensor;
    }

    Map<String, Tensor> tensors() {
        return Collections.unmodifiableMap(tensors);
    }

    @Override
    public void close() {
        tensors.values().forEach(Tensor::close);
        tensors.clear();
    }
}
