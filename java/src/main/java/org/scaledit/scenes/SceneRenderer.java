package org.scaledit.scenes;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import org.scaledit.scenes.Scene.Item;

/** Paints scenes at any size: every pixel comes from the scene and its place alone. */
public final class SceneRenderer {
    public static final int SMALLEST = 64;
    public static final int LARGEST = 8192;

    /** Alpha, of 255, of a cell that shows an item. */
    private static final float SEEN = 255 / 4f;

    private final Sprites sprites;

    public SceneRenderer(Sprites sprites) {
        this.sprites = sprites;
    }

    /**
     * @param size pixels along each side, 64 to 8192
     * @return red, green and blue of each pixel, row by row: {@code [size · size · 3]}
     */
    public byte[] render(Scene scene, int size) {
        return render(scene, size, 0, size);
    }

    /**
     * Some rows of the same picture.
     *
     * @return {@code [rows · size · 3]}
     */
    public byte[] render(Scene scene, int size, int firstRow, int rows) {
        return render(scene, size, firstRow, rows, 0, size);
    }

    /**
     * A rectangle of the same picture, painted by the caller's thread; other threads may paint others.
     *
     * @return {@code [rows · columns · 3]}
     */
    public byte[] render(Scene scene, int size, int firstRow, int rows, int firstColumn, int columns) {
        Region region = new Region(size, firstRow, rows, firstColumn, columns);
        SplittableRandom seeds = new SplittableRandom(scene.seed()).split();
        Backdrop.Painter backdrop = Backdrop.of(scene.background(), seeds.nextLong(), region);
        List<Layer> layers = new ArrayList<>();
        for (Item item : scene.items()) {
            Canvas canvas = new Canvas(item, scene.style(), seeds.nextInt(), size);
            Region shaded = canvas.shaded(region);
            if (!shaded.isEmpty()) {
                layers.add(new ShadowLayer(canvas, shaded, firstColumn));
            }
            Region covered = canvas.covered(region);
            if (!covered.isEmpty()) {
                layers.add(new ItemLayer(canvas, covered, firstColumn));
            }
        }
        byte[] picture = new byte[3 * columns * rows];
        float[] rgb = new float[3 * columns];
        for (int row = 0; row < rows; row++) {
            backdrop.paint(firstRow + row, rgb);
            for (Layer layer : layers) {
                layer.paint(firstRow + row, rgb);
            }
            for (int i = 0; i < rgb.length; i++) {
                picture[row * rgb.length + i] = (byte) rounded(rgb[i]);
            }
        }
        return picture;
    }

    /**
     * What the picture shows where. A cell shows an object if a quarter of it is covered, and of several the one that is painted
     * last.
     *
     * @param vocabulary that the objects are of
     * @param cells of a square grid over the picture, along each side
     */
    public Sightings sightings(Scene scene, Vocabulary vocabulary, int cells) {
        long[] objects = new long[cells * cells];
        long[] parts = new long[cells * cells];
        Arrays.fill(objects, Sightings.background(vocabulary));
        Arrays.fill(parts, Sightings.NO_PART);
        float[] argb = new float[4];
        for (Item item : scene.items()) {
            int object = vocabulary.objects().indexOf(item.object());
            Canvas canvas = new Canvas(item, scene.style(), 0, cells);
            Sprite sprite = sprites.sprite(item.object(), scene.style(), 4 * item.canvas() * cells);
            for (int cell = 0; cell < objects.length; cell++) {
                double x = (cell % cells + 0.5) / cells - item.x();
                double y = canvas.y(cell / cells);
                canvas.sample(sprite, x, y, argb);
                if (argb[0] > SEEN) {
                    objects[cell] = object;
                    parts[cell] =
                            Sightings.part(canvas.across(x, y) / item.canvas(), canvas.down(x, y) / item.canvas());
                }
            }
        }
        return new Sightings(objects, parts);
    }

    /** What Math.round gives from 0 to 255: as a double, the sum is exact. */
    private static int rounded(float value) {
        return (int) (Noise.clamp(value, 255) + 0.5);
    }

    static void requireSize(int size) {
        if (size < SMALLEST || size > LARGEST) {
            throw new IllegalArgumentException("size is " + size + " pixels, expected " + SMALLEST + " to " + LARGEST);
        }
    }

    /** The square that an item's picture lies on, and the axes along its sides. */
    private record Canvas(Item item, Style style, int seed, int size, double cosine, double sine) {

        Canvas(Item item, Style style, int seed, int size) {
            this(item, style, seed, size, Math.cos(item.angle()), Math.sin(item.angle()));
        }

        /** What of the region may show the item. */
        Region covered(Region region) {
            double reach = item.canvas() * turned() / 2;
            return region.part(row -> Math.abs(y(row)) <= reach + 1.0 / size, item.x() - reach, item.x() + reach);
        }

