package org.scaledit.image;

import org.bytedeco.pytorch.Tensor;

/** A picture that is computed or cut out where it is asked for, so that no one needs to hold all of it. */
public interface PixelSource {
    int height();

    int width();

    /** The pixels of a rectangle inside the picture: [3, height, width], float32 in −1 … 1, on the CPU. */
    Tensor region(int top, int left, int height, int width);

    /** A picture that is already there. */
    static PixelSource of(Tensor image) { // [3, height, width]
        return new PixelSource() {
            @Override
            public int height() {
                return (int) image.size(1);
            }

            @Override
            public int width() {
                return (int) image.size(2);
            }

            @Override
            public Tensor region(int top, int left, int height, int width) {
                return image.narrow(1, top, height).narrow(2, left, width);
            }
        };
    }
}
