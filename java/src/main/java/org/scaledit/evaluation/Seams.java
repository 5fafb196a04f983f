package org.scaledit.evaluation;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import org.scaledit.sampling.TokenGrid;

/**
 * Whether windows are seen: the mean absolute difference of pixels that are neighbours across a border of windows, divided by
 * that of neighbours a few pixels beside the border, inside the windows. 1 where borders are no different from what is around them.
 * Neighbours farther away would say more about where objects are in a picture than about its windows.
 *
 * <p>A border of windows is one of tokens, too, and these differ from what is beside them anywhere: by what the autoencoder
 * makes of a latent's pixel. So the same is told of tokens' borders inside windows.
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

    /** Means over lines of pixels, each of which is a sum. */
    private record Differences(double across, double beside) {}

    private record Picture(Differences windows, Differences tokens) {}

    private final List<Picture> pictures = new ArrayList<>();

    /**
     * Adds a picture of several windows; one of one window says nothing.
     *
     * @param rgb of a square: {@code [side · side · 3]}
     * @param window tokens along a window's side; windows begin at the picture's upper left corner
     */
    void add(byte[] rgb, int side, int window) {
        Borders windows = new Borders();
        Borders tokens = new Borders();
        for (int border = TokenGrid.PIXELS_PER_TOKEN; border < side; border += TokenGrid.PIXELS_PER_TOKEN) {
            boolean ofWindows = border % (window * TokenGrid.PIXELS_PER_TOKEN) == 0;
            (ofWindows ? windows : tokens).add(rgb, side, border);
        }
        if (windows.across.count > 0) {
            pictures.add(new Picture(windows.differences(), tokens.differences()));
        }
    }

    private static final class Borders {
        private final Mean across = new Mean();
        private final Mean beside = new Mean();

        private void add(byte[] rgb, int side, int border) {
            for (int place = border - FARTHEST; place <= Math.min(border + FARTHEST, side - 1); place++) {
                int away = Math.abs(place - border);
                if (away == 0) {
                    across.add(difference(rgb, side, place));
                } else if (away >= NEAREST) {
                    beside.add(difference(rgb, side, place));
                }
            }
        }

        private Differences differences() {
            return new Differences(across.value(), beside.value());
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

    /** Of windows' borders, all pictures together; none if no picture has one, or if all are flat there. */
    Optional<Ratio> windows() {
        return ratio(pictures.stream().map(Picture::windows).toList());
    }

    /** Of other borders of tokens, in the same pictures. */
    Optional<Ratio> tokens() {
        return ratio(pictures.stream().map(Picture::tokens).toList());
    }

    private static Optional<Ratio> ratio(List<Differences> all) {
        double beside = all.stream().mapToDouble(Differences::beside).sum();
        if (beside == 0) {
            return Optional.empty();
        }
        double value = all.stream().mapToDouble(Differences::across).sum() / beside;
        double squares = all.stream()
                .mapToDouble(one -> Math.pow(one.across - value * one.beside, 2))
                .sum();
        double count = all.size();
        return Optional.of(
                new Ratio(value, all.size() == 1 ? Double.NaN : Math.sqrt(squares * count / (count - 1)) / beside));
    }
}
