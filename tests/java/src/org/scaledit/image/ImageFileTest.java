package org.scaledit.image;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import ar.com.hjg.pngj.ImageInfo;
import ar.com.hjg.pngj.ImageLineInt;
import ar.com.hjg.pngj.PngWriter;
import ar.com.hjg.pngj.chunks.PngChunkPLTE;
import ar.com.hjg.pngj.chunks.PngChunkTRNS;
import java.awt.Color;
import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.awt.image.DataBuffer;
import java.awt.image.Raster;
import java.awt.image.WritableRaster;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Random;
import java.util.zip.CRC32;
import javax.imageio.IIOImage;
import javax.imageio.ImageIO;
import javax.imageio.ImageWriteParam;
import javax.imageio.ImageWriter;
import javax.imageio.spi.IIORegistry;
import javax.imageio.spi.ImageReaderSpi;
import javax.imageio.stream.ImageInputStream;
import javax.imageio.stream.ImageOutputStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class ImageFileTest {
    private final PointerScope scope = new PointerScope();

    @TempDir
    Path folder;

    @AfterEach
    void closeScope() {
        scope.close();
    }

    @Test
    void readsEightBitColour() {
        Pixels pixels = new Pixels(13, 7);
        for (int y = 0; y < 7; y++) {
            new Random(y).nextBytes(pixels.row(y));
        }
        Path file = folder.resolve("colour.png");
        PngFile.write(file, pixels, Map.of());

        float[] values = read(file, 7, 13);

        for (int channel = 0; channel < 3; channel++) {
            for (int y = 0; y < 7; y++) {
                for (int x = 0; x < 13; x++) {
                    int stored = Byte.toUnsignedInt(pixels.row(y)[3 * x + channel]);
                    assertThat(values[(channel * 7 + y) * 13 + x]).isEqualTo(stored / 127.5f - 1);
                }
            }
        }
    }

    @Test
    void readsSixteenBitColour() {
        Path file = write(new ImageInfo(2, 1, 16, false), null, null, 0, 32768, 65535, 1, 257, 65534);

        float[] values = read(file, 1, 2);

        float[] expected = {0, 1, 32768, 257, 65535, 65534};
        for (int i = 0; i < 6; i++) {
            assertThat(values[i]).isCloseTo(expected[i] / 32767.5f - 1, within(2e-7f));
        }
    }

    @ParameterizedTest
    @CsvSource({"8, 255", "16, 65535", "4, 15", "2, 3", "1, 1"})
    void readsGreyWithoutBendingIt(int bits, int largest) {
        int middle = largest / 2;
        Path file = write(new ImageInfo(3, 1, bits, false, true, false), null, null, 0, middle, largest);

        float[] values = read(file, 1, 3);

        for (int channel = 0; channel < 3; channel++) {
            assertThat(values[3 * channel]).isEqualTo(-1);
            assertThat(values[3 * channel + 1]).isCloseTo(2f * middle / largest - 1, within(3e-7f));
            assertThat(values[3 * channel + 2]).isEqualTo(1);
        }
    }

    @Test
    void readsAPaletteWithTransparency() {
        int[][] palette = {{255, 0, 0}, {0, 255, 0}, {10, 20, 30}};
        int[] alpha = {255, 0, 128};
        Path file = write(new ImageInfo(3, 1, 8, false, false, true), palette, alpha, 0, 1, 2);

        float[] values = read(file, 1, 3);

        assertThat(values[0]).isEqualTo(1); // red
        assertThat(values[3]).isEqualTo(-1);
        assertThat(values[6]).isEqualTo(-1);
        assertThat(values[1]).isEqualTo(1); // transparent: white
        assertThat(values[4]).isEqualTo(1);
        assertThat(values[7]).isEqualTo(1);
        assertThat(values[2]).isCloseTo((255 - 245 * 128 / 255f) / 127.5f - 1, within(1e-6f));
        assertThat(values[8]).isCloseTo((255 - 225 * 128 / 255f) / 127.5f - 1, within(1e-6f));
    }

    @ParameterizedTest
    @CsvSource({"8, 255", "16, 65535"})
    void laysTransparencyOnWhite(int bits, int largest) {
        int part = largest / 5;
        Path colour = write(new ImageInfo(1, 1, bits, true), null, null, 0, part, largest, part);
        assertThat(read(colour, 1, 1)).containsExactly(new float[] {0.6f, 0.68f, 1}, within(1e-6f));

        Path grey = write(new ImageInfo(1, 1, bits, true, true, false), null, null, part, largest - part);
        assertThat(read(grey, 1, 1)).containsExactly(new float[] {-0.28f, -0.28f, -0.28f}, within(1e-6f));
    }

    @ParameterizedTest
    @CsvSource({"8, 10", "4, 3", "2, 1", "1, 1", "1, 0"})
    void greyMayHaveATransparentValue(int bits, int transparent) {
        int other = transparent == 0 ? 1 : transparent - 1;
        ImageInfo info = new ImageInfo(2, 1, bits, false, true, false);
        Path file = folder.resolve("grey.png");
        PngWriter writer = new PngWriter(file.toFile(), info, true);
        writer.getMetadata().createTRNSChunk().setGray(transparent);
        writer.writeRow(new ImageLineInt(info, new int[] {transparent, other}));
        writer.end();

        float[] values = read(file, 1, 2);

        float seen = 2f * other / ((1 << bits) - 1) - 1;
        for (int channel = 0; channel < 3; channel++) {
            assertThat(values[2 * channel]).isEqualTo(1); // white
            assertThat(values[2 * channel + 1]).isCloseTo(seen, within(3e-7f));
        }
    }

    /** Four channels without opacity: black would else be read as that. */
    @Test
    void refusesAJpegInCmyk() throws IOException {
        Path file = folder.resolve("cmyk.jpg");
        WritableRaster raster = Raster.createInterleavedRaster(DataBuffer.TYPE_BYTE, 16, 16, 4, null);
        writeJpeg(file, new IIOImage(raster, null, null), false);

        assertThatThrownBy(() -> ImageFile.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessage(file + " has colours in CMYK, expected RGB or grey");
    }

    /** Java reads them as well; of TIFF it would take Lab for RGB. */
    @ParameterizedTest
    @ValueSource(strings = {"tiff", "bmp", "gif", "wbmp"})
    void refusesOtherFormats(String format) throws IOException {
        Path file = folder.resolve("picture.png");
        BufferedImage image = new BufferedImage(4, 4, BufferedImage.TYPE_BYTE_BINARY);
        assertThat(ImageIO.write(image, format, file.toFile())).isTrue();

        assertThatThrownBy(() -> ImageFile.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessage(file + " is not a picture that can be read, expected PNG or JPEG");
        assertThatThrownBy(() -> ImageFile.size(file))
                .isInstanceOf(ImageException.class)
                .hasMessage(file + " is not a picture that can be read, expected PNG or JPEG");
    }

    @Test
    void readsJpeg() throws IOException {
        Path file = folder.resolve("picture.jpg");
        Files.write(file, jpeg(corners()));

        float[] values = read(file, 16, 32);

        assertThat(values[0]).isCloseTo(1, within(0.1f)); // the left half is red
        assertThat(values[16 * 32]).isCloseTo(-1, within(0.1f));
        assertThat(values[31]).isCloseTo(-1, within(0.1f)); // the right half is black
    }

    /** A picture that is red at the top left, green at the top right, blue at the bottom left, black otherwise. */
    @ParameterizedTest
    @CsvSource({
        "1, red, green, blue",
        "2, green, red, black",
        "3, black, blue, green",
        "4, blue, black, red",
        "5, red, blue, green",
        "6, blue, red, black",
        "7, black, green, blue",
        "8, green, black, red",
        "9, red, green, blue",
    })
    void turnsAJpegAsItsExifSays(int orientation, String topLeft, String topRight, String bottomLeft)
            throws IOException {
        BufferedImage image = new BufferedImage(32, 16, BufferedImage.TYPE_INT_RGB);
        Graphics2D graphics = image.createGraphics();
        graphics.setColor(Color.RED);
        graphics.fillRect(0, 0, 16, 8);
        graphics.setColor(Color.GREEN);
        graphics.fillRect(16, 0, 16, 8);
        graphics.setColor(Color.BLUE);
        graphics.fillRect(0, 8, 16, 8);
        graphics.dispose();
        for (boolean little : new boolean[] {true, false}) {
            Path file = Files.write(folder.resolve("turned.jpg"), withExif(jpeg(image), orientation, little));

            Tensor read = ImageFile.read(file);

            boolean upright = orientation < 5 || orientation > 8;
            int height = upright ? 16 : 32;
            int width = upright ? 32 : 16;
            assertThat(read.shape()).containsExactly(3, height, width);
            assertThat(ImageFile.size(file)).isEqualTo(new ImageFile.Size(width, height));
            float[] values = Tensors.floats(read);
            assertThat(colour(values, height, width, 2, 2)).isEqualTo(topLeft);
            assertThat(colour(values, height, width, 2, width - 3)).isEqualTo(topRight);
            assertThat(colour(values, height, width, height - 3, 2)).isEqualTo(bottomLeft);

            PixelSource decoded = ImageFile.decode(file);
            assertThat(decoded.height()).isEqualTo(height);
            assertThat(decoded.width()).isEqualTo(width);
            Tensor part = read.narrow(1, 3, 7).narrow(2, 5, 10);
            assertThat(Golden.maxAbsoluteDifference(decoded.region(3, 5, 7, 10), part))
                    .isZero();
        }
    }

    /** Bytes 0xFF, any number of which may stand before a marker. */
    @Test
    void passesOverAJpegsFillBytes() throws IOException {
        byte[] jpeg = withExif(jpeg(corners()), 6, false);
        ByteBuffer filled = ByteBuffer.allocate(jpeg.length + 3);
        filled.put(jpeg, 0, 2).putShort((short) 0xFFFF).put((byte) 0xFF).put(jpeg, 2, jpeg.length - 2);
        Path file = Files.write(folder.resolve("filled.jpg"), filled.array());
        assertThat(ImageFile.size(file)).isEqualTo(new ImageFile.Size(16, 32));
        assertThat(ImageFile.read(file).shape()).containsExactly(3, 32, 16);
    }

    @Test
    void aJpegThatEndsBeforeItsPixelsIsUpright() throws IOException {
        byte[] jpeg = withExif(jpeg(corners()), 6, false);
        for (int length = 2; length < 30; length++) {
            try (ImageInputStream cut =
                    ImageIO.createImageInputStream(new ByteArrayInputStream(Arrays.copyOf(jpeg, length)))) {
                assertThat(ExifOrientation.of(cut)).isEqualTo(ExifOrientation.UPRIGHT);
            }
        }
    }

    @Test
    void ignoresExifThatMakesNoSense() {
        Random random = new Random(3);
        for (int i = 0; i < 2000; i++) {
            byte[] segment = new byte[random.nextInt(64)];
            random.nextBytes(segment);
            byte[] start = {'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0};
            System.arraycopy(start, 0, segment, 0, Math.min(segment.length, 6 + random.nextInt(9)));
            assertThat(ExifOrientation.of(segment)).isBetween(1, 8);
        }
    }

    @Test
    void namesAFileThatIsMissingOrNoPicture() throws IOException {
        Path missing = folder.resolve("missing.png");
        assertThatThrownBy(() -> ImageFile.read(missing))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot read the picture " + missing + ": there is no such file");
        assertThatThrownBy(() -> ImageFile.read(folder))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot read the picture " + folder + ": it is not a regular file");
        Path text = Files.writeString(folder.resolve("text.png"), "not a picture");
        assertThatThrownBy(() -> ImageFile.read(text))
                .isInstanceOf(ImageException.class)
                .hasMessage(text + " is not a picture that can be read, expected PNG or JPEG");
        Path empty = Files.writeString(folder.resolve("empty.jpg"), "");
        assertThatThrownBy(() -> ImageFile.read(empty))
                .isInstanceOf(ImageException.class)
                .hasMessage(empty + " is not a picture that can be read, expected PNG or JPEG");
    }

    @Test
    void aSizeIsReadFromTheHeaderAlone() throws IOException {
        byte[] png = Files.readAllBytes(write(new ImageInfo(3, 1, 8, false), null, null, new int[9]));
        Path cut = Files.write(folder.resolve("cut.png"), Arrays.copyOf(png, 40));
        assertThat(ImageFile.size(cut)).isEqualTo(new ImageFile.Size(3, 1));
        Path text = Files.writeString(folder.resolve("text.png"), "not a picture");
        assertThatThrownBy(() -> ImageFile.size(text))
                .isInstanceOf(ImageException.class)
                .hasMessage(text + " is not a picture that can be read, expected PNG or JPEG");
    }

    @ParameterizedTest
    @ValueSource(ints = {12, 30, 45, 60, 200, 600})
    void namesATruncatedPng(int length) throws IOException {
        Pixels pixels = new Pixels(40, 40);
        for (int y = 0; y < 40; y++) {
            new Random(y).nextBytes(pixels.row(y));
        }
        Path file = folder.resolve("cut.png");
        PngFile.write(file, pixels, Map.of());
        Files.write(file, Arrays.copyOf(Files.readAllBytes(file), length));

        assertThatThrownBy(() -> ImageFile.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessageStartingWith("cannot read the picture " + file + ": ");
    }

    @ParameterizedTest
    @ValueSource(doubles = {0.3, 0.6, 0.9, 0.99})
    void namesATruncatedJpeg(double share) throws IOException {
        BufferedImage image = new BufferedImage(64, 64, BufferedImage.TYPE_INT_RGB);
        Random random = new Random(8);
        for (int y = 0; y < 64; y++) {
            for (int x = 0; x < 64; x++) {
                image.setRGB(x, y, random.nextInt());
            }
        }
        byte[] bytes = jpeg(image);
        Path file = Files.write(folder.resolve("cut.jpg"), Arrays.copyOf(bytes, (int) (share * bytes.length)));

        assertThatThrownBy(() -> ImageFile.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessageStartingWith("cannot read the picture " + file + ": ");
    }

    /** All that comes before is whole: a decoder does not miss the rest. */
    @Test
    void namesAProgressiveJpegThatEndsBetweenTwoScans() throws IOException {
        Path file = folder.resolve("scans.jpg");
        writeJpeg(file, new IIOImage(corners(), null, null), true);
        assertThat(ImageFile.read(file).shape()).containsExactly(3, 16, 32);
        byte[] bytes = Files.readAllBytes(file);
        int cuts = 0;
        for (int i = 2, scans = 0; i < bytes.length - 1; i++) {
            boolean marker = bytes[i] == (byte) 0xFF && (bytes[i + 1] == (byte) 0xDA || bytes[i + 1] == (byte) 0xD9);
            if (marker && scans++ > 0) {
                Path cut = Files.write(folder.resolve("cut.jpg"), Arrays.copyOf(bytes, i));
                assertThatThrownBy(() -> ImageFile.read(cut))
                        .isInstanceOf(ImageException.class)
                        .hasMessage("cannot read the picture " + cut + ": the file is truncated");
                cuts++;
            }
        }
        assertThat(cuts).isGreaterThan(2);
    }

    /** Java's own fail so at files that nobody has at hand. */
    @Test
    void namesAFileWhoseDecoderFailsUnexpectedly() throws IOException {
        Path file = Files.writeString(folder.resolve("strange.png"), FailingReader.START);
        ImageReaderSpi provider = new FailingReader.Provider();
        IIORegistry.getDefaultInstance().registerServiceProvider(provider);
        try {
            assertThatThrownBy(() -> ImageFile.read(file))
                    .isInstanceOf(ImageException.class)
                    .hasMessage("cannot read the picture " + file + ": it is damaged");
        } finally {
            IIORegistry.getDefaultInstance().deregisterServiceProvider(provider);
        }
    }

    @Test
    void namesAPngWithoutItsEnd() throws IOException {
        Path file = write(new ImageInfo(3, 1, 8, false), null, null, new int[9]);
        byte[] bytes = Files.readAllBytes(file);
        Files.write(file, Arrays.copyOf(bytes, bytes.length - 12));
        assertThatThrownBy(() -> ImageFile.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot read the picture " + file + ": the file is truncated");
        Files.write(file, Arrays.copyOf(bytes, bytes.length + 5)); // something behind it is no harm
        assertThat(ImageFile.read(file).shape()).containsExactly(3, 1, 3);
    }

    /** A header alone: nothing is allocated for the pixels that it promises. */
    @ParameterizedTest
    @CsvSource({"70000, 1", "65536, 65536", "16385, 16384", "2147483647, 2147483647"})
    void refusesAPictureThatIsTooLarge(int width, int height) throws IOException {
        ByteBuffer header =
                ByteBuffer.wrap(Files.readAllBytes(write(new ImageInfo(1, 1, 8, false), null, null, 1, 2, 3)));
        header.putInt(16, width).putInt(20, height);
        CRC32 sum = new CRC32();
        sum.update(header.array(), 12, 17);
        header.putInt(29, (int) sum.getValue());
        Path file = Files.write(folder.resolve("bomb.png"), header.array());

        assertThatThrownBy(() -> ImageFile.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessage(file + " has " + width + " × " + height
                        + " pixels, expected at least 1 × 1, at most 65536 on a side and 268435456 in all");
    }

    private static float[] read(Path file, int height, int width) {
        Tensor image = ImageFile.read(file);
        assertThat(image.shape()).containsExactly(3, height, width);
        return Tensors.floats(image);
    }

    private static String colour(float[] values, int height, int width, int y, int x) {
        String[] names = {"red", "green", "blue"};
        for (int channel = 0; channel < 3; channel++) {
            if (values[(channel * height + y) * width + x] > 0.5) {
                return names[channel];
            }
        }
        return "black";
    }

    private static BufferedImage corners() {
        BufferedImage image = new BufferedImage(32, 16, BufferedImage.TYPE_INT_RGB);
        Graphics2D graphics = image.createGraphics();
        graphics.setColor(Color.RED);
        graphics.fillRect(0, 0, 16, 16);
        graphics.dispose();
        return image;
    }

    private static byte[] jpeg(BufferedImage image) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        assertThat(ImageIO.write(image, "jpeg", bytes)).isTrue();
        return bytes.toByteArray();
    }

    private static void writeJpeg(Path file, IIOImage image, boolean progressive) throws IOException {
        ImageWriter writer = ImageIO.getImageWritersByFormatName("jpeg").next();
        try (ImageOutputStream stream = ImageIO.createImageOutputStream(file.toFile())) {
            ImageWriteParam parameters = writer.getDefaultWriteParam();
            if (progressive) {
                parameters.setProgressiveMode(ImageWriteParam.MODE_DEFAULT);
            }
            writer.setOutput(stream);
            writer.write(null, image, parameters);
        } finally {
            writer.dispose();
        }
    }

    /** The JPEG with an EXIF segment after its first two bytes. */
    private static byte[] withExif(byte[] jpeg, int orientation, boolean little) {
        ByteBuffer segment = ByteBuffer.allocate(4 + 6 + 8 + 2 + 12 + 4);
        segment.putShort((short) 0xFFE1).putShort((short) (segment.capacity() - 2));
        segment.put(new byte[] {'E', 'x', 'i', 'f', 0, 0});
        if (little) {
            segment.put(new byte[] {'I', 'I'}).order(ByteOrder.LITTLE_ENDIAN);
        } else {
            segment.put(new byte[] {'M', 'M'});
        }
        segment.putShort((short) 42).putInt(8).putShort((short) 1);
        segment.putShort((short) 0x0112)
                .putShort((short) 3)
                .putInt(1)
                .putShort((short) orientation)
                .putShort((short) 0);
        segment.putInt(0);
        ByteBuffer result = ByteBuffer.allocate(jpeg.length + segment.capacity());
        result.put(jpeg, 0, 2).put(segment.array()).put(jpeg, 2, jpeg.length - 2);
        return result.array();
    }

    /** A PNG of one row. */
    private Path write(ImageInfo info, int @Nullable [][] palette, int @Nullable [] alpha, int... samples) {
        Path file = folder.resolve("written.png");
        PngWriter writer = new PngWriter(file.toFile(), info, true);
        if (palette != null && alpha != null) {
            PngChunkPLTE colours = writer.getMetadata().createPLTEChunk();
            colours.setNentries(palette.length);
            for (int i = 0; i < palette.length; i++) {
                colours.setEntry(i, palette[i][0], palette[i][1], palette[i][2]);
            }
            PngChunkTRNS transparency = writer.getMetadata().createTRNSChunk();
            transparency.setPalletteAlpha(alpha);
        }
        writer.writeRow(new ImageLineInt(info, samples));
        writer.end();
        return file;
    }
}
