package org.scaledit.image;

import java.awt.image.BufferedImage;
import java.awt.image.DataBufferInt;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** A picture of 8 bits a channel. Every row is an array of its own: 65,536² pixels have more bytes than one array holds. */
public final class Pixels {
    private final int width;
    private final byte[][] rows; // [height][3 · width], red, green, blue, red, …

    /** A black picture. */
    public Pixels(int width, int height) {
        this.width = width;
        this.rows = new byte[height][3 * width];
    }

    public int width() {
        return width;
    }

    public int height() {
        return rows.length;
    }

    /** Row {@code y}: red, green, blue of its first pixel, then of the second … Not a copy. */
    public byte[] row(int y) {
        return rows[y];
    }

    /** Pixels of 8 bits, red, green, blue of each, row by row, as {@code [3, height, width]}, float32 in −1 … 1 on the CPU. */
    public static Tensor toTensor(byte[] rgb, int width) {
        return Tensors.scoped(() -> {
            long[] shape = {rgb.length / 3 / width, width, 3};
            Tensor bytes = torch.empty(shape, new TensorOptions(torch.ScalarType.Byte), null);
            new BytePointer(bytes.data_ptr()).put(rgb);
            return Tensors.toFloat32(bytes)
                    .div(new Scalar(127.5))
                    .sub(new Scalar(1.0))
                    .permute(2, 0, 1)
                    .contiguous();
        });
    }

    /** Hands out all rows. */
    public void forEachRow(RowConsumer rows) {
        for (int y = 0; y < height(); y++) {
            rows.accept(y, row(y));
        }
    }

    /**
     * Puts a band of float pixels at {@code firstRow}; see {@link #round}.
     *
     * @throws ArithmeticException if a value is not a number
     */
    public void put(int firstRow, Tensor band) { // [3, rows, width]
        round(firstRow, band, (y, row) -> System.arraycopy(row, 0, rows[y], 0, row.length));
    }

    /**
     * Rounds a band of float pixels: {@code round(255 · clamp(x / 2 + 0.5, 0, 1))}, ties to even, as diffusers does.
     *
     * @param firstRow row of the picture that the band begins with
     * @param band [3, rows, width], −1 … 1
     * @throws ArithmeticException if a value is not a number
     */
    public static void round(int firstRow, Tensor band, RowConsumer rows) {
        Tensors.run(() -> {
            Tensor plain = Placement.FLOAT32_CPU.place(band).contiguous();
            FloatPointer source = new FloatPointer(plain.data_ptr_float());
            int count = (int) plain.size(1);
            float[] values = new float[(int) plain.size(2)];
            byte[] row = new byte[3 * values.length];
            for (int y = 0; y < count; y++) {
                for (int channel = 0; channel < 3; channel++) {
                    source.position(((long) channel * count + y) * values.length)
                            .get(values);
                    if (!round(values, row, channel)) {
                        throw new ArithmeticException(
                                "row " + (firstRow + y) + " of the picture holds values that are not numbers");
                    }
                }
                rows.accept(firstRow + y, row);
            }
        });
    }

    /** Whether all values are numbers. */
    private static boolean round(float[] values, byte[] row, int channel) {
        boolean numbers = true;
        for (int x = 0; x < values.length; x++) {
            float unit = Math.min(Math.max(values[x] / 2 + 0.5f, 0), 1);
            row[3 * x + channel] = (byte) Math.rint(255 * unit);
            numbers &= unit == unit; // false for NaN alone
        }
        return numbers;
    }

    /**
     * The same picture for Java's own imaging.
     *
     * @throws IllegalStateException beyond 46,340 × 46,340 pixels or so: Java's images hold at most 2³¹ − 8 pixels
     */
    public BufferedImage toBufferedImage() {
        if ((long) width * height() > Integer.MAX_VALUE - 8) {
            throw new IllegalStateException(
                    "a picture of " + width + " × " + height() + " pixels does not fit a BufferedImage");
        }
        BufferedImage image = new BufferedImage(width, height(), BufferedImage.TYPE_INT_RGB);
        int[] packed = ((DataBufferInt) image.getRaster().getDataBuffer()).getData();
        int next = 0;
        for (byte[] row : rows) {
            for (int i = 0; i < row.length; i += 3) {
                packed[next++] = (row[i] & 0xFF) << 16 | (row[i + 1] & 0xFF) << 8 | (row[i + 2] & 0xFF);
            }
        }
        return image;
    }
}
