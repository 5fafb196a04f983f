package org.scaledit.scenes;

import java.util.Arrays;
import java.util.SplittableRandom;

/** Paints a scene's background row by row, from its seed and the place alone. */
final class Backdrop {
    private final int size;
    private final int seed;
    private final SplittableRandom random;

    /** A row's colours: red, green, blue of its first pixel, then of the second …, 0 … 255. */
    @FunctionalInterface
    interface Painter {
        /** @param rgb {@code [3 · size]}, written */
        void paint(int row, float[] rgb);
    }

    private Backdrop(int size, long seed) {
        this.size = size;
        this.random = new SplittableRandom(seed);
        this.seed = random.nextInt();
    }

    /** @param size of the picture, in pixels */
    static Painter of(Background background, long seed, int size) {
        Backdrop backdrop = new Backdrop(size, seed);
        return switch (background) {
            case MEADOW -> backdrop.meadow();
            case NIGHT_SKY -> backdrop.nightSky();
            case WOODEN_TABLE -> backdrop.woodenTable();
            case BRICK_WALL -> backdrop.brickWall();
            case SANDY_BEACH -> backdrop.sandyBeach();
            case SNOWY_FIELD -> backdrop.snowyField();
            case SUNSET_SEA -> backdrop.sunsetSea();
            case PLAIN -> backdrop.plain();
        };
    }

    private Painter meadow() {
        Noise clouds = noise(0, 3, 6, 0.5);
        Noise grass = noise(20, 30, 7, 0.8);
        Noise tufts = noise(40, 8, 16, 0.6);
        double[] horizon = line(50, 2, between(0.5, 0.66), 0.06);
        return (row, rgb) -> {
            double y = middle(row);
            float[] cloud = row(clouds, y);
            float[] blade = row(grass, y);
            float[] tuft = row(tufts, y);
            for (int x = 0; x < size; x++) {
                double white = Noise.smooth((cloud[x] - 0.5) / 0.22);
                double green = clamp(0.5 + 2.4 * (blade[x] - 0.5) + 0.6 * (tuft[x] - 0.5));
                double ground = below(y, horizon[x]);
                for (int c = 0; c < 3; c++) {
                    double sky = mix(mix(SKY_TOP[c], SKY_LOW[c], y / horizon[x]), 255, white);
                    put(rgb, x, c, mix(sky, mix(GRASS_DARK[c], GRASS_LIGHT[c], green), ground));
                }
            }
        };
    }

    private static final int[] SKY_TOP = {110, 172, 238};
    private static final int[] SKY_LOW = {214, 234, 250};
    private static final int[] GRASS_DARK = {32, 96, 24};
    private static final int[] GRASS_LIGHT = {156, 204, 76};

    private Painter nightSky() {
        Noise haze = noise(0, 2, 2, 0.55);
        Dots small = new Dots(seed + 30, 120, 0.9, 0.0007);
        Dots large = new Dots(seed + 60, 40, 0.9, 0.0016);
        return (row, rgb) -> {
            double y = middle(row);
            float[] cloud = row(haze, y);
            float[] stars = new float[size];
            small.add(y, stars, 220);
            large.add(y, stars, 255);
            for (int x = 0; x < size; x++) {
                double light = clamp(y * 0.9 + 1.6 * (cloud[x] - 0.5));
                for (int c = 0; c < 3; c++) {
                    put(rgb, x, c, mix(NIGHT_DARK[c], NIGHT_LIGHT[c], light) + stars[x]);
                }
            }
        };
    }

    private static final int[] NIGHT_DARK = {7, 9, 38};
    private static final int[] NIGHT_LIGHT = {54, 40, 112};

