package org.scaledit.evaluation;

import java.util.OptionalDouble;

/**
 * Whether windows are seen: the mean absolute difference of pixels that are neighbours across a border of windows, divided by
 * that of neighbours a few pixels beside the border, inside the windows. 1 where borders are no different from what is around them.
 * Neighbours farther away would say more about where objects are in a picture than about its windows.
 */
final class Seams {
    /** Pixels from a border on either side, nearer than where a latent's pixel ends, which is seen a little everywhere. */
    private static final int NEAREST = 2;

    private static final int FARTHEST = 5;

    private double across;
    private double inside;
    private long pairsAcross;
    private long pairsInside;

    /**
     * Adds a picture.
     *
     * @param rgb of a square: {@code [side · side · 3]}
     * @param window pixels along a window's side; at least 16; windows begin at the picture's upper left corner
     */
    void add(byte[] rgb, int side, int window) {
        for (int y = 0; y < side; y++) {
            for (int x = 0; x < side; x++) {
                int at = 3 * (y * side + x);
                add(rgb, at, 3, x, side, window);
                add(rgb, at, 3 * side, y, side, window);
            }
        }
    }

    private void add(byte[] rgb, int at, int stride, int place, int side, int window) {
        int border = (place + window / 2) / window * window; // the nearest
        int away = Math.abs(place - border);
        if (border == 0 || border >= side || away > FARTHEST || away > 0 && away < NEAREST) {
            return;
        }
        int difference = 0;
        for (int channel = 0; channel < 3; channel++) {
            difference += Math.abs((rgb[at + channel] & 255) - (rgb[at - stride + channel] & 255));
        }
        if (away == 0) {
            across += difference;
            pairsAcross++;
        } else {
            inside += difference;
            pairsInside++;
        }
    }

    /** Of all pictures together; none if no picture has two windows, or if pictures are flat. */
    OptionalDouble ratio() {
        return pairsAcross == 0 || inside == 0
                ? OptionalDouble.empty()
                : OptionalDouble.of(across / pairsAcross / (inside / pairsInside));
    }
}
