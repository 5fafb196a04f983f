package org.scaledit.image;

import ar.com.hjg.pngj.PngReader;
import ar.com.hjg.pngj.PngjException;
import ar.com.hjg.pngj.chunks.PngChunk;
import ar.com.hjg.pngj.chunks.PngChunkTextVar;
import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.scaledit.file.Reasons;

/** Reads the text chunks of a PNG file (tEXt, zTXt, iTXt) without decoding its pixels. */
public final class PngText {
    private PngText() {}

    /**
     * Keyword → text, in the file's order; the first of equal keywords counts.
     *
     * @throws ImageException if the file is not a PNG or cannot be read to its end
     */
    public static Map<String, String> read(Path file) {
        try (InputStream stream = new BufferedInputStream(Files.newInputStream(file), 1 << 16)) {
            if (Files.isRegularFile(file)) {
                PngChunks.requireWhole(file); // PNGJ allocates as many bytes as a chunk says
            }
            PngReader reader = new PngReader(stream, false);
            try {
                reader.setMaxTotalBytesRead(Long.MAX_VALUE); // a picture of 65,536² pixels has billions
                reader.readSkippingAllRows();
                return texts(reader);
            } finally {
                reader.close();
            }
        } catch (IOException | PngjException e) {
            throw new ImageException("cannot read " + file + " as a PNG: " + Reasons.of(e), e);
        } catch (RuntimeException e) { // about itself: its words are not for people
            throw new ImageException("cannot read " + file + " as a PNG: it is damaged", e);
        }
    }

    /**
     * The text under one keyword.
     *
     * @throws ImageException also if the file has no such text
     */
    public static String read(Path file, String keyword) {
        @Nullable String text = read(file).get(keyword);
        if (text == null) {
            throw new ImageException(file + " has no text \"" + keyword
                    + "\": it was not made by this program, or another" + " program has removed its texts");
        }
        return text;
    }

    private static Map<String, String> texts(PngReader reader) {
        Map<String, String> texts = new LinkedHashMap<>();
        for (PngChunk chunk : reader.getChunksList().getChunks()) {
            if (chunk instanceof PngChunkTextVar text) {
                texts.putIfAbsent(text.getKey(), text.getVal());
            }
        }
        return texts;
    }
}