    private Painter woodenTable() {
        int planks = 5 + random.nextInt(3);
        Noise bend = noise(0, 2, 14, 0.5, 3);
        Noise grain = noise(20, 5, 90, 0.65);
        Noise pores = noise(40, 20, 220, 0.8);
        double gap = 0.0024;
        double soft = Math.hypot(gap, 0.4 / size);
        return (row, rgb) -> {
            double y = middle(row);
            int plank = (int) Math.floor(y * planks);
            double shift = 7 * Noise.hash(plank, 0, seed);
            double tone = 0.12 * (Noise.hash(plank, 1, seed) - 0.5);
            float[] bends = row(bend, y, shift);
            float[] nextBends = row(bend, y + 1.0 / size, shift);
            float[] grains = row(grain, y, shift);
            float[] pore = row(pores, y, shift);
            double toGap = (y * planks - Math.round(y * planks)) / planks;
            double light = 1 - 0.6 * gap / soft * Math.exp(-toGap * toGap / (2 * soft * soft));
            for (int x = 0; x < size; x++) {
                double right = 8 * (bends[Math.min(x + 1, size - 1)] - bends[Math.max(x - 1, 0)]) / 2;
                double down = 8 * (nextBends[x] - bends[x]) + planks / (double) size;
                double ring = Noise.visible(right)
                        * Noise.visible(down)
                        * Math.sin(2 * Math.PI * (8 * bends[x] + y * planks));
                double tint = clamp(0.5 + tone + 0.14 * ring + 1.3 * (grains[x] - 0.5) + 1.0 * (pore[x] - 0.5));
                for (int c = 0; c < 3; c++) {
                    put(rgb, x, c, light * mix(WOOD_DARK[c], WOOD_LIGHT[c], tint));
                }
            }
        };
    }

    private static final int[] WOOD_DARK = {96, 54, 24};
    private static final int[] WOOD_LIGHT = {216, 158, 98};

    private Painter brickWall() {
        int courses = 9 + random.nextInt(4);
        Noise rough = noise(0, 20, 20, 0.75);
        Noise grain = noise(20, 90, 90, 0.9);
        double soft = Math.max(0.006, 0.6 * courses / size);
        return (row, rgb) -> {
            double y = middle(row);
            float[] roughness = row(rough, y);
            float[] grains = row(grain, y);
            int course = (int) Math.floor(y * courses);
            double up = y * courses - course;
            for (int x = 0; x < size; x++) {
                double along = middle(x) * courses / 2 + 0.5 * (course & 1);
                int brick = (int) Math.floor(along);
                double within = along - brick;
                double noise = roughness[x] - 0.5;
                double edge = Math.min(2 * Math.min(within, 1 - within), Math.min(up, 1 - up)) + 0.05 * noise;
                double inBrick = Noise.smooth(0.5 + (edge - 0.06) / (2 * soft));
                double tint =
                        clamp(0.25 + 0.5 * Noise.hash(brick, course, seed) + 0.9 * noise + 1.5 * (grains[x] - 0.5));
                double mortar = clamp(0.5 + noise + 1.5 * (grains[x] - 0.5));
                for (int c = 0; c < 3; c++) {
                    put(
                            rgb,
                            x,
                            c,
                            mix(
                                    mix(MORTAR_DARK[c], MORTAR_LIGHT[c], mortar),
                                    mix(BRICK_DARK[c], BRICK_LIGHT[c], tint),
                                    inBrick));
                }
            }
        };
    }

    private static final int[] BRICK_DARK = {124, 46, 32};
    private static final int[] BRICK_LIGHT = {204, 106, 78};
    private static final int[] MORTAR_DARK = {150, 145, 135};
    private static final int[] MORTAR_LIGHT = {222, 216, 206};

    private Painter sandyBeach() {
        double skyEnd = between(0.28, 0.4);
        Noise waves = noise(0, 8, 60, 0.7);
        Noise dunes = noise(20, 5, 12, 0.6);
        Noise grains = noise(40, 80, 80, 0.92);
        Noise bubbles = noise(60, 40, 40, 0.8);
        double[] shore = line(80, 3, skyEnd + between(0.22, 0.3), 0.14);
        return (row, rgb) -> {
            double y = middle(row);
            float[] wave = row(waves, y);
            float[] dune = row(dunes, y);
            float[] grain = row(grains, y);
            float[] bubble = row(bubbles, y);
            double belowSky = below(y, skyEnd);
            for (int x = 0; x < size; x++) {
                double water = clamp(0.1 + 1.6 * (y - skyEnd) + 2 * (wave[x] - 0.5) + 0.2);
                double sand = clamp(0.55 + 0.9 * (dune[x] - 0.5) + 2.6 * (grain[x] - 0.5));
                double fromShore = (y - shore[x] + 0.012) / 0.013;
                double foam = Math.exp(-fromShore * fromShore) * clamp(0.6 + 2.2 * (bubble[x] - 0.5));
                double onSand = below(y, shore[x]);
                for (int c = 0; c < 3; c++) {
                    double far = mix(
                            mix(SKY_TOP[c], SKY_LOW[c], y / skyEnd), mix(SEA_DARK[c], SEA_LIGHT[c], water), belowSky);
                    put(rgb, x, c, mix(mix(far, mix(SAND_DARK[c], SAND_LIGHT[c], sand), onSand), 255, foam));
                }
            }
        };
    }

