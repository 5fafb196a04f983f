package org.scaledit.image;

import java.awt.Rectangle;
import java.awt.color.ColorSpace;
import java.awt.image.BufferedImage;
import java.awt.image.IndexColorModel;
import java.awt.image.Raster;
import java.awt.image.WritableRaster;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.OptionalInt;
import javax.imageio.ImageIO;
import javax.imageio.ImageReader;
import javax.imageio.metadata.IIOMetadata;
import javax.imageio.stream.ImageInputStream;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.file.Reasons;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;

/**
 * Reads pictures: PNG and JPEG, 8 or 16 bits, colour, grey or palette. Transparency is laid on white; a JPEG is turned as
 * its EXIF orientation says; colour profiles are not applied.
 */
public final class ImageFile {
    private static final int MAX_SIDE = 65_536;
    private static final long MAX_PIXELS = 16_384L * 16_384;
    private static final String PNG = "png";
    private static final String JPEG = "jpeg";

    private ImageFile() {}

    /**
     * The picture as [3, height, width] float32 on the CPU: {@code v / 127.5 − 1} of each 8-bit value v (16-bit values
     * likewise, in their finer steps).
     *
     * @throws ImageException if the file is missing, is not a whole PNG or JPEG, is in CMYK, or has more than 16,384² pixels
     */
    public static Tensor read(Path file) {
        return Tensors.scoped(() -> {
            PixelSource picture = decode(file);
            return picture.region(0, 0, picture.height(), picture.width());
        });
    }

    /**
     * The same picture, in the bits that its file has: only the regions that are asked for become float32. It is held in
     * Java's heap.
     *
     * @throws ImageException likewise
     */
    public static PixelSource decode(Path file) {
        return open(file, (reader, orientation) -> new Decoded(read(file, reader), orientation));
    }

    /** Pixels of a picture the right way up. */
    public record Size(int width, int height) {}

    /**
     * How large the picture is that {@link #read} would give, by its header alone.
     *
     * @throws ImageException if the file is missing, does not begin as a PNG or JPEG, or has more than 16,384² pixels
     */
    public static Size size(Path file) {
        return open(file, (reader, orientation) -> {
            int width = reader.getWidth(0);
            int height = reader.getHeight(0);
            requireSize(file, width, height);
            return ExifOrientation.turns(orientation) ? new Size(height, width) : new Size(width, height);
        });
    }

    private interface Reading<T> {
        T from(ImageReader reader, int orientation) throws IOException;
    }

    private static <T> T open(Path file, Reading<T> reading) {
        if (!Files.isRegularFile(file)) {
            throw new ImageException("cannot read the picture " + file + ": "
                    + (Files.exists(file) ? "it is not a regular file" : "there is no such file"));
        }
        try (ImageInputStream stream = ImageIO.createImageInputStream(file.toFile())) {
            if (stream == null) {
                throw new IOException("permission denied");
            }
            ImageReader reader = reader(file, stream);
            try {
                int orientation = isOf(JPEG, reader) ? ExifOrientation.of(stream) : ExifOrientation.UPRIGHT;
                stream.seek(0);
                reader.setInput(stream, true, true);
                return reading.from(reader, orientation);
            } finally {
                reader.dispose();
            }
        } catch (ImageException e) {
            throw e;
        } catch (IOException | IllegalArgumentException | IndexOutOfBoundsException e) {
            // ImageIO's decoders answer some damaged files with unchecked exceptions.
            throw new ImageException("cannot read the picture " + file + ": " + Reasons.of(e), e);
        } catch (RuntimeException e) { // about itself: its words are not for people
            throw new ImageException("cannot read the picture " + file + ": it is damaged", e);
        }
    }

    private static ImageReader reader(Path file, ImageInputStream stream) throws IOException {
        Iterator<ImageReader> readers = ImageIO.getImageReaders(stream);
        while (readers.hasNext()) { // Java also has readers of TIFF and others, whose pixels mean other things
            ImageReader reader = readers.next();
            if (isOf(PNG, reader) || isOf(JPEG, reader)) {
                return reader;
            }
            reader.dispose();
        }
        throw new ImageException(file + " is not a picture that can be read, expected PNG or JPEG");
    }

    private static boolean isOf(String format, ImageReader reader) throws IOException {
        return reader.getFormatName().equalsIgnoreCase(format);
    }

    private static BufferedImage read(Path file, ImageReader reader) throws IOException {
        requireSize(file, reader.getWidth(0), reader.getHeight(0));
        if (isOf(PNG, reader)) {
            PngChunks.requireWhole(file);
        }
        // A decoder that meets the end of a truncated file fills up with grey and only warns.
        List<String> warnings = new ArrayList<>();
        reader.addIIOReadWarningListener((source, warning) -> warnings.add(warning));
        BufferedImage image = reader.read(0);
        for (String warning : warnings) {
            String words = warning.toLowerCase(Locale.ROOT);
            if (words.contains("premature end") || words.contains("missing eoi marker")) {
                throw new IOException("the file is truncated");
            }
        }
        requireKnownColours(file, image.getColorModel().getColorSpace());
        if (isOf(PNG, reader)) {
            restoreTransparency(reader, image);
        }
        return image;
    }

    private static void requireKnownColours(Path file, ColorSpace colours) {
        if (colours.getType() != ColorSpace.TYPE_RGB && colours.getType() != ColorSpace.TYPE_GRAY) {
            throw new ImageException(file + " has "
                    + (colours.getType() == ColorSpace.TYPE_CMYK
                            ? "colours in CMYK"
                            : colours.getNumComponents() + " channels of an unknown meaning")
                    + ", expected RGB or grey");
        }
    }

