package org.scaledit.image;

import ar.com.hjg.pngj.FilterType;
import ar.com.hjg.pngj.ImageInfo;
import ar.com.hjg.pngj.ImageLineByte;
import ar.com.hjg.pngj.PngWriter;
import ar.com.hjg.pngj.chunks.PngChunkITXT;
import java.io.IOException;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.function.Consumer;
import org.scaledit.file.Reasons;

/** Writes pictures as PNG files, with text chunks before the pixels. */
public final class PngFile {
    /**
     * A 4096² photograph, one core: 2 and SUB take 1.2 s for 30.2 MB; PNGJ's defaults, 6 and PAETH, over 4 s for 28.9 MB.
     */
    private static final int COMPRESSION = 2;

    private static final FilterType FILTER = FilterType.FILTER_SUB;

    /** The last chunk of every PNG: no data, its name, its checksum. */
    private static final byte[] END = {0, 0, 0, 0, 'I', 'E', 'N', 'D', (byte) 0xAE, 0x42, 0x60, (byte) 0x82};

    private PngFile() {}

    /**
     * Whether a file is there and ends as a PNG does: one whose copying was broken off does not.
     *
     * @throws ImageException if it cannot be read
     */
    public static boolean isWhole(Path file) {
        if (!Files.isRegularFile(file)) {
            return false;
        }
        try (RandomAccessFile bytes = new RandomAccessFile(file.toFile(), "r")) {
            byte[] end = new byte[END.length];
            if (bytes.length() < end.length) {
                return false;
            }
            bytes.seek(bytes.length() - end.length);
            bytes.readFully(end);
            return Arrays.equals(end, END);
        } catch (IOException e) {
            throw new ImageException("cannot read the picture " + file + ": " + Reasons.of(e), e);
        }
    }

    /** Writes a picture that is there already; see {@link #write(Path, int, int, Map, Consumer)}. */
    public static void write(Path file, Pixels pixels, Map<String, String> texts) {
        write(file, pixels.width(), pixels.height(), texts, pixels::forEachRow);
    }

    /** The same of one that lies in one piece, red, green and blue of each pixel, row by row. */
    public static void write(Path file, byte[] rgb, int width, Map<String, String> texts) {
        int height = rgb.length / 3 / width;
        write(file, width, height, texts, rows -> {
            byte[] row = new byte[3 * width];
            for (int y = 0; y < height; y++) {
                System.arraycopy(rgb, row.length * y, row, 0, row.length);
                rows.accept(y, row);
            }
        });
    }

    /**
     * Writes a picture and its texts. The file appears, or replaces an older one, only when it is whole.
     *
     * @param texts keyword (1 to 79 printable Latin-1 characters) → text, each written as an iTXt chunk
     * @param picture hands out every row once, in order; an exception of its own leaves no file and reaches the caller
     * @throws IllegalArgumentException if a keyword or a text cannot stand in a PNG
     * @throws ImageException if the file cannot be written
     */
    public static void write(
            Path file, int width, int height, Map<String, String> texts, Consumer<RowConsumer> picture) {
        texts.forEach(PngFile::requireWritable);
        OutputFile.replace(file, stream -> write(stream, width, height, texts, picture));
    }

    static void write(
            OutputStream stream, int width, int height, Map<String, String> texts, Consumer<RowConsumer> picture) {
        ImageInfo info = new ImageInfo(width, height, 8, false);
        PngWriter writer = new PngWriter(stream, info);
        try {
            writer.setShouldCloseStream(false);
            writer.setCompLevel(COMPRESSION);
            writer.setFilterType(FILTER);
            texts.forEach((keyword, text) -> writer.queueChunk(chunk(info, keyword, text)));
            picture.accept((y, row) -> writer.writeRow(new ImageLineByte(info, row), y));
            writer.end();
        } finally {
            writer.close();
        }
    }

    private static PngChunkITXT chunk(ImageInfo info, String keyword, String text) {
        PngChunkITXT chunk = new PngChunkITXT(info);
        chunk.setKeyVal(keyword, text);
        chunk.setPriority(true); // before the pixels, where readers that stop there find it
        return chunk;
    }

    private static void requireWritable(String keyword, String text) {
        if (!keyword.matches("[!-~¡-ÿ][ -~¡-ÿ]{0,78}") || keyword.endsWith(" ")) {
            throw new IllegalArgumentException("the keyword \"" + keyword
                    + "\" cannot stand in a PNG, expected 1 to 79 printable Latin-1 characters without outer spaces");
        }
        if (text.indexOf('\0') >= 0) {
            throw new IllegalArgumentException("the text \"" + keyword + "\" has a NUL character at position "
                    + text.indexOf('\0') + ", which cannot stand in a PNG");
        }
        if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
            throw new IllegalArgumentException(
                    "the text \"" + keyword + "\" has half a surrogate pair, which cannot stand in a PNG");
        }
    }
}
