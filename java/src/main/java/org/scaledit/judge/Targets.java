package org.scaledit.judge;

import java.util.Arrays;
import java.util.List;
import org.scaledit.scenes.Box;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.Scene;

/**
 * What a detector should say of a scene's picture. A cell has an object if the cell's middle is in the middle half of the object's
 * box, along both axes, or if the box's own middle is in the cell; of several objects the one whose middle is nearest.
 *
 * @param objects numbers in the vocabulary, or {@link #NOTHING}: {@code [grid · grid]}
 * @param colours numbers of colours, the last for an object's own, or {@link #NOTHING}: likewise. An object that does not come in
 *     colours has none: nine of ten would be a lesson of their own colours alone
 * @param edges from the cell's middle to the left, top, right and bottom edge of its object, in parts of the picture's side, 0 where
 *     there is none: {@code [4 · grid · grid]}
 */
public record Targets(long[] objects, long[] colours, float[] edges) {
    /** Of a cell without an object, or without a colour: what torch's cross-entropy ignores. */
    public static final long NOTHING = -100;

    /** Distances to edges are at least this, in parts of a cell: the middle of a slender object's cell may be outside of it. */
    private static final double LEAST = 0.1;

    public static Targets of(Scene scene, DetectorConfig config) {
        int grid = config.grid();
        Targets targets = new Targets(new long[grid * grid], new long[grid * grid], new float[4 * grid * grid]);
        Arrays.fill(targets.objects, NOTHING);
        Arrays.fill(targets.colours, NOTHING);
        for (int row = 0; row < grid; row++) {
            for (int column = 0; column < grid; column++) {
                targets.set(row, column, grid, scene.items(), config);
            }
        }
        return targets;
    }

    private void set(int row, int column, int grid, List<Scene.Item> items, DetectorConfig config) {
        double x = (column + 0.5) / grid;
        double y = (row + 0.5) / grid;
        double nearest = Double.POSITIVE_INFINITY;
        for (Scene.Item item : items) {
            Box box = item.box();
            double right = Math.abs(box.centreX() - x);
            double down = Math.abs(box.centreY() - y);
            boolean covers =
                    right <= Math.max(box.width() / 4, 0.5 / grid) && down <= Math.max(box.height() / 4, 0.5 / grid);
            if (covers && Math.hypot(right, down) < nearest) {
                nearest = Math.hypot(right, down);
                int cell = row * grid + column;
                objects[cell] = config.vocabulary().objects().indexOf(item.object());
                colours[cell] = colour(item);
                double[] distances = {x - box.left(), y - box.top(), box.right() - x, box.bottom() - y};
                for (int edge = 0; edge < 4; edge++) {
                    edges[edge * grid * grid + cell] = (float) Math.max(LEAST / grid, distances[edge]);
                }
            }
        }
    }

    private static long colour(Scene.Item item) {
        if (!item.object().coloured()) {
            return NOTHING;
        }
        return item.colour().map(Enum::ordinal).orElse(Colour.values().length);
    }
}
