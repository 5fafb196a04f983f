package org.scaledit.scenes;

/**
 * Fractal value noise over a scene, 0 … 1, computed from seed and place alone. Octaves double from a lowest frequency to
 * {@link #HIGHEST}, and a picture shows those that its pixels can: one that it cannot stands at its mean. All are counted in
 * the sum's norm, so pictures of any size show the same scene, and a larger one has more in it.
 */
final class Noise {
    /** Cells along a scene: two pixels each in the largest picture. */
    private static final int HIGHEST = 4096;

    /** Pixels along a cell below which an octave is left at its mean. */
    private static final double FEWEST = 0.5;

    /**
     * What is left of a cell's contrast in the mean over a pixel, to 0.5 %: {@code 1 / (1 + 0.137 / pixels²)}. So a picture
     * has, at the middles of its pixels, what shrinking a larger one would give: from one pixel a cell on the two correlate
     * to 0.987.
     */
    private static final double LOST = 0.137;

    private final int seed;
    private final double columns;
    private final double rows;
    private final int size;
    private final float[] weights; // of each octave
    private final float rest; // the mean of those that are not shown

    /**
     * @param columns cells along a scene's width of the lowest octave; {@code rows} likewise
     * @param gain of an octave over the one before
     * @param octaves at most
     * @param size of the picture, in pixels
     */
    Noise(int seed, double columns, double rows, double gain, int octaves, int size) {
        this.seed = seed;
        this.columns = columns;
        this.rows = rows;
        this.size = size;
        double frequency = Math.max(columns, rows);
        int all = 1;
        while (all < octaves && frequency * (1 << all) <= HIGHEST) {
            all++;
        }
        int shown = 0;
        while (shown < all && size >= FEWEST * frequency * (1 << shown)) {
            shown++;
        }
        double sum = (1 - Math.pow(gain, all)) / (1 - gain);
        weights = new float[shown];
        double total = 0;
        for (int octave = 0; octave < shown; octave++) {
            double weight = Math.pow(gain, octave) / sum * left(columns * (1 << octave)) * left(rows * (1 << octave));
            weights[octave] = (float) weight;
            total += weight;
        }
        rest = (float) ((1 - total) / 2);
    }

    Noise(int seed, double columns, double rows, double gain, int size) {
        this(seed, columns, rows, gain, Integer.MAX_VALUE, size);
    }

    private double left(double frequency) {
        double pixels = size / frequency;
        return 1 / (1 + LOST / (pixels * pixels));
    }

    /** What is left of a wave in the mean over a pixel: 0 … 1; nothing from two pixels a wave on. */
    static double visible(double wavesInPixel) {
        double half = Math.PI * Math.abs(wavesInPixel);
        return half < 1e-3 ? 1 : half > Math.PI / 2 ? 0 : Math.sin(half) / half;
    }

    /** At a place of the scene: 0 … 1. */
    float at(double x, double y) {
        float sum = rest;
        double column = x * columns;
        double row = y * rows;
        for (int octave = 0; octave < weights.length; octave++) {
            sum += weights[octave] * value(column, row, seed + octave);
            column *= 2;
            row *= 2;
        }
        return sum;
    }

    int octaves() {
        return weights.length;
    }

    float weight(int octave) {
        return weights[octave];
    }

    float rest() {
        return rest;
    }

    int seed() {
        return seed;
    }

    double columns() {
        return columns;
    }

    double rows() {
        return rows;
    }

    private static float edge(int ix, int iy, float v, int seed) {
        float top = hash(ix, iy, seed);
        return top + (hash(ix, iy + 1, seed) - top) * v;
    }

    private static float value(double column, double row, int seed) {
        int ix = (int) Math.floor(column);
        int iy = (int) Math.floor(row);
        float v = ease((float) (row - iy));
        float left = edge(ix, iy, v, seed);
        return left + (edge(ix + 1, iy, v, seed) - left) * ease((float) (column - ix));
    }

    /** Of a cell: 0 … 1. */
    static float hash(int ix, int iy, int seed) {
        int n = ix * 374_761_393 + iy * 668_265_263 + seed * (int) 2_246_822_519L;
        n = (n ^ (n >>> 13)) * 1_274_126_177;
        n = (n ^ (n >>> 15)) * (int) 2_654_435_761L;
        return ((n ^ (n >>> 16)) >>> 8) * 0x1p-24f;
    }

    static float ease(float t) {
        return t * t * (3 - 2 * t);
    }

    /** 0 below 0, 1 above 1, smooth between. */
    static double smooth(double t) {
        double clamped = clamp(t, 1);
        return clamped * clamped * (3 - 2 * clamped);
    }

    /** 0 … most, by comparisons: with Math.min and Math.max, which tell −0 from 0, a picture of 256² took 5.6 ms for 4.8. */
    static double clamp(double value, double most) {
        return value < 0 ? 0 : value > most ? most : value;
    }
}
