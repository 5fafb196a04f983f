package org.scaledit.evaluation;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * Whether windows are seen: the mean absolute difference of pixels that are neighbours across a border of windows, divided by
 * that of neighbours a few pixels beside the border, inside the windows. 1 where borders are no different from what is around them.
 * Neighbours farther away would say more about where objects are in a picture than about its windows.
 */
public final class Seams {
    /** Pixels from a border on either side, nearer than where a latent's pixel ends, which is seen a little everywhere. */
    private static final int NEAREST = 2;

    private static final int FARTHEST = 5;

    /**
     * Of several pictures together.
     *
     * @param value differences across borders, in parts of those beside them
     * @param error the value's standard error, as pictures differ; NaN of one picture
     */
    public record Ratio(double value, double error) {
        /** {@code 1.008 ± 0.004}. */
        public String words() {
            return Double.isNaN(error)
                    ? String.format(Locale.ROOT, "%.3f", value)
                    : String.format(Locale.ROOT, "%.3f ± %.3f", value, error);
        }
    }

    /** Of a picture, each a mean over pairs of neighbours. */
    private record Differences(double across, double inside) {}

    private final List<Differences> pictures = new ArrayList<>();

    /**
     * Adds a picture of several windows; one of one window says nothing.
     *
     * @param rgb of a square: {@code [side · side · 3]}
     * @param window pixels along a window's side, at least 16; windows begin at the picture's upper left corner
     */
    void add(byte[] rgb, int side, int window) {
        addBetween(rgb, side, window, side);
    }

    /**
     * Adds a picture that was painted in larger windows, and looks where smaller ones would have borders and these have not:
     * what is different there is so without windows.
     *
     * @param painted pixels along a side of the windows that it was painted in
     */
    void addBetween(byte[] rgb, int side, int window, int painted) {
        Mean across = new Mean();
        Mean inside = new Mean();
        for (int border = window; border < side; border += window) {
            if (border % painted == 0) {
                continue;
            }
            for (int place = border - FARTHEST; place <= Math.min(border + FARTHEST, side - 1); place++) {
                int away = Math.abs(place - border);
                if (away == 0) {
                    across.add(difference(rgb, side, place));
                } else if (away >= NEAREST) {
                    inside.add(difference(rgb, side, place));
                }
            }
        }
        if (across.count > 0) {
            pictures.add(new Differences(across.value(), inside.value()));
        }
    }

    private static final class Mean {
        private long sum;
        private int count;

        private void add(long value) {
            sum += value;
            count++;
        }

        private double value() {
            return (double) sum / count;
        }
    }

    /** Of a column to the one on its left together with that of a row to the one above. */
    private static long difference(byte[] rgb, int side, int place) {
        long sum = 0;
        for (int along = 0; along < side; along++) {
            int column = 3 * (along * side + place);
            int row = 3 * (place * side + along);
            for (int channel = 0; channel < 3; channel++) {
                sum += Math.abs((rgb[column + channel] & 255) - (rgb[column + channel - 3] & 255));
                sum += Math.abs((rgb[row + channel] & 255) - (rgb[row + channel - 3 * side] & 255));
            }
        }
        return sum;
    }

    /** Of all pictures together; none if no picture has such a border, or if all are flat beside them. */
    Optional<Ratio> ratio() {
        double inside = pictures.stream().mapToDouble(Differences::inside).sum();
        if (inside == 0) {
            return Optional.empty();
        }
        double value = pictures.stream().mapToDouble(Differences::across).sum() / inside;
        double squares = pictures.stream()
                .mapToDouble(one -> Math.pow(one.across - value * one.inside, 2))
                .sum();
        double count = pictures.size();
        return Optional.of(new Ratio(value, Math.sqrt(squares * count / (count - 1)) / inside));
    }
}
