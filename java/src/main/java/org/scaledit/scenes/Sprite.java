package org.scaledit.scenes;

/**
 * A picture of one object on a transparent square canvas.
 *
 * @param side of the canvas, in pixels
 * @param argb premultiplied: {@code [side · side]}
 */
record Sprite(int side, int[] argb) {

    /**
     * Of a point of the canvas, interpolated between pixels: 0 … 255; outside it 0.
     *
     * @param x of the point, in pixels of the canvas; {@code y} likewise
     */
    double alpha(double x, double y) {
        int left = (int) Math.floor(x - 0.5);
        int top = (int) Math.floor(y - 0.5);
        double u = x - 0.5 - left;
        double v = y - 0.5 - top;
        return (1 - v) * ((1 - u) * alpha(left, top) + u * alpha(left + 1, top))
                + v * ((1 - u) * alpha(left, top + 1) + u * alpha(left + 1, top + 1));
    }

    private int pixel(int x, int y) {
        return x < 0 || y < 0 || x >= side || y >= side ? 0 : argb[y * side + x];
    }

    int alpha(int x, int y) {
        return pixel(x, y) >>> 24;
    }

    /** The hue that most of its colour has, in degrees. */
    double mainHue() {
        double[] weights = new double[360];
        float[] rgb = new float[3];
        for (int pixel : argb) {
            for (int channel = 0; channel < 3; channel++) {
                rgb[channel] = (pixel >>> 16 - 8 * channel & 255) / 255f;
            }
            float most = Math.max(rgb[0], Math.max(rgb[1], rgb[2]));
            float range = most - Math.min(rgb[0], Math.min(rgb[1], rgb[2]));
            if (range > 0.1f) {
                weights[Math.floorMod((int) Colour.hue(rgb, most, range), 360)] += range;
            }
        }
        int main = 0;
        double largest = 0;
        for (int hue = 0; hue < 360; hue++) {
            double near = 0;
            for (int offset = -20; offset <= 20; offset++) {
                near += weights[Math.floorMod(hue + offset, 360)] * (21 - Math.abs(offset));
            }
            if (near > largest) {
                largest = near;
                main = hue;
            }
        }
        return main;
    }
}
