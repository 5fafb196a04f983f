package org.scaledit.training;

import java.util.Map;
import org.bytedeco.pytorch.Tensor;

/**
 * Changes parameters along their gradients. Parameters are leaves of torch's autograd; they stay the caller's, who sets
 * their gradients back.
 */
public interface Optimizer extends AutoCloseable {

    /** One step along the gradients that the parameters have. */
    void step();

    /** The factor of the next step, before any correction of bias: Prodigy's is what it has estimated. */
    double learningRate();

    /**
     * All that a step depends on beside parameters and gradients: tensors by name, to be saved, or to be overwritten with
     * what was saved. They stay the optimizer's.
     */
    Map<String, Tensor> state();

    @Override
    void close();
}
