package org.scaledit.image;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.awt.image.BufferedImage;
import java.util.Random;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Tensors;

class PixelsTest {
    private final PointerScope scope = new PointerScope();

    @AfterEach
    void closeScope() {
        scope.close();
    }

    @Test
    void roundsTiesToEvenAndClamps() {
        // x = 2 · k / 255 − 1 gives exactly k; 0 gives 127.5, which is a tie.
        float[] red = {-1, 1, 0, -7, 7, Float.NEGATIVE_INFINITY, Float.POSITIVE_INFINITY, 2 * 3 / 255f - 1};
        Pixels pixels = new Pixels(8, 1);

        pixels.put(0, Tensors.of(threeTimes(red), 3, 1, 8));

        assertThat(channel(pixels.row(0), 0)).containsExactly(0, 255, 128, 0, 255, 0, 255, 3);
        assertThat(channel(pixels.row(0), 1)).isEqualTo(channel(pixels.row(0), 0));
        assertThat(channel(pixels.row(0), 2)).isEqualTo(channel(pixels.row(0), 0));
    }

    @Test
    void takesBandsInRedGreenBlueOrder() {
        Random random = new Random(5);
        int height = 7;
        int width = 5;
        float[] values = new float[3 * height * width];
        for (int i = 0; i < values.length; i++) {
            values[i] = random.nextFloat() * 2.4f - 1.2f;
        }
        Tensor image = Tensors.of(values, 3, height, width);
        Pixels pixels = new Pixels(width, height);

        pixels.put(0, image.narrow(1, 0, 4));
        pixels.put(4, image.narrow(1, 4, 3));

        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                for (int channel = 0; channel < 3; channel++) {
                    float value = values[(channel * height + y) * width + x];
                    long expected = Math.round(255 * Math.min(1, Math.max(0, value / 2 + 0.5)));
                    assertThat(Byte.toUnsignedInt(pixels.row(y)[3 * x + channel]))
                            .isEqualTo((int) expected);
                }
            }
        }
    }

    @Test
    void refusesWhatIsNotANumber() {
        Pixels pixels = new Pixels(2, 8);
        Tensor band = Tensors.of(new float[] {0, 0, 0, 0, 0, 0, 0, 0, 0, Float.NaN, 0, 0}, 3, 2, 2);

        assertThatThrownBy(() -> pixels.put(5, band))
                .isInstanceOf(ArithmeticException.class)
                .hasMessage("row 5 of the picture holds values that are not numbers");
    }

    @Test
    void becomesABufferedImage() {
        Pixels pixels = new Pixels(3, 2);
        new Random(1).nextBytes(pixels.row(0));
        new Random(2).nextBytes(pixels.row(1));

        BufferedImage image = pixels.toBufferedImage();

        assertThat(image.getWidth()).isEqualTo(3);
        assertThat(image.getHeight()).isEqualTo(2);
        for (int y = 0; y < 2; y++) {
            for (int x = 0; x < 3; x++) {
                byte[] row = pixels.row(y);
                int expected = 0xFF << 24
                        | Byte.toUnsignedInt(row[3 * x]) << 16
                        | Byte.toUnsignedInt(row[3 * x + 1]) << 8
                        | Byte.toUnsignedInt(row[3 * x + 2]);
                assertThat(image.getRGB(x, y)).isEqualTo(expected);
            }
        }
    }

    private static float[] threeTimes(float[] values) {
        float[] all = new float[3 * values.length];
        for (int channel = 0; channel < 3; channel++) {
            System.arraycopy(values, 0, all, channel * values.length, values.length);
        }
        return all;
    }

    private static int[] channel(byte[] row, int channel) {
        int[] values = new int[row.length / 3];
        for (int x = 0; x < values.length; x++) {
            values[x] = Byte.toUnsignedInt(row[3 * x + channel]);
        }
        return values;
    }
}
