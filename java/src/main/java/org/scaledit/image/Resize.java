package org.scaledit.image;

import static org.scaledit.tensor.Tensors.run;
import static org.scaledit.tensor.Tensors.scoped;

import org.bytedeco.pytorch.InterpolateFuncOptions;
import org.bytedeco.pytorch.LongVector;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.kBicubic;
import org.scaledit.tensor.Placement;

/**
 * Bicubic resizing as PyTorch computes it: half-pixel centres, nothing clamped. Enlarging has a = −0.75 and repeats the
 * edges; shrinking is antialiased: a = −0.5, support widened by the scale, weights renormalised at the edges.
 */
public final class Resize {
    /** Neighbours that a bicubic sample reaches beyond the pixels it lies between. */
    private static final int REACH = 2;

    /** Rows that are in float32 at a time: of 16,384 pixels 48 MiB. */
    private static final int BAND = 256;

    private Resize() {}

    /**
     * The picture at {@code height × width} pixels. Each axis follows its own rule, as bicubic resizing is separable: one
     * that shrinks is antialiased, one that grows is not, whatever the other does. Shrinking goes first.
     */
    public static Tensor bicubic(Tensor image, int height, int width) { // [3, h, w] -> [3, height, width]
        int shrunkHeight = (int) Math.min(height, image.size(1));
        int shrunkWidth = (int) Math.min(width, image.size(2));
        return scoped(() -> {
            Tensor shrunk = interpolate(image, shrunkHeight, shrunkWidth, true);
            return interpolate(shrunk, height, width, false);
        });
    }

    /** The same of a picture that is not held in float32: the columns follow their rule band by band, then the rows. */
    public static Tensor bicubic(PixelSource image, int height, int width) { // -> [3, height, width]
        return scoped(() -> {
            Tensor columns = torch.empty(
                    new long[] {3, image.height(), width}, Placement.FLOAT32_CPU.options(), null); // [3, h, width]
            for (int top = 0; top < image.height(); top += BAND) {
                int first = top;
                int rows = Math.min(BAND, image.height() - top);
                run(() -> columns.narrow(1, first, rows)
                        .copy_(bicubic(image.region(first, 0, rows, image.width()), rows, width)));
            }
            return bicubic(columns, height, width);
        });
    }

    /** The picture shrunk to {@code height × width} pixels, each the mean of those that it covers. */
    public static Tensor area(Tensor image, int height, int width) { // [3, h, w] -> [3, height, width]
        return torch.adaptive_avg_pool2d(image, height, width);
    }

    /** The picture extended at the bottom and at the right to {@code height × width} pixels by repeating its edges. */
    public static Tensor extend(Tensor image, int height, int width) { // [3, h, w] -> [3, height, width]
        return torch.replication_pad2d(image, 0, width - image.size(2), 0, height - image.size(1));
    }

    /**
     * A user's picture as the guidance image of a {@code width × height} picture (multiples of 16): resized to a
     * {@code ratio}-th of that, then extended at the right and the bottom to whole guidance tokens of 16 × 16 pixels.
     */
    public static Tensor toGuidance(Tensor image, int height, int width, int ratio) { // [3, h, w] -> [3, 16h', 16w']
        int covered = 16 * ratio;
        int guidanceHeight = (height + covered - 1) / covered * 16;
        int guidanceWidth = (width + covered - 1) / covered * 16;
        // The divisions are exact: the sides are multiples of 16, and the ratio is 1, 2, 4 or 8.
        return scoped(() -> extend(bicubic(image, height / ratio, width / ratio), guidanceHeight, guidanceWidth));
    }

    /**
     * A picture in training as its own guidance image: extended at the right and the bottom to whole guidance tokens, then
     * shrunk by exactly {@code ratio}.
     */
    public static Tensor toTrainingGuidance(Tensor image, int ratio) { // [3, h, w] -> [3, 16h', 16w']
        int covered = 16 * ratio;
        int height = (int) (image.size(1) + covered - 1) / covered * 16;
        int width = (int) (image.size(2) + covered - 1) / covered * 16;
        return scoped(() -> bicubic(extend(image, height * ratio, width * ratio), height, width));
    }

    /**
     * The picture enlarged by exactly {@code ratio} (a power of two) and cropped at the bottom and the right to
     * {@code height × width}. Regions are enlarged when asked for, bit for bit as if the whole had been.
     */
    public static PixelSource enlarged(Tensor image, int ratio, int height, int width) { // [3, h, w]
        return new PixelSource() {
            @Override
            public int height() {
                return height;
            }

            @Override
            public int width() {
                return width;
            }

            @Override
            public Tensor region(int top, int left, int rows, int columns) {
                Span vertical = Span.around(top, rows, ratio, (int) image.size(1));
                Span horizontal = Span.around(left, columns, ratio, (int) image.size(2));
                return scoped(() -> {
                    Tensor part = image.narrow(1, vertical.first, vertical.count)
                            .narrow(2, horizontal.first, horizontal.count);
                    return interpolate(part, vertical.count * ratio, horizontal.count * ratio, false)
                            .narrow(1, top - vertical.first * ratio, rows)
                            .narrow(2, left - horizontal.first * ratio, columns);
                });
            }
        };
    }

    /** The pixels along one axis that an enlarged stretch is computed from. */
    private record Span(int first, int count) {
        static Span around(int start, int length, int ratio, int size) {
            int first = Math.max(0, start / ratio - REACH);
            int end = Math.min(size, (start + length + ratio - 1) / ratio + REACH);
            return new Span(first, end - first);
        }
    }

    private static Tensor interpolate(Tensor image, int height, int width, boolean antialias) {
        if (image.size(1) == height && image.size(2) == width) {
            return image;
        }
        return scoped(() -> {
            InterpolateFuncOptions options = new InterpolateFuncOptions();
            options.size().put(new LongVector(height, width));
            options.mode().put(new kBicubic());
            options.align_corners().put(false);
            options.antialias().put(antialias);
            return torch.interpolate(image.unsqueeze(0), options).squeeze(0);
        });
    }
}
