package org.scaledit.scenes;

import java.util.ArrayList;
import java.util.List;

/** Where an object is on its canvas: points around all that is seen of it, in parts of the canvas' side from its middle. */
final class Outline {
    /** Of 255: what is fainter is not seen. */
    private static final int SEEN = 12;

    private record Point(double x, double y) {}

    private final List<Point> points;
    private final Box upright;

    private Outline(List<Point> points) {
        this.points = points;
        this.upright = box(0, false);
    }

    static Outline of(Sprite sprite) {
        int side = sprite.side();
        List<Point> points = new ArrayList<>();
        for (int y = 0; y < side; y++) {
            int first = 0;
            while (first < side && sprite.alpha(first, y) < SEEN) {
                first++;
            }
            int last = side - 1;
            while (last > first && sprite.alpha(last, y) < SEEN) {
                last--;
            }
            if (first < side) {
                for (int edge = y; edge <= y + 1; edge++) {
                    points.add(new Point(first / (double) side - 0.5, edge / (double) side - 0.5));
                    points.add(new Point((last + 1) / (double) side - 0.5, edge / (double) side - 0.5));
                }
            }
        }
        return new Outline(points);
    }

    boolean isEmpty() {
        return points.isEmpty();
    }

    /** The longer side of the object's upright box, in parts of the canvas' side. */
    double extent() {
        return Math.max(upright.width(), upright.height());
    }

    /** Around the object when its canvas is mirrored and then turned about its middle, in parts of the canvas' side. */
    Box box(double angle, boolean mirrored) {
        double cosine = Math.cos(angle);
        double sine = Math.sin(angle);
        double left = Double.POSITIVE_INFINITY;
        double top = Double.POSITIVE_INFINITY;
        double right = Double.NEGATIVE_INFINITY;
        double bottom = Double.NEGATIVE_INFINITY;
        for (Point point : points) {
            double px = mirrored ? -point.x : point.x;
            double x = cosine * px - sine * point.y;
            double y = sine * px + cosine * point.y;
            left = Math.min(left, x);
            right = Math.max(right, x);
            top = Math.min(top, y);
            bottom = Math.max(bottom, y);
        }
        return new Box(left, top, right, bottom);
    }
}
