package org.scaledit.scenes;

/** An object's alpha on its canvas, blurred, with room around it: the same for a picture of any size. */
final class Shadow {
    static final double RIGHT = 0.010;
    static final double DOWN = 0.016;
    static final float DARKNESS = 0.38f;
    private static final double BLUR = 0.012;
    private static final int CANVAS = 128;
    private static final int ROOM = 64; // on each side
    private static final int SIDE = CANVAS + 2 * ROOM;

    private final float[] alpha; // [ROOM + SIDE + ROOM, SIDE], 0 … 1: the blur looks farther than there is alpha

    Shadow(Sprite sprite, double canvas) {
        if (sprite.side() != CANVAS) {
            throw new IllegalArgumentException("a shadow's canvas is " + sprite.side() + ", expected " + CANVAS);
        }
        float[] sharp = new float[(SIDE + 2 * ROOM) * SIDE];
        for (int y = 0; y < CANVAS; y++) {
            for (int x = 0; x < CANVAS; x++) {
                sharp[(y + 2 * ROOM) * SIDE + x + ROOM] = sprite.alpha(x, y) / 255f;
            }
        }
        float[] kernel = kernel(canvas);
        this.alpha = blurred(blurred(sharp, kernel, 1), kernel, SIDE);
    }

    static Shadow of(Scene.Item item, Style style, Sprites sprites) {
        return new Shadow(sprites.sprite(item.object(), style, CANVAS), item.canvas());
    }

    /** Half of a Gaussian, from its middle. */
    private static float[] kernel(double canvas) {
        double deviation = deviation(canvas);
        float[] kernel = new float[blurred(deviation) + 1];
        double sum = 0;
        for (int i = 0; i < kernel.length; i++) {
            double weight = Math.exp(-i * i / (2 * deviation * deviation));
            kernel[i] = (float) weight;
            sum += i == 0 ? weight : 2 * weight;
        }
        for (int i = 0; i < kernel.length; i++) {
            kernel[i] /= (float) sum;
        }
        return kernel;
    }

    /** In pixels of the canvas, of which there are always as many. */
    private static double deviation(double canvas) {
        return BLUR / canvas * CANVAS;
    }

    /** How far the alpha is spread, in pixels of the canvas: not beyond the room. */
    private static int blurred(double deviation) {
        return Math.min(ROOM, (int) Math.ceil(3 * deviation));
    }

    /**
     * Along one axis. A row goes on in the next one: there is room without alpha between them. Shifted rows are copied, as a
     * sum of rows that begin at the same place is one of vectors.
     */
    private static float[] blurred(float[] map, float[] kernel, int step) {
        float[] out = new float[map.length];
        float[] sum = new float[SIDE];
        float[] before = new float[SIDE];
        float[] after = new float[SIDE];
        for (int row = ROOM * SIDE; row < (ROOM + SIDE) * SIDE; row += SIDE) {
            for (int x = 0; x < SIDE; x++) {
                sum[x] = kernel[0] * map[row + x];
            }
            for (int k = 1; k < kernel.length; k++) {
                System.arraycopy(map, row - k * step, before, 0, SIDE);
                System.arraycopy(map, row + k * step, after, 0, SIDE);
                float weight = kernel[k];
                for (int x = 0; x < SIDE; x++) {
                    sum[x] += weight * (before[x] + after[x]);
                }
            }
            System.arraycopy(sum, 0, out, row, SIDE);
        }
        return out;
    }

    /** Farthest along the canvas' axes from its middle, in parts of the picture. */
    static double reach(double canvas) {
        return canvas * (0.5 + (blurred(deviation(canvas)) + 1.0) / CANVAS);
    }

    /** @param x from the canvas' middle, in parts of the canvas; {@code y} likewise */
    float at(double x, double y) {
        double column = (x + 0.5) * CANVAS + ROOM - 0.5;
        double row = (y + 0.5) * CANVAS + ROOM - 0.5;
        int left = (int) Math.floor(column);
        int top = (int) Math.floor(row);
        if (left < 0 || top < 0 || left >= SIDE - 1 || top >= SIDE - 1) {
            return 0;
        }
        float u = (float) (column - left);
        float v = (float) (row - top);
        int at = (ROOM + top) * SIDE + left;
        return (1 - v) * ((1 - u) * alpha[at] + u * alpha[at + 1])
                + v * ((1 - u) * alpha[at + SIDE] + u * alpha[at + SIDE + 1]);
    }
}
