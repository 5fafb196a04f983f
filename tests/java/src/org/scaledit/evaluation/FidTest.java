package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.awt.image.BufferedImage;
import java.awt.image.ConvolveOp;
import java.awt.image.Kernel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.concurrent.CancellationException;
import javax.imageio.IIOImage;
import javax.imageio.ImageIO;
import javax.imageio.ImageWriteParam;
import javax.imageio.ImageWriter;
import javax.imageio.stream.ImageOutputStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.inception.Inception;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.SceneFolder;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.testing.Drawings;

/** True renders beside the same with less and with more damage. */
class FidTest {
    private static final int COUNT = 4;
    private static final Optional<Fid.Patches> PATCHES = Optional.of(new Fid.Patches(1, 299, 5));

    private static final Path FEATURES = Path.of(System.getProperty("scaledit.features", "../../build/inception"))
            .toAbsolutePath();

    @TempDir
    static Path folder;

    private static Inception inception;

    @BeforeAll
    static void render() throws IOException {
        Path drawings = Files.createDirectory(folder.resolve("drawings"));
        Drawings.write(drawings);
        Sprites sprites = Sprites.open(drawings);
        SceneFolder.write(
                Files.createDirectory(folder.resolve("renders")),
                new Composer(Vocabulary.standard(), sprites, false),
                new SceneRenderer(sprites),
                new SceneFolder.Order(11, COUNT, 512));
        inception = Inception.open(FEATURES, false);
    }

    @AfterAll
    static void close() {
        inception.close();
    }

    private interface Damage {
        void write(BufferedImage picture, Path file) throws IOException;
    }

    /** Pictures of {@code renders}, damaged. */
    private static String damaged(String name, Damage damage) throws IOException {
        Path damaged = Files.createDirectory(folder.resolve(name));
        for (Path file :
                Fid.Pictures.of(folder.resolve("renders"), Optional.empty()).files()) {
            BufferedImage read = ImageIO.read(file.toFile());
            BufferedImage picture = new BufferedImage(read.getWidth(), read.getHeight(), BufferedImage.TYPE_INT_RGB);
            picture.createGraphics().drawImage(read, 0, 0, null);
            damage.write(picture, damaged.resolve(file.getFileName()));
        }
        return name;
    }

    private static String blurred(int pixels) throws IOException {
        float[] mean = new float[pixels * pixels];
        Arrays.fill(mean, 1f / mean.length);
        ConvolveOp blur = new ConvolveOp(new Kernel(pixels, pixels, mean), ConvolveOp.EDGE_NO_OP, null);
        return damaged(
                "blurred" + pixels, (picture, file) -> ImageIO.write(blur.filter(picture, null), "png", file.toFile()));
    }

    private static String compressed(float quality) throws IOException {
        return damaged("compressed" + quality, (picture, file) -> {
            ImageWriter writer = ImageIO.getImageWritersByFormatName("jpeg").next();
            try (ImageOutputStream stream = ImageIO.createImageOutputStream(file.toFile())) {
                ImageWriteParam parameters = writer.getDefaultWriteParam();
                parameters.setCompressionMode(ImageWriteParam.MODE_EXPLICIT);
                parameters.setCompressionQuality(quality);
                writer.setOutput(stream);
                writer.write(null, new IIOImage(picture, null, null), parameters);
            } finally {
                writer.dispose();
            }
        });
    }

    private static Fid measured(String pictures) {
        return Fid.measure(
                inception, order(pictures), (done, all) -> assertThat(all).isEqualTo(2 * COUNT));
    }

    private static Fid.Order order(String pictures) {
        return new Fid.Order(
                Fid.Pictures.of(folder.resolve("renders"), PATCHES),
                Fid.Pictures.of(folder.resolve(pictures), PATCHES),
                PATCHES);
    }

    @Test
    void moreDamageIsFartherAway() throws IOException {
        Fid same = measured("renders");
        assertThat(same.distance()).isLessThan(1e-9);
        assertThat(same.patchDistance().orElseThrow()).isLessThan(1e-9);
        for (List<String> damages :
                List.of(List.of(blurred(3), blurred(5)), List.of(compressed(0.9f), compressed(0.3f)))) {
            Fid little = measured(damages.get(0));
            Fid much = measured(damages.get(1));
            assertThat(little.distance()).isGreaterThan(1e-4);
            assertThat(much.distance()).isGreaterThan(1.2 * little.distance());
            assertThat(much.patchDistance().orElseThrow())
                    .isGreaterThan(1.2 * little.patchDistance().orElseThrow());
            // Shrinking hides what crops show.
            assertThat(little.patchDistance().orElseThrow()).isGreaterThan(little.distance());
        }
    }

    @Test
    void aNetworkThatSaysNoNumbersIsToldAtItsFirstPicture() throws IOException {
        Path damaged = Files.createDirectory(folder.resolve("network"));
        for (String shard : new String[] {"1of6", "2of6", "3of6", "4of6", "5of6", "6of6"}) {
            String name = "group1-shard" + shard;
            Files.copy(FEATURES.resolve(name), damaged.resolve(name));
        }
        Files.writeString(
                damaged.resolve("model.json"),
                Files.readString(FEATURES.resolve("model.json")).replace("\"min\":", "\"min\":1e300,\"was\":"));
        Fid.Order order = order("renders");
        try (Inception network = Inception.open(damaged, false)) {
            assertThatThrownBy(() -> Fid.measure(network, order, (done, all) -> {}))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageStartingWith("the network has features of "
                            + order.reference().files().get(0) + " that are not finite, expected numbers");
        }
    }

    @Test
    void aDistanceIsANumber() {
        Fid.Order order = order("renders");
        assertThatThrownBy(() -> new Fid(order, Double.NaN, OptionalDouble.empty()))
                .hasMessage("FID is NaN, expected a number");
        assertThatThrownBy(() -> new Fid(order, 0, OptionalDouble.of(Double.NaN)))
                .hasMessage("patch FID is NaN, expected a number");
    }

    @Test
    void anInterruptEndsIt() {
        Fid.Order order = order("renders");
        assertThatThrownBy(() -> Fid.measure(inception, order, (done, all) -> {
                    assertThat(done).isLessThan(3);
                    if (done == 2) {
                        Thread.currentThread().interrupt();
                    }
                }))
                .isInstanceOf(CancellationException.class);
    }
}
