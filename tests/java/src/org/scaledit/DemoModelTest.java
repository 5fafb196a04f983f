package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The small model that comes along: its size, and that it paints what a prompt says of the place. */
class DemoModelTest {
    private static final Path WEIGHTS = Path.of("../../tools/demo-model/weights");
    private static final int SIZE = 256;

    @TempDir
    Path folder;

    private static ScaleDit model;

    @BeforeAll
    static void load() {
        model = ScaleDit.load(WEIGHTS);
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void isNoLargerThan20MiB() throws IOException {
        long bytes = 0;
        try (Stream<Path> files = Files.walk(WEIGHTS)) {
            for (Path file : files.filter(Files::isRegularFile).toList()) {
                bytes += Files.size(file);
            }
        }
        assertThat(bytes).isLessThanOrEqualTo(20 << 20);
    }

    /** Mean red, green and blue of the picture's lower half, 0 … 255. */
    private double[] lowerHalf(String prompt) throws IOException {
        Path png = folder.resolve("picture.png");
        model.generatePng(
                ImageRequest.of(prompt).size(SIZE, SIZE).levels(0).guideSteps(8).seed(1), png, progress -> {});
        BufferedImage image = ImageIO.read(png.toFile());
        double[] mean = new double[3];
        for (int y = SIZE / 2; y < SIZE; y++) {
            for (int x = 0; x < SIZE; x++) {
                for (int channel = 0; channel < 3; channel++) {
                    mean[channel] += (image.getRGB(x, y) >> (8 * (2 - channel)) & 255) / (SIZE * SIZE / 2.0);
                }
            }
        }
        return mean;
    }

    @Test
    void paintsThePlaceThatAPromptNames() throws IOException {
        double[] meadow = lowerHalf("a watermelon in a meadow");
        assertThat(meadow[1]).isGreaterThan(meadow[0] + 20).isGreaterThan(meadow[2] + 40);
        assertThat(Arrays.stream(lowerHalf("a hedgehog at night")).max().orElseThrow())
                .isLessThan(110);
        assertThat(Arrays.stream(lowerHalf("a wolf on snow")).min().orElseThrow())
                .isGreaterThan(120);
        double[] bricks = lowerHalf("a car on a brick wall");
        assertThat(bricks[0]).isGreaterThan(bricks[1] + 30).isGreaterThan(bricks[2] + 30);
    }
}
