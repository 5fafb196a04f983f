package org.scaledit.evaluation;

import java.util.OptionalDouble;

/**
 * Whether windows are seen: the mean absolute difference of pixels that are neighbours across a border of windows, divided by
 * that of all other neighbours. 1 where borders are no different from other places.
 */
final class Seams {
    private final int window;
    private double across;
    private double inside;
    private long pairsAcross;
    private long pairsInside;

    /** @param window pixels along a window's side; windows begin at the picture's upper left corner */
    Seams(int window) {
        this.window = window;
    }

    /** @param rgb of a square: {@code [side · side · 3]} */
    void add(byte[] rgb, int side) {
        for (int y = 0; y < side; y++) {
            for (int x = 0; x < side; x++) {
                int at = 3 * (y * side + x);
                if (x > 0) {
                    add(rgb, at, at - 3, x);
                }
                if (y > 0) {
                    add(rgb, at, at - 3 * side, y);
                }
            }
        }
    }

    private void add(byte[] rgb, int at, int before, int place) {
        int difference = 0;
        for (int channel = 0; channel < 3; channel++) {
            difference += Math.abs((rgb[at + channel] & 255) - (rgb[before + channel] & 255));
        }
        if (place % window == 0) {
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
