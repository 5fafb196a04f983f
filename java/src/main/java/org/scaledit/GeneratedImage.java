package org.scaledit;

import java.awt.image.BufferedImage;
import java.nio.file.Path;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;

/** A finished picture, 8 bits a channel, with what is needed to make it again. It holds no native memory. */
public final class GeneratedImage {
    private final Pixels pixels;
    private final Settings settings;

    GeneratedImage(Pixels pixels, Settings settings) {
        this.pixels = pixels;
        this.settings = settings;
    }

    /** In pixels. */
    public int width() {
        return pixels.width();
    }

    /** In pixels. */
    public int height() {
        return pixels.height();
    }

    /** The request that it was made from, with the seed that was used. */
    public ImageRequest request() {
        return settings.request();
    }

    /**
     * Writes a PNG with the prompt and all settings in text chunks. The file appears whole, or not at all.
     *
     * @throws RuntimeException with one sentence if the file cannot be written; an older file is then left as it was
     */
    public void writePng(Path file) {
        PngFile.write(file, pixels, settings.texts());
    }

    /** One row of pixels: red, green, blue, red, … as unsigned bytes. A copy. */
    public byte[] row(int y) {
        return pixels.row(y).clone();
    }

    /**
     * The picture for Java's own imaging.
     *
     * @throws IllegalStateException beyond 2³¹ pixels, which a BufferedImage cannot hold
     */
    public BufferedImage toBufferedImage() {
        return pixels.toBufferedImage();
    }
}