    /**
     * Java compares grey of fewer than 8 bits with the transparent one only when it has spread it over 8 bits, which finds 0
     * alone.
     */
    private static void restoreTransparency(ImageReader reader, BufferedImage image) throws IOException {
        if (image.getRaster().getNumBands() != 2) {
            return; // a palette's other chunks, say, may have what Java's metadata does not know
        }
        IIOMetadata metadata = reader.getImageMetadata(0);
        Element chunks = (Element) metadata.getAsTree(metadata.getNativeMetadataFormatName());
        int largest = (1 << number(chunks, "IHDR", "bitDepth").orElseThrow()) - 1;
        OptionalInt transparent = number(chunks, "tRNS_Grayscale", "gray");
        if (transparent.isEmpty() || largest >= 255) {
            return;
        }
        int spread = (transparent.getAsInt() & largest) * 255 / largest;
        WritableRaster raster = image.getRaster();
        int[] row = new int[image.getWidth()];
        for (int y = 0; y < image.getHeight(); y++) {
            raster.getSamples(0, y, row.length, 1, 0, row);
            for (int x = 0; x < row.length; x++) {
                row[x] = row[x] == spread ? 0 : 255;
            }
            raster.setSamples(0, y, row.length, 1, 1, row);
        }
    }

    private static OptionalInt number(Element chunks, String chunk, String field) {
        NodeList found = chunks.getElementsByTagName(chunk);
        return found.getLength() == 0
                ? OptionalInt.empty()
                : OptionalInt.of(Integer.parseInt(((Element) found.item(0)).getAttribute(field)));
    }

    private static void requireSize(Path file, int width, int height) {
        if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || (long) width * height > MAX_PIXELS) {
            throw new ImageException(
                    file + " has " + width + " × " + height + " pixels, expected at least 1 × 1, at most " + MAX_SIDE
                            + " on a side and " + MAX_PIXELS + " in all");
        }
    }

    /** A picture as ImageIO has decoded it, seen the right way up. */
    private record Decoded(BufferedImage image, int orientation) implements PixelSource {
        @Override
        public int height() {
            return ExifOrientation.turns(orientation) ? image.getWidth() : image.getHeight();
        }

        @Override
        public int width() {
            return ExifOrientation.turns(orientation) ? image.getHeight() : image.getWidth();
        }

        @Override
        public Tensor region(int top, int left, int height, int width) {
            Rectangle upright = new Rectangle(left, top, width, height);
            Rectangle stored = ExifOrientation.stored(orientation, upright, height(), width());
            return Tensors.scoped(() -> ExifOrientation.apply(orientation, toTensor(image, stored)));
        }
    }

    /** [3, height, width] */
    private static Tensor toTensor(BufferedImage image, Rectangle part) {
        int width = part.width;
        int height = part.height;
        return Tensors.scoped(() -> {
            Tensor tensor = torch.empty(new long[] {3, height, width}, Placement.FLOAT32_CPU.options(), null);
            FloatPointer values = new FloatPointer(tensor.data_ptr_float());
            float[][] row = new float[4][width]; // red, green, blue, opacity, each 0 … 255
            for (int y = 0; y < height; y++) {
                readRow(image, part.x, part.y + y, row);
                for (int channel = 0; channel < 3; channel++) {
                    values.position(((long) channel * height + y) * width).put(onWhite(row[channel], row[3]));
                }
            }
            return tensor;
        });
    }

    private static void readRow(BufferedImage image, int left, int y, float[][] row) {
        if (image.getColorModel() instanceof IndexColorModel palette) {
            readPalette(image.getRaster(), palette, left, y, row);
        } else {
            readSamples(image.getRaster(), image.getColorModel().hasAlpha(), left, y, row);
        }
    }

    private static void readPalette(Raster raster, IndexColorModel palette, int left, int y, float[][] row) {
        int[] indices = raster.getSamples(left, y, row[0].length, 1, 0, (int[]) null);
        for (int x = 0; x < indices.length; x++) {
            row[0][x] = palette.getRed(indices[x]);
            row[1][x] = palette.getGreen(indices[x]);
            row[2][x] = palette.getBlue(indices[x]);
            row[3][x] = palette.getAlpha(indices[x]);
        }
    }

    /** The samples as they lie in the file: asking for RGB would put grey through a linear colour space. */
    private static void readSamples(Raster raster, boolean opacity, int left, int y, float[][] row) {
        int bands = raster.getNumBands();
        boolean grey = bands < 3;
        for (int channel = 0; channel < 3; channel++) {
            readBand(raster, left, y, grey ? 0 : channel, row[channel]);
        }
        if (opacity) {
            readBand(raster, left, y, bands - 1, row[3]);
        } else {
            Arrays.fill(row[3], 255);
        }
    }

    private static void readBand(Raster raster, int left, int y, int band, float[] values) {
        raster.getSamples(left, y, values.length, 1, band, values);
        int largest = (1 << raster.getSampleModel().getSampleSize(band)) - 1;
        if (largest != 255) {
            for (int x = 0; x < values.length; x++) {
                values[x] *= 255f / largest;
            }
        }
    }

    /** 0 … 255 laid on white by its opacity, as −1 … 1. */
    private static float[] onWhite(float[] values, float[] opacity) {
        float[] result = new float[values.length];
        for (int x = 0; x < values.length; x++) {
            float seen = opacity[x] == 255 ? values[x] : 255 + (values[x] - 255) * (opacity[x] / 255);
            result[x] = seen / 127.5f - 1;
        }
        return result;
    }
}
