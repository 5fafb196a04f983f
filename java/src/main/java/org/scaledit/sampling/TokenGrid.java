package org.scaledit.sampling;

/** The token grid of a picture: 16 × 16 pixels a token (VAE factor 8, 2 × 2 packing). */
public record TokenGrid(int width, int height) {
    public static final int PIXELS_PER_TOKEN = 16;
    public static final int MOST_PIXELS = 65_536;

    /** How many times larger than its guidance image a picture usually is. */
    public static final int RATIO = 4;

    private static final int[] OTHER_RATIOS = {2, 8, 1};

    /** The grid of a picture of {@code width × height} pixels, each a multiple of 16 from 16 to 65,536. */
    public static TokenGrid ofPixels(int width, int height) {
        return new TokenGrid(tokens("width", width), tokens("height", height));
    }

    private static int tokens(String side, int pixels) {
        if (pixels < PIXELS_PER_TOKEN || pixels > MOST_PIXELS || pixels % PIXELS_PER_TOKEN != 0) {
            throw new IllegalArgumentException(
                    side + " is " + pixels + " pixels, expected a multiple of 16 from 16 to " + MOST_PIXELS);
        }
        return pixels / PIXELS_PER_TOKEN;
    }

    /** The grid of the guidance image: {@code ceil(W / ρ) × ceil(H / ρ)}. */
    public TokenGrid guidance(int ratio) {
        return new TokenGrid((width + ratio - 1) / ratio, (height + ratio - 1) / ratio);
    }

    /** The grid of a picture that is larger by the ratio on each side. */
    public TokenGrid enlarged(int ratio) {
        return ofPixels(Math.multiplyExact(pixelWidth(), ratio), Math.multiplyExact(pixelHeight(), ratio));
    }

    /**
     * How many times this picture is to be made smaller by the ratio until its guidance image is one that plain FLUX paints
     * well, or as often as it becomes itself again when it is enlarged as often.
     *
     * @param plainSize longer side of such images, in pixels; twice that is near enough
     */
    public int levelsBefore(int ratio, int plainSize) {
        TokenGrid guidance = guidance(ratio);
        boolean painted = Math.max(guidance.pixelWidth(), guidance.pixelHeight()) <= 2L * plainSize;
        boolean exact = ratio > 1 && width % ratio == 0 && height % ratio == 0;
        return painted || !exact ? 0 : 1 + guidance.levelsBefore(ratio, plainSize);
    }

    /**
     * The ratio whose first guidance image is nearest to pictures that plain FLUX paints well, in parts of their size: {@link #RATIO}
     * where no other one is nearer.
     *
     * @param plainSize longer side of such pictures, in pixels
     */
    public int ratioFor(int plainSize) {
        int best = RATIO;
        for (int ratio : OTHER_RATIOS) {
            if (distance(ratio, plainSize) < distance(best, plainSize)) {
                best = ratio;
            }
        }
        return best;
    }

    private double distance(int ratio, int plainSize) {
        TokenGrid painted = reduced(ratio, levelsBefore(ratio, plainSize)).guidance(ratio);
        return Math.abs(Math.log((double) Math.max(painted.pixelWidth(), painted.pixelHeight()) / plainSize));
    }

    /** The grid of a picture that becomes this one when it is enlarged so often. */
    public TokenGrid reduced(int ratio, int times) {
        return times == 0 ? this : guidance(ratio).reduced(ratio, times - 1);
    }

    /** @param window tokens along a window's side */
    public long windows(int window) {
        return (long) ((width + window - 1) / window) * ((height + window - 1) / window);
    }

    public long tokens() {
        return (long) width * height;
    }

    public int pixelWidth() {
        return width * PIXELS_PER_TOKEN;
    }

    public int pixelHeight() {
        return height * PIXELS_PER_TOKEN;
    }
}