        /** What of the region may lie in its shadow. */
        Region shaded(Region region) {
            double reach = Shadow.reach(item.canvas()) * turned();
            double x = item.x() + Shadow.RIGHT;
            return region.part(row -> Math.abs(shadowY(row)) <= reach, x - reach, x + reach);
        }

        /** Along the picture's axes, of a square of side 1. */
        private double turned() {
            return Math.abs(cosine) + Math.abs(sine);
        }

        /** From the canvas' middle to a row's. */
        double y(int row) {
            return (row + 0.5) / size - item.y();
        }

        /** From the shadow's middle to a row's. */
        double shadowY(int row) {
            return (row + 0.5) / size - item.y() - Shadow.DOWN;
        }

        /** From the picture's axes to the canvas' own. */
        double across(double x, double y) {
            double across = cosine * x + sine * y;
            return item.mirrored() ? -across : across;
        }

        double down(double x, double y) {
            return cosine * y - sine * x;
        }

        /**
         * The mean of four points in a pixel: alpha, red, green, blue, premultiplied, 0 … 255.
         *
         * @param argb written
         */
        void sample(Sprite sprite, double x, double y, float[] argb) {
            Arrays.fill(argb, 0);
            double quarter = 0.25 / size;
            for (int point = 0; point < 4; point++) {
                double px = x + ((point & 1) == 0 ? -quarter : quarter);
                double py = y + ((point & 2) == 0 ? -quarter : quarter);
                sprite.add(
                        (across(px, py) / item.canvas() + 0.5) * sprite.side(),
                        (down(px, py) / item.canvas() + 0.5) * sprite.side(),
                        argb);
            }
            for (int channel = 0; channel < 4; channel++) {
                argb[channel] /= 4;
            }
        }
    }

    /** What is laid over what is there. */
    private interface Layer {
        /** @param rgb of the row, from the region's first column on: changed */
        void paint(int row, float[] rgb);
    }

    private final class ShadowLayer implements Layer {
        private final Canvas canvas;
        private final Region part;
        private final int firstColumn;
        private final Shadow shadow;

        ShadowLayer(Canvas canvas, Region part, int firstColumn) {
            this.canvas = canvas;
            this.part = part;
            this.firstColumn = firstColumn;
            this.shadow = Shadow.of(canvas.item, canvas.style, sprites);
        }

        @Override
        public void paint(int row, float[] rgb) {
            if (!part.hasRow(row)) {
                return;
            }
            double y = canvas.shadowY(row);
            double middle = canvas.item.x() + Shadow.RIGHT;
            double side = canvas.item.canvas();
            for (int column = part.firstColumn(); column < part.endColumn(); column++) {
                double x = part.middle(column) - middle;
                float light = 1 - Shadow.DARKNESS * shadow.at(canvas.across(x, y) / side, canvas.down(x, y) / side);
                int at = 3 * (column - firstColumn);
                for (int c = 0; c < 3; c++) {
                    rgb[at + c] *= light;
                }
            }
        }
    }

    private final class ItemLayer implements Layer {
        private final Canvas canvas;
        private final Region part;
        private final int firstColumn;
        private final Item item;
        private final Sprite sprite;
        private final Material.Texture texture;
        private final double mainHue;
        private final float[] argb = new float[4];
        private final float[] colour = new float[3];

        ItemLayer(Canvas canvas, Region part, int firstColumn) {
            this.canvas = canvas;
            this.part = part;
            this.firstColumn = firstColumn;
            this.item = canvas.item;
            this.sprite = sprites.sprite(item.object(), canvas.style, item.canvas() * canvas.size);
            this.texture = item.material().texture(canvas.seed, canvas.size);
            this.mainHue = sprites.mainHue(item.object(), canvas.style);
        }

        @Override
        public void paint(int row, float[] rgb) {
            if (!part.hasRow(row)) {
                return;
            }
            double y = canvas.y(row);
            for (int column = part.firstColumn(); column < part.endColumn(); column++) {
                double x = part.middle(column) - item.x();
                canvas.sample(sprite, x, y, argb);
                if (argb[0] > 0) {
                    shade(x, y);
                    float alpha = argb[0] / 255;
                    int at = 3 * (column - firstColumn);
                    for (int c = 0; c < 3; c++) {
                        rgb[at + c] += alpha * (255 * colour[c] - rgb[at + c]);
                    }
                }
            }
        }

        /** The pixel's own colour, not premultiplied, 0 … 1, in the item's colour and material. */
        private void shade(double x, double y) {
            for (int c = 0; c < 3; c++) {
                colour[c] = Math.min(1, argb[c + 1] / argb[0]);
            }
            item.colour().ifPresent(chosen -> chosen.recolour(colour, mainHue));
            if (item.material() != Material.NONE) {
                item.material().shade(colour, texture.at(canvas.across(x, y), canvas.down(x, y)));
            }
        }
    }
}
