package org.scaledit.scenes;

/** How an object's shadow lies: its alpha, blurred, a little to the right and below. All are parts of the picture's side. */
final class Shadow {
    static final double RIGHT = 0.010;
    static final double DOWN = 0.016;
    static final double DARKNESS = 0.38;

    /** The blur's deviation. */
    static final double BLUR = 0.012;

    /** Pixels along the canvas that is blurred. */
    static final int CANVAS = 128;

    private Shadow() {}

    /** Farthest along the canvas' axes from its middle: three deviations, and pixels that are whole and interpolated. */
    static double reach(double canvas) {
        return canvas * (0.5 + 2.0 / CANVAS) + 3 * BLUR;
    }
}
