package org.scaledit.scenes;

import java.util.function.IntPredicate;

/**
 * A rectangle of a picture.
 *
 * @param size of the whole picture, in pixels along each side
 */
record Region(int size, int firstRow, int rows, int firstColumn, int columns) {

    Region {
        SceneRenderer.requireSize(size);
        requirePart("rows", firstRow, rows, size);
        requirePart("columns", firstColumn, columns, size);
    }

    /** All of a picture. */
    static Region whole(int size) {
        return new Region(size, 0, size, 0, size);
    }

    private static void requirePart(String what, int first, int count, int size) {
        if (first < 0 || count < 0 || count > size - first) {
            throw new IllegalArgumentException(
                    what + " are " + first + " to " + ((long) first + count) + ", expected some of " + size);
        }
    }

    int endRow() {
        return firstRow + rows;
    }

    int endColumn() {
        return firstColumn + columns;
    }

    /** The middle of a row or column of the picture: 0 … 1. */
    double middle(int pixel) {
        return (pixel + 0.5) / size;
    }

    /** The rows that are reached, which are neighbours, and the columns that hold {@code left} to {@code right}. */
    Region part(IntPredicate reached, double left, double right) {
        int top = firstRow;
        while (top < endRow() && !reached.test(top)) {
            top++;
        }
        int bottom = top;
        while (bottom < endRow() && reached.test(bottom)) {
            bottom++;
        }
        int first = Math.min(Math.max(firstColumn, column(left)), endColumn());
        int end = Math.min(column(right) + 1, endColumn());
        return new Region(size, top, bottom - top, first, Math.max(0, end - first));
    }

    boolean isEmpty() {
        return rows == 0 || columns == 0;
    }

    private int column(double x) {
        return Math.max(0, Math.min(size - 1, (int) Math.floor(x * size)));
    }
}
