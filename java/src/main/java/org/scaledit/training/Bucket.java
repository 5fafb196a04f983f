package org.scaledit.training;

import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.image.ImageFile;
import org.scaledit.image.Resize;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Tensors;

/**
 * A size at which pictures of a similar shape are trained. Its sides are whole guidance tokens, 16 ρ pixels, so that the
 * guidance image covers just the picture.
 */
record Bucket(TokenGrid grid) {
    /** Widths and heights are from half to twice the resolution: shapes from 1 : 4 to 4 : 1. */
    private static final int FARTHEST = 2;

    /** How much larger or smaller than the resolution's the area may be. */
    private static final double AREA_TOLERANCE = 0.2;

    /**
     * Every bucket whose area is about {@code resolution²}, the narrowest first.
     *
     * @throws IllegalArgumentException if the resolution is not a multiple of 16 ρ
     */
    static List<Bucket> of(int resolution, int ratio) {
        int step = TokenGrid.PIXELS_PER_TOKEN * ratio;
        if (resolution < step || resolution > 8192 || resolution % step != 0) {
            throw new IllegalArgumentException("resolution is " + resolution + ", expected a multiple of " + step
                    + " (16 times the ratio) from " + step + " to 8192");
        }
        int most = FARTHEST * resolution / step;
        return IntStream.rangeClosed(1, most)
                .mapToObj(side -> {
                    int other = (int) Math.round((double) resolution / step * resolution / step / side);
                    return Stream.of(
                            new TokenGrid(side * ratio, other * ratio), new TokenGrid(other * ratio, side * ratio));
                })
                .flatMap(grids -> grids)
                .filter(grid -> fits(grid, resolution))
                .distinct()
                .sorted(Comparator.comparingInt(TokenGrid::width).thenComparingInt(TokenGrid::height))
                .map(Bucket::new)
                .toList();
    }

    private static boolean fits(TokenGrid grid, int resolution) {
        double area = (double) grid.pixelWidth() * grid.pixelHeight() / resolution / resolution;
        int longest = Math.max(grid.pixelWidth(), grid.pixelHeight());
        return Math.abs(area - 1) <= AREA_TOLERANCE && longest <= FARTHEST * resolution;
    }

    /** The bucket that is nearest to a picture's shape, the narrower of two that are equally near. */
    static Bucket nearest(List<Bucket> buckets, ImageFile.Size size) {
        double shape = Math.log((double) size.width() / size.height());
        return buckets.stream()
                .min(Comparator.comparingDouble(bucket -> Math.abs(bucket.shape() - shape)))
                .orElseThrow();
    }

    private double shape() {
        return Math.log((double) grid.width() / grid.height());
    }

    /** A picture in this size: resized so that it covers the bucket, then cropped around its middle. */
    Tensor fit(Tensor image) { // [3, h, w] -> [3, 16H, 16W]
        double scale =
                Math.max((double) grid.pixelWidth() / image.size(2), (double) grid.pixelHeight() / image.size(1));
        int width = Math.max(grid.pixelWidth(), (int) Math.rint(scale * image.size(2)));
        int height = Math.max(grid.pixelHeight(), (int) Math.rint(scale * image.size(1)));
        return Tensors.scoped(() -> Resize.bicubic(image, height, width)
                .narrow(1, (height - grid.pixelHeight()) / 2, grid.pixelHeight())
                .narrow(2, (width - grid.pixelWidth()) / 2, grid.pixelWidth())
                .contiguous());
    }
}
