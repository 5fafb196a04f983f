package org.scaledit.scenes;

import org.scaledit.scenes.Scene.Item;

/**
 * The square that an item's picture lies on, and the axes along its sides.
 *
 * @param size of the whole picture, in pixels
 */
record Canvas(Item item, int size, double cosine, double sine) {

    Canvas(Item item, int size) {
        this(item, size, Math.cos(item.angle()), Math.sin(item.angle()));
    }

    /** What of the region may show the item. */
    Region covered(Region region) {
        return around(region, item.x(), item.y(), item.canvas() * turned() / 2 + 1.0 / size);
    }

    /** What of the region may lie in its shadow. */
    Region shaded(Region region) {
        return around(region, shadowX(), shadowY(), Shadow.reach(item.canvas()) * turned());
    }

    double shadowX() {
        return item.x() + Shadow.RIGHT;
    }

    double shadowY() {
        return item.y() + Shadow.DOWN;
    }

    private static Region around(Region region, double x, double y, double reach) {
        return region.part(row -> Math.abs(region.middle(row) - y) <= reach, x - reach, x + reach);
    }

    /** Along the picture's axes, of a square of side 1. */
    private double turned() {
        return Math.abs(cosine) + Math.abs(sine);
    }

    /** From the picture's axes to the canvas' own, in parts of its side. */
    double across(double x, double y) {
        double across = (cosine * x + sine * y) / item.canvas();
        return item.mirrored() ? -across : across;
    }

    double down(double x, double y) {
        return (cosine * y - sine * x) / item.canvas();
    }

    /** The mean alpha of four points in a pixel, 0 … 255; {@code x} and {@code y} from the canvas' middle. */
    double alpha(Sprite sprite, double x, double y) {
        double quarter = 0.25 / size;
        double sum = 0;
        for (int point = 0; point < 4; point++) {
            double px = x + ((point & 1) == 0 ? -quarter : quarter);
            double py = y + ((point & 2) == 0 ? -quarter : quarter);
            sum += sprite.alpha((across(px, py) + 0.5) * sprite.side(), (down(px, py) + 0.5) * sprite.side());
        }
        return sum / 4;
    }

    /** Those of a sprite's pixels that a region of the picture is painted from. */
    Region pixels(Region seen, int side) {
        double left = side;
        double top = side;
        double right = 0;
        double bottom = 0;
        for (int corner = 0; corner < 4; corner++) {
            int column = (corner & 1) == 0 ? seen.firstColumn() : seen.endColumn();
            int row = (corner & 2) == 0 ? seen.firstRow() : seen.endRow();
            double x = (double) column / size - item.x();
            double y = (double) row / size - item.y();
            double across = (across(x, y) + 0.5) * side - 0.5;
            double down = (down(x, y) + 0.5) * side - 0.5;
            left = Math.min(left, across);
            top = Math.min(top, down);
            right = Math.max(right, across);
            bottom = Math.max(bottom, down);
        }
        int firstColumn = within(left, side);
        int firstRow = within(top, side);
        return new Region(
                side,
                firstRow,
                within(bottom + 1, side) + 1 - firstRow,
                firstColumn,
                within(right + 1, side) + 1 - firstColumn);
    }

    private static int within(double pixel, int side) {
        return (int) Math.max(0, Math.min(side - 1, Math.floor(pixel)));
    }
}
