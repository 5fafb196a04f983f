package org.scaledit.image;

import java.awt.Rectangle;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import javax.imageio.stream.ImageInputStream;
import org.bytedeco.pytorch.Tensor;

/** How a camera was held: EXIF's orientation tag, 1 to 8. */
final class ExifOrientation {
    static final int UPRIGHT = 1;

    private static final int START_OF_IMAGE_BYTES = 2;
    private static final int FIRST_MARKER = 0xFF00;
    private static final int FILL = 0xFFFF;
    private static final int START_OF_SCAN = 0xFFDA;
    private static final int APP1 = 0xFFE1;
    private static final byte[] EXIF = "Exif\0\0".getBytes(StandardCharsets.US_ASCII);
    private static final int ORIENTATION_TAG = 0x0112;
    private static final int DIRECTORY_ENTRY_BYTES = 12;

    private ExifOrientation() {}

    /** The orientation that the segments before a JPEG's pixels give; upright if they give none that makes sense. */
    static int of(ImageInputStream jpeg) throws IOException {
        try {
            return ofSegments(jpeg);
        } catch (EOFException e) {
            return UPRIGHT; // whether the file is truncated is for its decoder to say
        }
    }

    private static int ofSegments(ImageInputStream jpeg) throws IOException {
        jpeg.seek(START_OF_IMAGE_BYTES);
        while (true) {
            int marker = jpeg.readUnsignedShort();
            while (marker == FILL) { // any number of these bytes may stand before a marker (ITU T.81, B.1.1.2)
                marker = FIRST_MARKER | jpeg.readUnsignedByte();
            }
            int length = jpeg.readUnsignedShort() - Short.BYTES;
            if (marker < FIRST_MARKER || marker == START_OF_SCAN || length < 0) {
                return UPRIGHT;
            }
            byte[] content = new byte[length];
            jpeg.readFully(content);
            if (marker == APP1 && of(content) != UPRIGHT) {
                return of(content);
            }
        }
    }

    /** The orientation in an APP1 segment: "Exif", then a TIFF header and its first directory. */
    static int of(byte[] segment) {
        ByteBuffer buffer = ByteBuffer.wrap(segment);
        if (!startsWith(buffer, EXIF) || segment.length < EXIF.length + 8) {
            return UPRIGHT;
        }
        ByteBuffer tiff = buffer.position(EXIF.length).slice();
        tiff.order(tiff.get(0) == 'I' ? ByteOrder.LITTLE_ENDIAN : ByteOrder.BIG_ENDIAN);
        int directory = tiff.getInt(4);
        if (directory < 8 || directory > tiff.limit() - 2) {
            return UPRIGHT;
        }
        int entries = Math.min(
                Short.toUnsignedInt(tiff.getShort(directory)), (tiff.limit() - directory - 2) / DIRECTORY_ENTRY_BYTES);
        for (int i = 0; i < entries; i++) {
            int entry = directory + 2 + i * DIRECTORY_ENTRY_BYTES;
            if (Short.toUnsignedInt(tiff.getShort(entry)) == ORIENTATION_TAG) {
                int orientation = tiff.getShort(entry + 8);
                return orientation >= 1 && orientation <= 8 ? orientation : UPRIGHT;
            }
        }
        return UPRIGHT;
    }

    /** The picture the right way up. */
    static Tensor apply(int orientation, Tensor image) { // [3, h, w]
        return switch (orientation) {
            case 2 -> image.flip(2);
            case 3 -> image.flip(1, 2);
            case 4 -> image.flip(1);
            case 5 -> image.transpose(1, 2).contiguous();
            case 6 -> image.transpose(1, 2).flip(2);
            case 7 -> image.transpose(1, 2).flip(1, 2);
            case 8 -> image.transpose(1, 2).flip(1);
            default -> image;
        };
    }

    /** Whether the picture the right way up is as wide as it was high. */
    static boolean turns(int orientation) {
        return orientation >= 5;
    }

    /** Where in the stored picture a rectangle of the upright one lies, which has {@code height × width} pixels. */
    static Rectangle stored(int orientation, Rectangle upright, int height, int width) {
        boolean mirrored = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
        boolean upsideDown = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
        int left = mirrored ? width - upright.x - upright.width : upright.x;
        int top = upsideDown ? height - upright.y - upright.height : upright.y;
        return turns(orientation)
                ? new Rectangle(top, left, upright.height, upright.width)
                : new Rectangle(left, top, upright.width, upright.height);
    }

    private static boolean startsWith(ByteBuffer buffer, byte[] prefix) {
        return buffer.remaining() >= prefix.length
                && buffer.slice(0, prefix.length).equals(ByteBuffer.wrap(prefix));
    }
}
