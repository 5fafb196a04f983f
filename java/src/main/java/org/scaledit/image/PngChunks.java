package org.scaledit.image;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;

/** The chunks of a PNG file, by their lengths and names alone. */
final class PngChunks {
    private static final byte[] SIGNATURE = {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

    /** Length, name and checksum of a chunk. */
    private static final int FRAME_BYTES = 12;

    private static final int END = 0x49454E44; // IEND

    private PngChunks() {}

    /**
     * What follows the last chunk does not count.
     *
     * @throws IOException in a few words, if it does not begin as a PNG, a chunk goes beyond its end, or the last one is missing
     */
    static void requireWhole(Path file) throws IOException {
        try (RandomAccessFile bytes = new RandomAccessFile(file.toFile(), "r")) {
            ByteBuffer start = ByteBuffer.allocate(SIGNATURE.length);
            if (bytes.read(start.array()) < SIGNATURE.length || !Arrays.equals(start.array(), SIGNATURE)) {
                throw new IOException("it does not begin as a PNG");
            }
            long position = SIGNATURE.length;
            int name = 0;
            while (name != END) {
                long left = bytes.length() - position - FRAME_BYTES;
                if (left < 0) {
                    throw new IOException("the file is truncated");
                }
                bytes.seek(position);
                bytes.readFully(start.array());
                long length = Integer.toUnsignedLong(start.getInt(0));
                name = start.getInt(Integer.BYTES);
                if (length > left) {
                    throw new IOException("its chunk " + word(start) + " has " + length
                            + " bytes, expected at most the " + left + " that the file has left");
                }
                position += FRAME_BYTES + length;
            }
        }
    }

    private static String word(ByteBuffer start) {
        String name = new String(start.array(), Integer.BYTES, Integer.BYTES, StandardCharsets.ISO_8859_1);
        return name.chars().allMatch(letter -> letter < 0x80 && Character.isLetter(letter)) ? name : "without a name";
    }
}