    private static final int[] SEA_DARK = {8, 84, 146};
    private static final int[] SEA_LIGHT = {104, 204, 208};
    private static final int[] SAND_DARK = {178, 144, 94};
    private static final int[] SAND_LIGHT = {252, 234, 192};

    private Painter snowyField() {
        Noise drifts = noise(0, 3, 9, 0.6);
        Noise crystals = noise(20, 100, 100, 0.92);
        Dots flakes = new Dots(seed + 60, 40, 0.82, 0.0035);
        double[] horizon = line(50, 2, between(0.5, 0.66), 0.08);
        return (row, rgb) -> {
            double y = middle(row);
            float[] drift = row(drifts, y);
            float[] crystal = row(crystals, y);
            float[] snow = new float[size];
            flakes.add(y, snow, 1);
            for (int x = 0; x < size; x++) {
                double light = clamp(0.6 + 1.5 * (drift[x] - 0.5) + 1.3 * (crystal[x] - 0.5));
                double ground = below(y, horizon[x]);
                for (int c = 0; c < 3; c++) {
                    double sky = mix(WINTER_TOP[c], WINTER_LOW[c], y / horizon[x]);
                    double there = mix(sky, mix(SNOW_DARK[c], SNOW_LIGHT[c], light), ground);
                    put(rgb, x, c, mix(there, 255, Math.min(1, snow[x])));
                }
            }
        };
    }

    private static final int[] WINTER_TOP = {140, 172, 212};
    private static final int[] WINTER_LOW = {222, 230, 241};
    private static final int[] SNOW_DARK = {186, 204, 230};
    private static final int[] SNOW_LIGHT = {255, 255, 255};

    private Painter sunsetSea() {
        double horizon = between(0.55, 0.7);
        Noise clouds = noise(0, 2, 12, 0.5);
        Noise waves = noise(20, 10, 90, 0.75);
        double middle = between(0.25, 0.75);
        return (row, rgb) -> {
            double y = middle(row);
            float[] cloud = row(clouds, y);
            float[] wave = row(waves, y);
            double onSea = below(y, horizon);
            for (int x = 0; x < size; x++) {
                double pink = 0.6 * Noise.smooth((cloud[x] - 0.48) / 0.2);
                double away = (middle(x) - middle) / 0.22;
                double glow = Math.exp(-away * away);
                double light = clamp(0.3 + 2 * (wave[x] - 0.5) + 0.3 * glow);
                double high = Math.pow(clamp(y / horizon), 0.9);
                for (int c = 0; c < 3; c++) {
                    double sky = mix(mix(DUSK_TOP[c], DUSK_LOW[c], high), DUSK_CLOUD[c], pink);
                    put(rgb, x, c, mix(sky, mix(WATER_DARK[c], WATER_LIGHT[c], light), onSea));
                }
            }
        };
    }

    private static final int[] DUSK_TOP = {58, 40, 110};
    private static final int[] DUSK_LOW = {255, 152, 78};
    private static final int[] DUSK_CLOUD = {255, 118, 122};
    private static final int[] WATER_DARK = {34, 26, 74};
    private static final int[] WATER_LIGHT = {250, 152, 96};

