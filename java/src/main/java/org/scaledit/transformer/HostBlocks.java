package org.scaledit.transformer;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.CudaStream;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.PinnedMemory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * A model whose blocks' weights stay in the host's memory, as they are computed with: made on the GPU once, in FP8
 * quantised, and fetched back. At each step they come to the GPU again, on a stream of their own, while the block before
 * computes. The tensors of a block are views of its place on the GPU and hold its weights while it computes.
 *
 * <p>Of FLUX.1-dev a block takes up to 453 MB in FP8, 680 in bfloat16: two places, and a third one for the last block of 57.
 * Everything outside the blocks, 0.13 GB, stays on the GPU.
 */
final class HostBlocks implements Layers.Source, AutoCloseable {
    private final Weights weights;
    private final Function<Weights, Layers.Source> resident;
    private final Layers.Source outside;
    private final BlockSlots slots;
    private final List<Block> blocks = new ArrayList<>();
    private final List<Place> places = new ArrayList<>();
    private final Deque<Runnable> closing = new ArrayDeque<>();
    private final CudaStream copies;

    /**
     * @param weights stay the caller's
     * @param resident gives the tensors of weights as they are computed with
     * @param layouts of all blocks, for these tensors
     * @throws IllegalStateException in one sentence, if the host cannot lock enough memory
     */
    HostBlocks(Weights weights, Function<Weights, Layers.Source> resident, List<BlockLayout> layouts) {
        this.weights = weights;
        this.resident = resident;
        this.outside = resident.apply(weights);
        this.slots = new BlockSlots(layouts.size(), new Queues());
        try {
            for (int slot = 0; slot < BlockSlots.count(layouts.size()); slot++) {
                places.add(own(new Place(largest(layouts, slot)), Place::close));
            }
            for (int number = 0; number < layouts.size(); number++) {
                Place place = places.get(BlockSlots.of(number, layouts.size()));
                blocks.add(own(new Block(layouts.get(number), memory(layouts, number), place), Block::close));
            }
            // The last to be made is the first to be closed: then nothing is on its way any more.
            this.copies = own(CudaStream.open(), CudaStream::close);
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    private static PinnedMemory memory(List<BlockLayout> layouts, int number) {
        try {
            return PinnedMemory.allocate(layouts.get(number).bytes());
        } catch (IllegalStateException e) {
            double all = layouts.stream().mapToLong(BlockLayout::bytes).sum();
            throw new IllegalStateException(
                    String.format(
                            Locale.ROOT,
                            "memory low takes %.1f GB of the host's memory for the blocks' weights, and %s",
                            all / 1e9,
                            e.getMessage()),
                    e);
        }
    }

    /** The bytes of the largest block that has this place. */
    private static long largest(List<BlockLayout> layouts, int slot) {
        return IntStream.range(0, layouts.size())
                .filter(block -> BlockSlots.of(block, layouts.size()) == slot)
                .mapToLong(block -> layouts.get(block).bytes())
                .max()
                .orElseThrow();
    }

    private <P> P own(P part, Consumer<P> close) {
        closing.push(() -> close.accept(part));
        return part;
    }

    /** One of the places on the GPU for which blocks take turns. */
    private static final class Place implements AutoCloseable {
        private final Tensor memory; // [bytes]
        private final CudaStream.Mark arrived;
        private final CudaStream.Mark used;

        Place(long bytes) {
            Placement placement = new Placement(torch.ScalarType.Byte, true);
            this.memory = Tensors.outlive(() -> torch.empty(new long[] {bytes}, placement.options(), null));
            this.arrived = new CudaStream.Mark();
            this.used = new CudaStream.Mark();
            // What had this memory before may be on its way still.
            Tensors.run(() -> CudaStream.current().set(used));
        }

        /** The tensor that lies there. */
        Tensor view(BlockLayout.Place place) {
            return Tensors.outlive(() -> memory.narrow(0, place.offset(), place.bytes())
                    .view(place.dtype())
                    .view(place.dimensions()));
        }

        @Override
        public void close() {
            memory.close();
            arrived.close();
            used.close();
        }
    }

    /** A block in the host's memory, filled tensor by tensor as its layers ask for them the first time. */
    private final class Block implements Layers.Source, AutoCloseable {
        private final BlockLayout layout;
        private final PinnedMemory memory;
        private final Place place;
        private final Map<String, Matrix> views = new HashMap<>();

        Block(BlockLayout layout, PinnedMemory memory, Place place) {
            this.layout = layout;
            this.memory = memory;
            this.place = place;
        }

        @Override
        public Tensor tensor(String name, long... shape) {
            return view(name, source -> Matrix.of(source.tensor(name, shape))).values();
        }

        @Override
        public Tensor stacked(List<String> names, int part, int parts, long... shape) {
            return view(
                            BlockLayout.key(names, part, parts),
                            source -> Matrix.of(source.stacked(names, part, parts, shape)))
                    .values();
        }

        @Override
        public Matrix weights(List<String> names, int part, int parts, long... shape) {
            return view(BlockLayout.key(names, part, parts), source -> source.weights(names, part, parts, shape));
        }

        @Override
        public int headGroups() {
            return outside.headGroups();
        }

        private synchronized Matrix view(String key, Function<Layers.Source, Matrix> load) {
            Matrix known = views.get(key);
            if (known != null) {
                return known;
            }
            BlockLayout.Piece piece = layout.piece(key);
            Tensors.run(() -> {
                try (Weights apart = weights.apart()) {
                    Matrix made = load.apply(resident.apply(apart));
                    fetch(made.values(), piece.values());
                    made.scales()
                            .ifPresent(scales -> fetch(scales, piece.scales().orElseThrow()));
                }
            });
            Matrix view = new Matrix(place.view(piece.values()), piece.scales().map(place::view));
            views.put(key, view);
            return view;
        }

        /** Copies a tensor from the GPU and waits for it. */
        private void fetch(Tensor tensor, BlockLayout.Place there) {
            Tensor dense = tensor.contiguous();
            if (dense.nbytes() != there.bytes()) {
                throw new IllegalStateException(
                        "a tensor of " + dense.nbytes() + " bytes came, expected " + there.bytes());
            }
            CudaStream stream = CudaStream.current();
            stream.copy(memory.at(there.offset()), dense.data_ptr(), there.bytes());
            stream.synchronize();
        }

        @Override
        public void close() {
            views.values().forEach(view -> {
                view.values().close();
                view.scales().ifPresent(Tensor::close);
            });
            memory.close();
        }
    }

    /** Copies are on their own stream, computation on torch's. */
    private final class Queues implements BlockSlots.Queues {
        @Override
        public void copy(int block, int slot) {
            Place place = places.get(slot);
            copies.await(place.used);
            Tensors.run(() -> copies.copy(
                    place.memory.data_ptr(),
                    blocks.get(block).memory.at(0),
                    blocks.get(block).layout.bytes()));
            copies.set(place.arrived);
        }

        @Override
        public void await(int slot) {
            Tensors.run(() -> CudaStream.current().await(places.get(slot).arrived));
        }

        @Override
        public void used(int slot) {
            Tensors.run(() -> CudaStream.current().set(places.get(slot).used));
        }
    }

    @Override
    public Tensor tensor(String name, long... shape) {
        return outside.tensor(name, shape);
    }

    @Override
    public Tensor stacked(List<String> names, int part, int parts, long... shape) {
        return outside.stacked(names, part, parts, shape);
    }

    @Override
    public Matrix weights(List<String> names, int part, int parts, long... shape) {
        return outside.weights(names, part, parts, shape);
    }

    @Override
    public int headGroups() {
        return outside.headGroups();
    }

    @Override
    public Layers.Source block(int number) {
        return blocks.get(number);
    }

    @Override
    public void compute(int number, Runnable work) {
        slots.run(number, work);
    }

    /** The bytes of the places on the GPU. */
    long placeBytes() {
        return places.stream().mapToLong(place -> place.memory.nbytes()).sum();
    }

    @Override
    public void close() {
        while (!closing.isEmpty()) {
            closing.pop().run();
        }
    }
}
