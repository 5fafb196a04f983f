package org.scaledit.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;

/** A folder of pictures that a test draws: a disc on a ground, each of other colours, and what it shows. */
public final class DrawnPictures {
    private DrawnPictures() {}

    /** {@code count} PNG files, each with a text file: {@code width × height} pixels, every third twice as wide and half as high. */
    public static Path in(Path folder, int count, int width, int height) {
        try {
            Files.createDirectories(folder);
            for (int i = 0; i < count; i++) {
                String name = String.format(Locale.ROOT, "picture%02d", i);
                PngFile.write(
                        folder.resolve(name + ".png"),
                        i % 3 == 2 ? drawn(i, 2 * width, height / 2) : drawn(i, width, height),
                        Map.of());
                Files.writeString(folder.resolve(name + ".txt"), "a disc, number " + i + "\n");
            }
            return folder;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Pixels drawn(int number, int width, int height) {
        Pixels pixels = new Pixels(width, height);
        int radius = Math.min(width, height) * (2 + number % 3) / 10;
        for (int y = 0; y < height; y++) {
            byte[] row = pixels.row(y);
            for (int x = 0; x < width; x++) {
                boolean inside = Math.hypot(x - width / 2.0, y - height / 2.0) < radius;
                for (int channel = 0; channel < 3; channel++) {
                    int ground = 255 * (number >> channel & 1);
                    int shade = 64 * y / height;
                    row[3 * x + channel] = (byte) Math.min(255, Math.max(0, inside ? 255 - ground : ground - shade));
                }
            }
        }
        return pixels;
    }
}
