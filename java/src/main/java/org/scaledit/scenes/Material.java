package org.scaledit.scenes;

/** What an object is made of: a texture over its own colours. */
public enum Material {
    /** As it was drawn. */
    NONE("", 0),
    FELT("felt", 0),
    KNITTED("knitted", 0),
    WOODEN("wooden", 0.4, 0.80f, 0.58f, 0.36f),
    STONE("stone", 0.5, 0.72f, 0.71f, 0.69f),
    CLAY("clay", 0.2, 0.85f, 0.66f, 0.55f);

    private final String word;
    private final float own;
    private final float[] colour;

    Material(String word, double own, float... colour) {
        this.word = word;
        this.own = (float) own;
        this.colour = colour;
    }

    /** "felt", as in "a felt owl" */
    public String word() {
        return word;
    }

    /** How bright a place is: 1 as it was drawn. */
    @FunctionalInterface
    interface Texture {
        /** @param x of the place, in the scene's width from the object's middle, turned with the object */
        double at(double x, double y);
    }

    /**
     * Gives a pixel of the object the material's look.
     *
     * @param rgb 0 … 1, changed
     */
    void shade(float[] rgb, double brightness) {
        float grey = 0.3f * rgb[0] + 0.59f * rgb[1] + 0.11f * rgb[2];
        for (int channel = 0; channel < 3; channel++) {
            float mixed = own == 0
                    ? rgb[channel]
                    : rgb[channel] + own * (colour[channel] * (0.35f + 0.8f * grey) - rgb[channel]);
            rgb[channel] = (float) Math.max(0, Math.min(1, mixed * brightness));
        }
    }

    /** @param size of the picture, in pixels */
    Texture texture(int seed, int size) {
        return switch (this) {
            case NONE -> (x, y) -> 1;
            case FELT -> felt(seed, size);
            case KNITTED -> knitted(seed, size);
            case WOODEN -> wooden(seed, size);
            case STONE -> stone(seed, size);
            case CLAY -> clay(seed, size);
        };
    }

    /** Fibres that lie in three directions, and tufts. */
    private static Texture felt(int seed, int size) {
        Noise[] fibres = new Noise[3];
        double[] cosines = new double[3];
        double[] sines = new double[3];
        for (int i = 0; i < 3; i++) {
            fibres[i] = new Noise(seed + 100 * i, 10, 60, 0.85, size);
            cosines[i] = Math.cos(0.4 + i * Math.PI / 3);
            sines[i] = Math.sin(0.4 + i * Math.PI / 3);
        }
        Noise tufts = new Noise(seed + 300, 14, 14, 0.6, 4, size);
        return (x, y) -> {
            double sum = 0;
            for (int i = 0; i < 3; i++) {
                sum += fibres[i].at(cosines[i] * x - sines[i] * y, sines[i] * x + cosines[i] * y) - 0.5;
            }
            return 1 + 1.05 * sum + 0.35 * (tufts.at(x, y) - 0.5);
        };
    }

    /** Columns of stitches, each a V of two strands with fibres along them. */
    private static Texture knitted(int seed, int size) {
        double columns = 32;
        double rows = 26;
        double contrast = Noise.visible(2 * columns / size);
        Noise fibres = new Noise(seed, 60, 60, 0.85, size);
        Noise wool = new Noise(seed + 50, 10, 10, 0.6, 4, size);
        return (x, y) -> {
            double column = x * columns;
            double within = column - Math.floor(column);
            boolean left = within < 0.5;
            double across = (left ? within - 0.25 : within - 0.75) * 4; // −1 … 1 over a strand
            double slant = 0.35 * (left ? across : -across);
            double row = y * rows - slant;
            double along = (row - Math.floor(row) - 0.5) * 2;
            double roundness = 1 - 0.85 * across * across - 0.55 * along * along;
            double strand = Math.sqrt(Math.max(0.02, roundness)) - 0.68; // 0.68: its mean
            return 1
                    + 0.62 * contrast * strand
                    + 0.9 * (fibres.at(x + 0.01 * slant, y) - 0.5)
                    + 0.25 * (wool.at(x, y) - 0.5);
        };
    }

    /** Rings that a board is cut through, and pores along the grain. */
    private static Texture wooden(int seed, int size) {
        Noise bend = new Noise(seed, 1.5, 4, 0.5, 3, size);
        Noise grain = new Noise(seed + 10, 100, 6, 0.8, size);
        Noise pores = new Noise(seed + 30, 300, 14, 0.8, size);
        double contrast = Noise.visible(40.0 / size);
        return (x, y) -> {
            double ring = Math.sin(2 * Math.PI * (14 * x + 7 * (bend.at(x, y) - 0.5)));
            return 0.97 + 0.13 * contrast * ring + 0.75 * (grain.at(x, y) - 0.5) + 0.9 * (pores.at(x, y) - 0.5);
        };
    }

    /** Patches, grains, dark specks. */
    private static Texture stone(int seed, int size) {
        Noise patches = new Noise(seed, 9, 9, 0.6, size);
        Noise grains = new Noise(seed + 20, 50, 50, 0.9, size);
        return (x, y) -> {
            double rough = grains.at(x, y) - 0.5;
            return 0.98 + 0.55 * (patches.at(x, y) - 0.5) + 2.2 * rough - 2.5 * rough * rough;
        };
    }

    /** Dents and prints of fingers, lit from the left. */
    private static Texture clay(int seed, int size) {
        Noise dents = new Noise(seed, 9, 9, 0.5, 3, size);
        Noise place = new Noise(seed + 10, 5, 5, 0.5, 2, size);
        Noise grain = new Noise(seed + 20, 60, 60, 0.9, size);
        double step = 0.004;
        double prints = Noise.visible(110.0 / size);
        return (x, y) -> {
            double slope = (dents.at(x + step, y + step) - dents.at(x - step, y - step)) / step;
            double print = prints == 0
                    ? 0
                    : prints
                            * Math.sin(2 * Math.PI * 110 * (0.35 * place.at(x, y) + 0.2 * y))
                            * Noise.smooth((place.at(x + 7, y) - 0.45) * 6);
            return 1 + Math.max(-0.2, Math.min(0.2, 0.014 * slope)) + 0.06 * print + 0.55 * (grain.at(x, y) - 0.5);
        };
    }
}
