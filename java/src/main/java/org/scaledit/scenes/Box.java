package org.scaledit.scenes;

/** Around what is seen of an object, in parts of the picture's side, from the top left. */
public record Box(double left, double top, double right, double bottom) {
    public double width() {
        return right - left;
    }

    public double height() {
        return bottom - top;
    }

    public double centreX() {
        return (left + right) / 2;
    }

    public double centreY() {
        return (top + bottom) / 2;
    }

    /** The part of the smaller box that lies in the other: 0 … 1. */
    public double overlap(Box other) {
        double width = Math.min(right, other.right) - Math.max(left, other.left);
        double height = Math.min(bottom, other.bottom) - Math.max(top, other.top);
        if (width <= 0 || height <= 0) {
            return 0;
        }
        return width * height / Math.min(width() * height(), other.width() * other.height());
    }

    boolean isWithin(double margin) {
        return left >= margin && top >= margin && right <= 1 - margin && bottom <= 1 - margin;
    }
}
