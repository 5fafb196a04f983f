package org.scaledit.scenes;

/**
 * What a scene's picture shows in each cell of a square grid over it.
 *
 * @param objects their numbers in a vocabulary, or that of the {@link #background}: {@code [cells · cells]}, row by row
 * @param parts which of the {@link #PARTS} squares of the object's canvas the cell's middle is in, row by row of the object upright
 *     and not mirrored, or {@link #NO_PART}: likewise
 */
public record Sightings(long[] objects, long[] parts) {
    /** Of a cell without an object: one past the last object. */
    public static long background(Vocabulary vocabulary) {
        return vocabulary.objects().size();
    }

    public static final long NO_PART = -1;

    /** Along each side of a canvas. */
    private static final int ACROSS = 4;

    public static final int PARTS = ACROSS * ACROSS;

    /** The part that a point is in; {@code across} and {@code down} from the canvas' middle, in parts of its side. */
    static int part(double across, double down) {
        return square(down) * ACROSS + square(across);
    }

    private static int square(double place) {
        return Math.max(0, Math.min(ACROSS - 1, (int) Math.floor((place + 0.5) * ACROSS)));
    }
}
