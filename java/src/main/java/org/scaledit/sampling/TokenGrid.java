package org.scaledit.sampling;

/** The token grid of a picture: 16 × 16 pixels a token (VAE factor 8, 2 × 2 packing). */
public record TokenGrid(int width, int height) {
    public static final int PIXELS_PER_TOKEN = 16;
    static final int MAX_PIXELS = 65_536;

    /** The grid of a picture of {@code width × height} pixels, each a multiple of 16 from 16 to 65,536. */
    public static TokenGrid ofPixels(int width, int height) {
        return new TokenGrid(tokens("width", width), tokens("height", height));
    }

    private static int tokens(String side, int pixels) {
        if (pixels < PIXELS_PER_TOKEN || pixels > MAX_PIXELS || pixels % PIXELS_PER_TOKEN != 0) {
            throw new IllegalArgumentException(
                    side + " is " + pixels + " pixels, expected a multiple of 16 from 16 to " + MAX_PIXELS);
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
