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

    /** In degrees. */
    double hue() {
        return hue;
    }

    double saturation() {
        return saturation;
    }

    double value() {
        return value;
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
