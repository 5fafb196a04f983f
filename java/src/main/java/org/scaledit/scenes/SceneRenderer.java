package org.scaledit.scenes;

import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.scaledit.scenes.Scene.Item;

/** Paints scenes at any size: every pixel comes from the scene and its place alone. */
public final class SceneRenderer {
    public static final int SMALLEST = 64;
    public static final int LARGEST = 8192;

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
        requireSize(size);
        if (firstRow < 0 || rows < 0 || firstRow + rows > size) {
            throw new IllegalArgumentException(
                    "rows are " + firstRow + " to " + (firstRow + rows) + ", expected some of " + size);
        }
        SplittableRandom seeds = new SplittableRandom(scene.seed()).split();
        Backdrop.Painter backdrop = Backdrop.of(scene.background(), seeds.nextLong(), size);
        List<Layer> layers = scene.items().stream()
                .map(item -> new Layer(item, scene.style(), seeds.nextInt(), size))
                .toList();
        byte[] picture = new byte[3 * size * rows];
        IntStream.range(firstRow, firstRow + rows).parallel().forEach(row -> {
            float[] rgb = new float[3 * size];
            backdrop.paint(row, rgb);
            layers.forEach(layer -> layer.paint(row, rgb));
            for (int i = 0; i < rgb.length; i++) {
                picture[3 * size * (row - firstRow) + i] = (byte) Math.round(Math.max(0, Math.min(255, rgb[i])));
            }
        });
        return picture;
    }

    static void requireSize(int size) {
        if (size < SMALLEST || size > LARGEST) {
            throw new IllegalArgumentException("size is " + size + " pixels, expected " + SMALLEST + " to " + LARGEST);
        }
    }

    /** An item with what its pixels are made from. */
    private final class Layer {
        private final Item item;
        private final int size;
        private final Sprite sprite;
        private final Shadow shadow;
        private final Material.Texture texture;
        private final double mainHue;
        private final double cosine;
        private final double sine;

        Layer(Item item, Style style, int seed, int size) {
            this.item = item;
            this.size = size;
            this.sprite = sprites.sprite(item.object(), style, item.canvas() * size);
            this.shadow = Shadow.of(item, style, sprites);
            this.texture = item.material().texture(seed, size);
            this.mainHue = sprites.mainHue(item.object(), style);
            this.cosine = Math.cos(item.angle());
            this.sine = Math.sin(item.angle());
        }

        /** Lays the item's part of a row over what is there. */
        void paint(int row, float[] rgb) {
            paintShadow(row, rgb);
            double y = (row + 0.5) / size - item.y();
            double reach = item.canvas() * (Math.abs(cosine) + Math.abs(sine)) / 2;
            if (Math.abs(y) > reach + 1.0 / size) {
                return;
            }
            float[] argb = new float[4];
            float[] colour = new float[3];
            int last = column(item.x() + reach);
            for (int column = column(item.x() - reach); column <= last; column++) {
                double x = (column + 0.5) / size - item.x();
                sample(x, y, argb);
                if (argb[0] > 0) {
                    shade(x, y, argb, colour);
                    float alpha = argb[0] / 255;
                    for (int c = 0; c < 3; c++) {
                        rgb[3 * column + c] += alpha * (255 * colour[c] - rgb[3 * column + c]);
                    }
                }
            }
        }

        private void paintShadow(int row, float[] rgb) {
            double y = (row + 0.5) / size - item.y() - Shadow.DOWN;
            if (Math.abs(y) > shadow.reach()) {
                return;
            }
            double middle = item.x() + Shadow.RIGHT;
            int last = column(middle + shadow.reach());
            for (int column = column(middle - shadow.reach()); column <= last; column++) {
                double x = (column + 0.5) / size - middle;
                float light = 1 - Shadow.DARKNESS * shadow.at(across(x, y) / item.canvas(), down(x, y) / item.canvas());
                for (int c = 0; c < 3; c++) {
                    rgb[3 * column + c] *= light;
                }
            }
        }

        /** The mean of four points in a pixel: alpha, red, green, blue, premultiplied, 0 … 255. */
        private void sample(double x, double y, float[] argb) {
            java.util.Arrays.fill(argb, 0);
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

        /** The pixel's own colour, not premultiplied, 0 … 1, in the item's colour and material. */
        private void shade(double x, double y, float[] argb, float[] colour) {
            for (int c = 0; c < 3; c++) {
                colour[c] = Math.min(1, argb[c + 1] / argb[0]);
            }
            item.colour().ifPresent(chosen -> chosen.recolour(colour, mainHue));
            if (item.material() != Material.NONE) {
                item.material().shade(colour, texture.at(across(x, y), down(x, y)));
            }
        }

        /** From the picture's axes to the canvas' own. */
        private double across(double x, double y) {
            double across = cosine * x + sine * y;
            return item.mirrored() ? -across : across;
        }

        private double down(double x, double y) {
            return cosine * y - sine * x;
        }

        private int column(double x) {
            return Math.max(0, Math.min(size - 1, (int) Math.floor(x * size)));
        }
    }
}
