package org.scaledit.transformer;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Tensors;

/**
 * Where the tensors of a block lie when all of it is one piece of memory. Found out by letting the block's own code ask
 * for them.
 */
final class BlockLayout implements Layers.Source {
    /** Products and kernels read 16 bytes at a time; torch's allocator gives tensors such addresses as well. */
    private static final long ALIGNMENT = 256;

    /** @param shape for which it has room */
    record Place(torch.ScalarType dtype, List<Long> shape, long offset) {
        private static Place of(torch.ScalarType dtype, long offset, long rows, long[] shape) {
            return new Place(
                    dtype,
                    IntStream.range(0, shape.length)
                            .mapToObj(axis -> axis == 0 ? rows : shape[axis])
                            .toList(),
                    offset);
        }

        long[] dimensions() {
            return shape.stream().mapToLong(Long::longValue).toArray();
        }

        long bytes() {
            return shape.stream().reduce(size(dtype), Math::multiplyExact);
        }

        private static long size(torch.ScalarType dtype) {
            return switch (dtype) {
                case Float -> 4;
                case BFloat16 -> 2;
                case Float8_e4m3fn -> 1;
                default -> throw new IllegalArgumentException("weights are " + dtype + ", expected Float or BFloat16");
            };
        }
    }

    /** Of a tensor, or of one in FP8 and its scales. */
    record Piece(Place values, Optional<Place> scales) {}

    private final torch.ScalarType dtype;
    private final boolean fp8;
    private final int headGroups;
    private final List<BlockLayout> blocks; // of the whole model; empty for one block
    private final Map<String, Piece> pieces = new HashMap<>();
    private long bytes;

    private BlockLayout(torch.ScalarType dtype, boolean fp8, int headGroups, List<BlockLayout> blocks) {
        this.dtype = dtype;
        this.fp8 = fp8;
        this.headGroups = headGroups;
        this.blocks = blocks;
    }

    /**
     * Of all blocks, in the order in which tokens pass through them.
     *
     * @param dtype of what is not in FP8
     * @param fp8 whether the large products are
     */
    static List<BlockLayout> of(FluxConfig config, torch.ScalarType dtype, boolean fp8, int headGroups) {
        List<BlockLayout> blocks = IntStream.range(0, config.doubleBlocks() + config.singleBlocks())
                .mapToObj(block -> new BlockLayout(dtype, fp8, headGroups, List.of()))
                .toList();
        Layers model = Layers.of(new BlockLayout(dtype, fp8, headGroups, blocks), Adapters.none());
        Tensors.run(() -> FluxModel.load(model, config));
        return blocks;
    }

    /** The name of parts of several tensors that lie below each other. */
    static String key(List<String> names, int part, int parts) {
        return String.join(" + ", names) + " " + (part + 1) + "/" + parts;
    }

    /** @param key a tensor's name, or {@link #key} */
    Piece piece(String key) {
        return Optional.ofNullable(pieces.get(key))
                .orElseThrow(() -> new IllegalArgumentException("the block has no " + key));
    }

    /** The size of the whole piece of memory. */
    long bytes() {
        return bytes;
    }

    @Override
    public Tensor tensor(String name, long... shape) {
        pieces.put(name, new Piece(next(dtype, shape[0], shape), Optional.empty()));
        return new Tensor();
    }

    @Override
    public Tensor stacked(List<String> names, int part, int parts, long... shape) {
        long rows = names.size() * (shape[0] / parts);
        pieces.put(key(names, part, parts), new Piece(next(dtype, rows, shape), Optional.empty()));
        return new Tensor();
    }

    @Override
    public Matrix weights(List<String> names, int part, int parts, long... shape) {
        long rows = names.size() * (shape[0] / parts);
        pieces.put(
                key(names, part, parts),
                new Piece(
                        next(fp8 ? torch.ScalarType.Float8_e4m3fn : dtype, rows, shape),
                        fp8
                                ? Optional.of(next(torch.ScalarType.Float, rows, new long[] {rows, 1}))
                                : Optional.empty()));
        return Matrix.of(new Tensor());
    }

    @Override
    public int headGroups() {
        return headGroups;
    }

    @Override
    public Layers.Source block(int number) {
        return blocks.get(number);
    }

    private Place next(torch.ScalarType type, long rows, long[] shape) {
        Place place = Place.of(type, bytes, rows, shape);
        bytes += (place.bytes() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        return place;
    }
}
