package org.scaledit.vae;

import org.bytedeco.pytorch.Tensor;

/** Takes a picture band by band, from the top to the bottom. */
@FunctionalInterface
public interface BandConsumer {
    /**
     * @param firstRow row of the picture that the band begins with
     * @param band [3, rows, width], float32 on the CPU, about −1 … 1 and not clamped; gone after the call
     */
    void accept(int firstRow, Tensor band);
}
