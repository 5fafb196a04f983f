package org.scaledit.tensor;

import org.bytedeco.pytorch.Dispatcher;
import org.bytedeco.pytorch.IValue;
import org.bytedeco.pytorch.IValueVector;
import org.bytedeco.pytorch.OperatorHandle;
import org.bytedeco.pytorch.Tensor;

/** An operator of torch that the presets have no method for, called by its name. */
final class Operator {
    private final OperatorHandle handle;

    /**
     * @param name with its namespace: "aten::_scaled_mm"
     * @param overload "out", or empty
     * @throws RuntimeException if torch has no such operator
     */
    Operator(String name, String overload) {
        this.handle =
                Tensors.outlive(() -> new OperatorHandle(Dispatcher.singleton().findSchemaOrThrow(name, overload)));
    }

    /** Calls it with all of its arguments, those by name included, in the order of its schema; one tensor comes back. */
    Tensor call(IValue... arguments) {
        return Tensors.scoped(() -> {
            IValueVector stack = new IValueVector(arguments);
            Dispatcher.singleton().callBoxed(handle, stack);
            return stack.get(0).toTensor();
        });
    }
}
