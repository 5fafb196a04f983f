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

    private final float[] alpha; // [SIDE · SIDE], 0 … 1
    private final double canvas;

    Shadow(Sprite sprite, double canvas) {
        if (sprite.side() != CANVAS) {
            throw new IllegalArgumentException("a shadow's canvas is " + sprite.side() + ", expected " + CANVAS);
        }
        float[] sharp = new float[SIDE * SIDE];
        for (int y = 0; y < CANVAS; y++) {
            for (int x = 0; x < CANVAS; x++) {
                sharp[(y + ROOM) * SIDE + x + ROOM] = sprite.alpha(x, y) / 255f;
            }
        }
        float[] kernel = kernel(BLUR / canvas * CANVAS);
        this.alpha = blurred(blurred(sharp, kernel, 1, SIDE), kernel, SIDE, 1);
        this.canvas = canvas;
    }

    static Shadow of(Scene.Item item, Style style, Sprites sprites) {
        return new Shadow(sprites.sprite(item.object(), style, CANVAS), item.canvas());
    }

    /** Half of a Gaussian, from its middle. */
    private static float[] kernel(double deviation) {
        float[] kernel = new float[Math.min(ROOM, (int) Math.ceil(3 * deviation)) + 1];
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

    /** Along one axis. */
    private static float[] blurred(float[] map, float[] kernel, int step, int otherStep) {
        float[] out = new float[map.length];
        for (int line = 0; line < SIDE; line++) {
            for (int i = 0; i < SIDE; i++) {
                int at = line * otherStep + i * step;
                float sum = kernel[0] * map[at];
                for (int k = 1; k < kernel.length; k++) {
                    sum += kernel[k] * ((i >= k ? map[at - k * step] : 0) + (i + k < SIDE ? map[at + k * step] : 0));
                }
                out[at] = sum;
            }
        }
        return out;
    }

    /** Farthest from the canvas' middle, in parts of the picture. */
    double reach() {
        return canvas * SIDE / CANVAS * Math.sqrt(0.5);
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
        int at = top * SIDE + left;
        return (1 - v) * ((1 - u) * alpha[at] + u * alpha[at + 1])
                + v * ((1 - u) * alpha[at + SIDE] + u * alpha[at + SIDE + 1]);
    }
}
