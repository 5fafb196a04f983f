package org.scaledit.scenes;

import java.util.Locale;

/** What an object's own main colour is turned into. */
public enum Colour {
    RED(0, 1, 1),
    ORANGE(27, 1, 1.05),
    YELLOW(52, 1, 1.1),
    GREEN(122, 0.9, 0.9),
    TURQUOISE(178, 0.9, 1),
    BLUE(216, 1, 1),
    PURPLE(275, 0.85, 0.92),
    PINK(336, 0.55, 1.12);

    /** Degrees from the main colour within which everything is turned, and where nothing is any more. */
    private static final double TURNED = 45;

    private static final double LEFT = 75;

    /** Degrees from each other: neighbouring colours are 24 apart at least. */
    private static final double LIKE = 20;

    private final double hue; // degrees
    private final double saturation;
    private final double value;

    Colour(double hue, double saturation, double value) {
        this.hue = hue;
        this.saturation = saturation;
        this.value = value;
    }

    public String word() {
        return name().toLowerCase(Locale.ROOT);
    }

    /**
     * Turns a pixel of an object's main colour; other hues and greys stay as they are.
     *
     * @param rgb 0 … 1, changed
     * @param mainHue of the object, in degrees
     */
    void recolour(float[] rgb, double mainHue) {
        float most = Math.max(rgb[0], Math.max(rgb[1], rgb[2]));
        float range = most - Math.min(rgb[0], Math.min(rgb[1], rgb[2]));
        if (range < 0.02f) {
            return;
        }
        double distance = difference(hue(rgb, most, range), mainHue);
        double amount = 1 - Noise.smooth((Math.abs(distance) - TURNED) / (LEFT - TURNED));
        if (amount <= 0) {
            return;
        }
        // Pale and dark objects get more of it, or one could not tell what it is.
        double newSaturation = saturation * (1 - Math.pow(1 - range / most, 1.5));
        double newValue = Math.min(1, Math.pow(most, 0.8) * value);
        // A third of the shading's change of hue stays.
        double newHue = Math.floorMod((int) Math.round(100 * (hue + distance / 3)), 36_000) / 6000.0;
        for (int channel = 0; channel < 3; channel++) {
            // HSV to RGB by its piecewise linear functions of the hue in sixths of the circle
            double k = ((channel == 0 ? 5 : channel == 1 ? 3 : 1) + newHue) % 6;
            double turned = newValue - newValue * newSaturation * Math.max(0, Math.min(1, Math.min(k, 4 - k)));
            rgb[channel] += (float) (amount * (turned - rgb[channel]));
        }
    }

    /** In degrees. */
    double hue() {
        return hue;
    }

    /** Whether an object whose own main hue is this, in degrees, looks much the same in the colour. */
    boolean isLike(double mainHue) {
        return Math.abs(difference(hue, mainHue)) < LIKE;
    }

    /** In degrees. */
    static double hue(float[] rgb, float most, float range) {
        double sixth = most == rgb[0]
                ? (rgb[1] - rgb[2]) / range
                : most == rgb[1] ? 2 + (rgb[2] - rgb[0]) / range : 4 + (rgb[0] - rgb[1]) / range;
        return 60 * sixth;
    }

    /** From one hue to another on the shorter way: −180 … 180 degrees. */
    private static double difference(double to, double from) {
        double difference = (to - from) % 360;
        return difference > 180 ? difference - 360 : difference < -180 ? difference + 360 : difference;
    }
}
