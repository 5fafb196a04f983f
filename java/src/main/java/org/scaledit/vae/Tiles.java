package org.scaledit.vae;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * A map of {@code height × width} cut into square tiles that overlap by a quarter, as diffusers'
 * {@code AutoencoderKL.tiled_decode} and {@code tiled_encode} cut it. What a tile becomes is blended linearly over the
 * overlap, first with the finished tile above it, then with the one to its left. Only one tile, the edges that wait for
 * their neighbours and one band of finished rows exist at a time.
 *
 * @param height of the input
 * @param width of the input
 * @param inputTile side of a tile of the input
 * @param outputTile side of what a whole tile becomes
 */
record Tiles(int height, int width, int inputTile, int outputTile) {

    /**
     * A tile of the input.
     *
     * @param number in the order of blending, row by row
     */
    record Tile(int number, int top, int left, int height, int width) {
        /** Its part of a map: [channels, h, w] -> [channels, height, width]. */
        Tensor of(Tensor map) {
            return map.narrow(1, top, height).narrow(2, left, width);
        }
    }

    /** Computes the output of one tile. */
    @FunctionalInterface
    interface Compute {
        /** [channels, h', w'], float32 on the CPU, not shared with anything. */
        Tensor output(Tile tile);
    }

    /** Computes all tiles, one after the other, and hands out the blended bands. */
    void run(int channels, Compute compute, TileListener listener, BandConsumer sink) {
        listener.onTiles(0, count());
        Tensors.run(() -> {
            // The lower edges of the tiles above, and the right edge of the tile to the left, blended already.
            Tensor above = empty(columns(), channels, outputOverlap(), outputTile);
            Tensor before = empty(channels, outputTile, outputOverlap());
            for (int row = 0; row < rows(); row++) {
                int current = row;
                Tensors.run(() -> {
                    Tensor band = band(current, channels, compute, listener, above, before);
                    sink.accept(current * outputStep(), band);
                });
            }
        });
    }

    private Tensor band(int row, int channels, Compute compute, TileListener listener, Tensor above, Tensor before) {
        int rows = Math.min(outputStep(), outputLength(height - row * inputStep()));
        Tensor band = empty(channels, rows, outputLength(width));
        for (int column = 0; column < columns(); column++) {
            int current = column;
            Tensors.run(() -> {
                Tensor tile = compute.output(tile(row * columns() + current));
                Tensor edge = above.select(0, current).narrow(2, 0, tile.size(2));
                if (row > 0) {
                    blend(1, edge, tile);
                }
                if (current > 0) {
                    blend(2, before.narrow(1, 0, tile.size(1)), tile);
                }
                keepEnd(1, tile, edge);
                keepEnd(2, tile, before.narrow(1, 0, tile.size(1)));
                int columns = (int) Math.min(outputStep(), tile.size(2));
                band.narrow(2, (long) current * outputStep(), columns)
                        .copy_(tile.narrow(1, 0, rows).narrow(2, 0, columns));
            });
            listener.onTiles(row * columns() + column + 1, count());
        }
        return band;
    }

    /** Fades from the end of the neighbour into the beginning of the tile. */
    private static void blend(int axis, Tensor neighbour, Tensor tile) {
        long extent = Math.min(neighbour.size(axis), tile.size(axis));
        long[] shape = {1, 1, 1};
        shape[axis] = extent;
        Tensor weight = torch.arange(new Scalar(extent), Placement.FLOAT32_CPU.options())
                .div(new Scalar((double) extent))
                .view(shape);
        Tensor end = neighbour.narrow(axis, neighbour.size(axis) - extent, extent);
        Tensor beginning = tile.narrow(axis, 0, extent);
        beginning.mul_(weight);
        beginning.add_(end.mul(weight.neg().add(new Scalar(1.0))));
    }

    /** A tile shorter than the overlap ends at the border: nobody will blend with it. */
    private static void keepEnd(int axis, Tensor tile, Tensor edge) {
        long extent = edge.size(axis);
        if (tile.size(axis) >= extent) {
            edge.copy_(tile.narrow(axis, tile.size(axis) - extent, extent));
        }
    }

    private static Tensor empty(long... shape) {
        return torch.empty(shape, Placement.FLOAT32_CPU.options(), null);
    }

    private boolean single() {
        return height <= inputTile && width <= inputTile;
    }

    /** How many there are. */
    int count() {
        return rows() * columns();
    }

    /** @param number from 0 */
    Tile tile(int number) {
        int top = number / columns() * inputStep();
        int left = number % columns() * inputStep();
        return new Tile(number, top, left, Math.min(inputTile, height - top), Math.min(inputTile, width - left));
    }

    private int rows() {
        return single() ? 1 : (height + inputStep() - 1) / inputStep();
    }

    /** Tiles side by side. */
    int columns() {
        return single() ? 1 : (width + inputStep() - 1) / inputStep();
    }

    /** A picture of one tile is its own only band: nothing of it overlaps. */
    private int inputStep() {
        return single() ? inputTile : inputTile - inputTile / VaeConfig.OVERLAPS_PER_TILE;
    }

    private int outputStep() {
        return single() ? outputTile : outputTile - outputOverlap();
    }

    private int outputOverlap() {
        return outputTile / VaeConfig.OVERLAPS_PER_TILE;
    }

    private int outputLength(int inputLength) {
        return (int) ((long) inputLength * outputTile / inputTile);
    }
}
