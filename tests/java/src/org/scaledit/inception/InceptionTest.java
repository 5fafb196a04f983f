package org.scaledit.inception;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Path;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.scaledit.image.PixelSource;
import org.scaledit.image.Pixels;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** Beside TensorFlow.js, which tests/fixtures/inception/expected.js asks for the features of the same pictures. */
class InceptionTest {
    private final PointerScope scope = new PointerScope();

    @AfterEach
    void closeScope() {
        scope.close();
    }

    private interface Picture {
        int pixel(int x, int y, int channel);
    }

    private static Tensor drawn(Picture picture) {
        int side = Inception.SIZE;
        byte[] rgb = new byte[3 * side * side];
        for (int i = 0; i < rgb.length; i++) {
            rgb[i] = (byte) picture.pixel(i / 3 % side, i / 3 / side, i % 3);
        }
        return Pixels.toTensor(rgb, side);
    }

    private static Inception open() {
        return Inception.open(Path.of(System.getProperty("scaledit.features", "../../build/inception")), false);
    }

    @Test
    void featuresAreThoseOfTensorFlow() throws IOException {
        JsonNode expected = new ObjectMapper()
                .readTree(Golden.path("inception/expected.json").toFile());
        Tensor slopes = drawn((x, y, channel) -> (x * (channel + 1) + y * (3 - channel) + (x * y >> 5)) & 255);
        Tensor rings = drawn((x, y, channel) -> (x * x + y * y >> 6 + channel) & 255);
        try (Inception inception = open()) {
            Tensor features = inception.features(torch.stack(new TensorVector(slopes, rings)));

            assertThat(features.shape()).containsExactly(2, 2048);
            assertClose(
                    features.select(0, 0),
                    expected.get("slopes"),
                    expected.get("every").asInt());
            assertClose(
                    features.select(0, 1),
                    expected.get("rings"),
                    expected.get("every").asInt());
        }
    }

    private static void assertClose(Tensor features, JsonNode expected, int every) {
        double norm = expected.get("norm").asDouble();
        assertThat(features.norm().item_double()).isCloseTo(norm, within(1e-5 * norm));
        float[] values = Tensors.floats(features);
        JsonNode some = expected.get("features");
        assertThat(some.size() * every).isEqualTo(values.length);
        for (int i = 0; i < some.size(); i++) {
            double value = some.get(i).asDouble();
            assertThat(values[i * every]).isCloseTo((float) value, within((float) (1e-4 * value + 1e-6)));
        }
    }

    @Test
    void aPictureOfAnyShapeIsMadeToFit() {
        Tensor step = torch.cat(
                new TensorVector(
                        torch.full(new long[] {3, 500, 300}, new Scalar(-1.0)),
                        torch.full(new long[] {3, 500, 300}, new Scalar(1.0))),
                2);

        Tensor fit = Inception.fit(PixelSource.of(step));

        assertThat(fit.shape()).containsExactly(3, 299, 299);
        assertThat(fit.min().item_float()).isEqualTo(-1);
        assertThat(fit.max().item_float()).isEqualTo(1);
        assertThat(fit.mean().item_float()).isCloseTo(0, within(1e-5f));
    }
}
