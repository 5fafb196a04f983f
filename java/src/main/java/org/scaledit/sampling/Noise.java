package org.scaledit.sampling;

import org.bytedeco.pytorch.Tensor;

/** Where a picture's initial noise comes from: standard normal numbers, the same on every device. */
public interface Noise extends AutoCloseable {

    /** Of the guidance image: {@code [w·h, 64]}, float32 on the CPU, packed, in raster order. */
    Tensor guidance(TokenGrid grid);

    /** Of the picture at a level of the recursion, from 1: {@code [W·H, 64]}, likewise. */
    Tensor image(int level, TokenGrid grid);

    @Override
    default void close() {}
}