    /** Paper of any light colour, darker at the rim. */
    private Painter plain() {
        float[] paper = java.awt.Color.getHSBColor((float) random.nextDouble(), (float) between(0.08, 0.4), 0.95f)
                .getRGBColorComponents(null);
        Noise fibres = noise(0, 40, 40, 0.9);
        return (row, rgb) -> {
            double y = middle(row) - 0.5;
            float[] fibre = row(fibres, y);
            for (int x = 0; x < size; x++) {
                double fromMiddle = middle(x) - 0.5;
                double light = 1.04 - 0.32 * (fromMiddle * fromMiddle + y * y) + 0.22 * (fibre[x] - 0.5);
                for (int c = 0; c < 3; c++) {
                    put(rgb, x, c, 255 * paper[c] * light);
                }
            }
        };
    }

    /** Soft dots, one in a cell of a grid or none, at any place in it. */
    private final class Dots {
        private static final int REACH = 3; // standard deviations

        private final int seed;
        private final int cells;
        private final double least;
        private final double radius;

        /**
         * @param cells along a scene
         * @param least hash of a cell that has one; the higher the hash, the larger the dot
         * @param radius of the largest
         */
        Dots(int seed, int cells, double least, double radius) {
            this.seed = seed;
            this.cells = cells;
            this.least = least;
            this.radius = radius;
        }

        /** Adds the row's part of them. What a pixel is too large for keeps its light and loses its sharpness. */
        void add(double y, float[] row, double light) {
            double pixel = 0.4 / size;
            double far = REACH * Math.hypot(radius, pixel);
            int last = (int) Math.floor((y + far) * cells);
            for (int iy = (int) Math.floor((y - far) * cells); iy <= last; iy++) {
                for (int ix = 0; ix < cells; ix++) {
                    double hash = Noise.hash(ix, iy, seed);
                    if (hash >= least) {
                        double own = radius * (0.35 + 0.65 * (hash - least) / (1 - least));
                        double soft = Math.hypot(own, pixel);
                        double down = (iy + Noise.hash(ix, iy, seed + 1)) / cells - y;
                        double middle = (ix + Noise.hash(ix, iy, seed + 2)) / cells;
                        double there = light * own * own / (soft * soft) * Math.exp(-down * down / (2 * soft * soft));
                        add(row, middle, soft, there);
                    }
                }
            }
        }

        private void add(float[] row, double middle, double soft, double light) {
            int from = Math.max(0, (int) Math.floor((middle - REACH * soft) * size));
            int to = Math.min(size - 1, (int) Math.floor((middle + REACH * soft) * size));
            for (int x = from; x <= to; x++) {
                double right = middle(x) - middle;
                row[x] += (float) (light * Math.exp(-right * right / (2 * soft * soft)));
            }
        }
    }

    private Noise noise(int part, double columns, double rows, double gain) {
        return new Noise(seed + part, columns, rows, gain, size);
    }

    private Noise noise(int part, double columns, double rows, double gain, int octaves) {
        return new Noise(seed + part, columns, rows, gain, octaves, size);
    }

    /** A line that wanders about a height, for each column of the picture. */
    private double[] line(int part, double columns, double height, double wander) {
        float[] noise = row(noise(part, columns, columns, 0.5), 0);
        double[] line = new double[size];
        Arrays.setAll(line, x -> height + wander * (noise[x] - 0.5));
        return line;
    }

    private float[] row(Noise noise, double y) {
        return row(noise, y, 0);
    }

    private float[] row(Noise noise, double y, double shift) {
        float[] row = new float[size];
        noise.row(y, shift, row);
        return row;
    }

    /** How far a pixel is below a line: 0 … 1, over a thousandth of the picture or a pixel. */
    private double below(double y, double line) {
        double soft = Math.max(0.0006, 0.6 / size);
        return Noise.smooth(0.5 + (y - line) / (2 * soft));
    }

    /** Of a pixel: 0 … 1. */
    private double middle(int pixel) {
        return (pixel + 0.5) / size;
    }

    private double between(double least, double most) {
        return least + (most - least) * random.nextDouble();
    }

    private static double mix(double from, double to, double amount) {
        return from + (to - from) * Math.max(0, Math.min(1, amount));
    }

    private static double clamp(double value) {
        return Math.max(0, Math.min(1, value));
    }

    private static void put(float[] rgb, int x, int channel, double value) {
        rgb[3 * x + channel] = (float) Math.max(0, Math.min(255, value));
    }
}
