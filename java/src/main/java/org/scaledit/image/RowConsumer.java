package org.scaledit.image;

/** Takes a picture of 8 bits a channel row by row, from the top to the bottom. */
@FunctionalInterface
public interface RowConsumer {
    /** @param row red, green, blue of its first pixel, then of the second …; used again for others after the call */
    void accept(int y, byte[] row);
}
