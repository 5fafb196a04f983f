package org.scaledit.scenes;

import java.util.Arrays;
import java.util.SplittableRandom;

/** Paints a scene's background row by row, from its seed and the place alone. For one thread. */
final class Backdrop {
    private final Region region;
    private final int size;
    private final int seed;
    private final SplittableRandom random;

    /** A row's colours: red, green, blue of the region's first column, then of the second …, 0 … 255. */
    @FunctionalInterface
    interface Painter {
        /** @param rgb {@code [3 · columns]}, written */
        void paint(int row, float[] rgb);
    }

    private Backdrop(Region region, long seed) {
        this.region = region;
        this.size = region.size();
        this.random = new SplittableRandom(seed);
        this.seed = random.nextInt();
    }

    /** Paints rows of the region. */
    static Painter of(Background background, long seed, Region region) {
        Backdrop backdrop = new Backdrop(region, seed);
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
        NoiseRows clouds = rows(0, 3, 6, 0.5);
        NoiseRows grass = rows(20, 30, 7, 0.8);
        NoiseRows tufts = rows(40, 8, 16, 0.6);
        double[] horizon = line(50, 2, between(0.5, 0.66), 0.06);
        return (row, rgb) -> {
            double y = region.middle(row);
            float[] cloud = clouds.at(y);
            float[] blade = grass.at(y);
            float[] tuft = tufts.at(y);
            for (int x = 0; x < region.columns(); x++) {
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
        NoiseRows haze = rows(0, 2, 2, 0.55);
        Dots small = new Dots(seed + 30, 120, 0.9, 0.0007);
        Dots large = new Dots(seed + 60, 40, 0.9, 0.0016);
        return (row, rgb) -> {
            double y = region.middle(row);
            float[] cloud = haze.at(y);
            float[] stars = new float[region.columns()];
            small.add(y, stars, 220);
            large.add(y, stars, 255);
            for (int x = 0; x < region.columns(); x++) {
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
        Noise bend = new Noise(seed, 2, 14, 0.5, 3, size);
        // With the columns beside the region, if there are any: how a ring runs is seen from its neighbours.
        int from = Math.max(0, region.firstColumn() - 1);
        int end = Math.min(size, region.endColumn() + 1);
        Region wider = new Region(size, region.firstRow(), region.rows(), from, end - from);
        NoiseRows bendRows = new NoiseRows(bend, wider);
        NoiseRows nextBendRows = new NoiseRows(bend, wider);
        NoiseRows grain = rows(20, 5, 90, 0.65);
        NoiseRows pores = rows(40, 20, 220, 0.8);
        double gap = 0.0024;
        double soft = Math.hypot(gap, 0.4 / size);
        return (row, rgb) -> {
            double y = region.middle(row);
            int plank = (int) Math.floor(y * planks);
            double shift = 7 * Noise.hash(plank, 0, seed);
            double tone = 0.12 * (Noise.hash(plank, 1, seed) - 0.5);
            float[] bends = bendRows.at(y, shift);
            float[] nextBends = nextBendRows.at(y + 1.0 / size, shift);
            float[] grains = grain.at(y, shift);
            float[] pore = pores.at(y, shift);
            double toGap = (y * planks - Math.round(y * planks)) / planks;
            double light = 1 - 0.6 * gap / soft * Math.exp(-toGap * toGap / (2 * soft * soft));
            for (int x = 0; x < region.columns(); x++) {
                int at = region.firstColumn() - from + x;
                double right = 8 * (bends[Math.min(at + 1, bends.length - 1)] - bends[Math.max(at - 1, 0)]) / 2;
                double down = 8 * (nextBends[at] - bends[at]) + planks / (double) size;
                double ring = Noise.visible(right)
                        * Noise.visible(down)
                        * Math.sin(2 * Math.PI * (8 * bends[at] + y * planks));
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
        NoiseRows rough = rows(0, 20, 20, 0.75);
        NoiseRows grain = rows(20, 90, 90, 0.9);
        double soft = Math.max(0.006, 0.6 * courses / size);
        return (row, rgb) -> {
            double y = region.middle(row);
            float[] roughness = rough.at(y);
            float[] grains = grain.at(y);
            int course = (int) Math.floor(y * courses);
            double up = y * courses - course;
            for (int x = 0; x < region.columns(); x++) {
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
        NoiseRows waves = rows(0, 8, 60, 0.7);
        NoiseRows dunes = rows(20, 5, 12, 0.6);
        NoiseRows grains = rows(40, 80, 80, 0.92);
        NoiseRows bubbles = rows(60, 40, 40, 0.8);
        double[] shore = line(80, 3, skyEnd + between(0.22, 0.3), 0.14);
        return (row, rgb) -> {
            double y = region.middle(row);
            float[] wave = waves.at(y);
            float[] dune = dunes.at(y);
            float[] grain = grains.at(y);
            float[] bubble = bubbles.at(y);
            double belowSky = below(y, skyEnd);
            for (int x = 0; x < region.columns(); x++) {
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
        NoiseRows drifts = rows(0, 3, 9, 0.6);
        NoiseRows crystals = rows(20, 100, 100, 0.92);
        Dots flakes = new Dots(seed + 60, 40, 0.82, 0.0035);
        double[] horizon = line(50, 2, between(0.5, 0.66), 0.08);
        return (row, rgb) -> {
            double y = region.middle(row);
            float[] drift = drifts.at(y);
            float[] crystal = crystals.at(y);
            float[] snow = new float[region.columns()];
            flakes.add(y, snow, 1);
            for (int x = 0; x < region.columns(); x++) {
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
        NoiseRows clouds = rows(0, 2, 12, 0.5);
        NoiseRows waves = rows(20, 10, 90, 0.75);
        double middle = between(0.25, 0.75);
        double[] glow = new double[region.columns()];
        Arrays.setAll(glow, x -> {
            double away = (middle(x) - middle) / 0.22;
            return Math.exp(-away * away);
        });
        return (row, rgb) -> {
            double y = region.middle(row);
            float[] cloud = clouds.at(y);
            float[] wave = waves.at(y);
            double onSea = below(y, horizon);
            double high = Math.pow(clamp(y / horizon), 0.9);
            for (int x = 0; x < region.columns(); x++) {
                double pink = 0.6 * Noise.smooth((cloud[x] - 0.48) / 0.2);
                double light = clamp(0.3 + 2 * (wave[x] - 0.5) + 0.3 * glow[x]);
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
        NoiseRows fibres = rows(0, 40, 40, 0.9);
        return (row, rgb) -> {
            double y = region.middle(row) - 0.5;
            float[] fibre = fibres.at(y);
            for (int x = 0; x < region.columns(); x++) {
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
            // A cell more on either side than can be seen, so that no rounding matters.
            int firstCell = Math.max(0, (int) Math.floor((middle(0) - far) * cells) - 1);
            int lastCell = Math.min(cells - 1, (int) Math.floor((middle(row.length) + far) * cells) + 1);
            int last = (int) Math.floor((y + far) * cells);
            for (int iy = (int) Math.floor((y - far) * cells); iy <= last; iy++) {
                for (int ix = firstCell; ix <= lastCell; ix++) {
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
            int first = region.firstColumn();
            int from = Math.max(0, (int) Math.floor((middle - REACH * soft) * size) - first);
            int to = Math.min(row.length - 1, (int) Math.floor((middle + REACH * soft) * size) - first);
            for (int x = from; x <= to; x++) {
                double right = middle(x) - middle;
                row[x] += (float) (light * Math.exp(-right * right / (2 * soft * soft)));
            }
        }
    }

    private NoiseRows rows(int part, double columns, double rows, double gain) {
        return new NoiseRows(new Noise(seed + part, columns, rows, gain, size), region);
    }

    /** A line that wanders about a height, for each column of the region. */
    private double[] line(int part, double columns, double height, double wander) {
        float[] noise = rows(part, columns, columns, 0.5).at(0);
        double[] line = new double[region.columns()];
        Arrays.setAll(line, x -> height + wander * (noise[x] - 0.5));
        return line;
    }

    /** How far a pixel is below a line: 0 … 1, over a thousandth of the picture or a pixel. */
    private double below(double y, double line) {
        double soft = Math.max(0.0006, 0.6 / size);
        return Noise.smooth(0.5 + (y - line) / (2 * soft));
    }

    /** The middle of one of the region's columns, counted from its first: 0 … 1. */
    private double middle(int x) {
        return region.middle(region.firstColumn() + x);
    }

    private double between(double least, double most) {
        return least + (most - least) * random.nextDouble();
    }

    private static double mix(double from, double to, double amount) {
        return from + (to - from) * clamp(amount);
    }

    private static double clamp(double value) {
        return Noise.clamp(value, 1);
    }

    private static void put(float[] rgb, int x, int channel, double value) {
        rgb[3 * x + channel] = (float) Noise.clamp(value, 255);
    }
}
