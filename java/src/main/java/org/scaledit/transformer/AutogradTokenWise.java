package org.scaledit.transformer;

import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Matrix;

/** {@link TorchTokenWise} in a form whose gradients torch's autograd can find. */
final class AutogradTokenWise implements TokenWise {
    private final TorchTokenWise torch = new TorchTokenWise();

    /** Of a copy: the gradient of a norm needs what was normed, and the hidden state is changed in place later on. */
    @Override
    public Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale) {
        return torch.modulated(hidden.clone(), modulation, shift, scale);
    }

    @Override
    public void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate) {
        torch.addGated(hidden, y, modulation, gate);
    }
}
