package org.scaledit.checkpoint;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.function.Supplier;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * The weights of a model, loaded one by one to where the model lives. On the CPU in the stored precision a weight
 * shares the memory of the mapped file; to a GPU it goes through page-locked memory.
 */
public final class Weights implements AutoCloseable {
    /** What a root and its views have in common. */
    private record Store(Origin origin, Placement placement, Map<String, Tensor> loaded) {}

    /** Where weights come from. */
    private interface Origin extends AutoCloseable {
        boolean contains(String name);

        /** @throws CheckpointException if there is no such weight or it has another shape */
        void check(String name, long[] expectedShape);

        /** Some rows of the weight in any precision, where the placement is. */
        Tensor rows(String name, long[] shape, long first, long count, Placement placement);

        @Override
        void close();
    }

    private record Stored(Safetensors source) implements Origin {
        @Override
        public boolean contains(String name) {
            return source.contains(name);
        }

        @Override
        public void check(String name, long[] expectedShape) {
            requireFit(source, name, expectedShape);
        }

        @Override
        public Tensor rows(String name, long[] shape, long first, long count, Placement placement) {
            return placement.cuda()
                    ? source.uploadedRows(name, first, count)
                    : source.tensor(name).narrow(0, first, count);
        }

        @Override
        public void close() {
            source.close();
        }
    }

    /** Matrices and biases are normal with this deviation, which keeps the size of what passes through them. */
    private static final double RANDOM_DEVIATION = 0.02;

    private record Random() implements Origin {
        @Override
        public boolean contains(String name) {
            return true;
        }

        @Override
        public void check(String name, long[] expectedShape) {}

        @Override
        public Tensor rows(String name, long[] shape, long first, long count, Placement placement) {
            boolean scaleOfNorm = shape.length == 1 && name.endsWith(".weight");
            long[] ofRows = shape.clone();
            ofRows[0] = count;
            Tensor weight = torch.empty(ofRows, placement.options(), null);
            return weight.normal_(scaleOfNorm ? 1 : 0, RANDOM_DEVIATION, new GeneratorOptional());
        }

        @Override
        public void close() {}
    }

    /** Closing it leaves the other one open. */
    private record Borrowed(Origin lender) implements Origin {
        @Override
        public boolean contains(String name) {
            return lender.contains(name);
        }

        @Override
        public void check(String name, long[] expectedShape) {
            lender.check(name, expectedShape);
        }

        @Override
        public Tensor rows(String name, long[] shape, long first, long count, Placement placement) {
            return lender.rows(name, shape, first, count, placement);
        }

        @Override
        public void close() {}
    }

    /** Tensors that others own. */
    private record Given(Map<String, Tensor> tensors) implements Origin {
        @Override
        public boolean contains(String name) {
            return tensors.containsKey(name);
        }

        @Override
        public void check(String name, long[] expectedShape) {
            Tensor tensor = tensors.get(name);
            if (tensor == null || !Arrays.equals(tensor.shape(), expectedShape)) {
                throw new CheckpointException("tensor " + name + " is "
                        + (tensor == null ? "not given" : "given with shape " + Tensors.shape(tensor)) + ", expected "
                        + Arrays.toString(expectedShape));
            }
        }

        @Override
        public Tensor rows(String name, long[] shape, long first, long count, Placement placement) {
            return Objects.requireNonNull(tensors.get(name)).narrow(0, first, count);
        }

        @Override
        public void close() {}
    }

    private static final String VALUES = " in FP8";
    private static final String SCALES = " in FP8, scales";

    private final Store store;
    private final String prefix;

    private Weights(Store store, String prefix) {
        this.store = store;
        this.prefix = prefix;
    }

    /** Weights that own {@code source}: {@link #close} closes it. */
    public static Weights of(Safetensors source, Placement placement) {
        return new Weights(new Store(new Stored(source), placement, new HashMap<>()), "");
    }

    /**
     * Weights that are there already, such as those in training: {@link #load} gives these tensors themselves, which stay
     * their owner's.
     *
     * @param given where the placement says, in its precision
     */
    public static Weights of(Map<String, Tensor> given, Placement placement) {
        Map<String, Tensor> loaded = new HashMap<>();
        given.forEach((name, tensor) -> loaded.put(name, Tensors.keep(tensor)));
        return new Weights(new Store(new Given(Map.copyOf(given)), placement, loaded), "");
    }

    /** Random weights of every name and shape that is asked for, made where they live: to measure speed with. */
    public static Weights random(Placement placement) {
        return new Weights(new Store(new Random(), placement, new HashMap<>()), "");
    }

    /** The weights whose names begin with {@code prefix} and a dot; closing it closes all. */
    public Weights at(String prefix) {
        return new Weights(store, this.prefix + prefix + ".");
    }

    /** The same weights for a while: closing these frees what was loaded through them, and closes no file. */
    public Weights apart() {
        return new Weights(new Store(new Borrowed(store.origin), store.placement, new HashMap<>()), prefix);
    }

    public boolean contains(String name) {
        return store.origin.contains(prefix + name);
    }

    /** Where the weights live, and in which precision. */
    public Placement placement() {
        return store.placement;
    }

    /**
     * A weight in the placement's precision and device. It is owned by this object: callers never close it.
     *
     * @throws CheckpointException if it is missing or has another shape
     * @throws CancellationException if it is not loaded yet and the thread is interrupted, which takes note of it
     */
    public Tensor load(String name, long... expectedShape) {
        return loaded(prefix + name, () -> store.placement.place(rows(name, expectedShape, 0, expectedShape[0])));
    }

    /**
     * Parts of several weights of one shape in one tensor, one below the other: of each the {@code part}-th of {@code
     * parts} equal parts of its rows. Owned by this object as well.
     *
     * @throws CheckpointException if one of them is missing or has another shape
     * @throws CancellationException likewise
     */
    public Tensor loadStacked(List<String> names, int part, int parts, long... expectedShape) {
        return loaded(key(names, part, parts), () -> stacked(names, part, parts, store.placement, expectedShape));
    }

    private String key(List<String> names, int part, int parts) {
        return prefix + String.join(" + " + prefix, names) + " " + (part + 1) + "/" + parts;
    }

    private Tensor stacked(List<String> names, int part, int parts, Placement placement, long[] expectedShape) {
        return Tensors.scoped(() -> {
            long rows = expectedShape[0] / parts;
            long[] shape = expectedShape.clone();
            shape[0] = names.size() * rows;
            Tensor stacked = torch.empty(shape, placement.options(), null);
            for (int i = 0; i < names.size(); i++) {
                stacked.narrow(0, i * rows, rows).copy_(rows(names.get(i), expectedShape, part * rows, rows));
            }
            return stacked;
        });
    }

    /**
     * The same in FP8 with a scale for each row, quantised in float32 from what is stored: the placement's precision does not
     * come between.
     *
     * @throws CheckpointException likewise
     * @throws CancellationException likewise
     */
    public Matrix loadQuantised(List<String> names, int part, int parts, long... expectedShape) {
        String key = key(names, part, parts);
        synchronized (store.loaded) {
            if (!store.loaded.containsKey(key + VALUES)) {
                Tensors.run(() -> {
                    Placement wide = store.placement.with(torch.ScalarType.Float);
                    Matrix quantised = Matrix.quantised(stacked(names, part, parts, wide, expectedShape));
                    store.loaded.put(key + VALUES, Tensors.keep(quantised.values()));
                    store.loaded.put(
                            key + SCALES, Tensors.keep(quantised.scales().orElseThrow()));
                });
            }
            return new Matrix(
                    Objects.requireNonNull(store.loaded.get(key + VALUES)),
                    Optional.of(Objects.requireNonNull(store.loaded.get(key + SCALES))));
        }
    }

    private Tensor loaded(String key, Supplier<Tensor> make) {
        synchronized (store.loaded) {
            return store.loaded.computeIfAbsent(key, absent -> Tensors.outlive(() -> new Tensor(make.get())));
        }
    }

    /** As they come, of a weight with the shape that it must have. */
    private Tensor rows(String name, long[] expectedShape, long first, long count) {
        if (Thread.interrupted()) {
            throw new CancellationException("loading the weights was cancelled");
        }
        store.origin.check(prefix + name, expectedShape);
        return store.origin.rows(prefix + name, expectedShape, first, count, store.placement);
    }

    /** The bytes that the loaded weights take up, where they live. */
    public long loadedBytes() {
        synchronized (store.loaded) {
            return store.loaded.values().stream().mapToLong(Tensor::nbytes).sum();
        }
    }

    /**
     * Compares a model with what it should consist of, by the headers alone: no data is read.
     *
     * @throws CheckpointException that names a tensor which is missing, or left over, or has another shape, or no scales
     */
    public static void check(Safetensors source, Map<String, long[]> expected) {
        expected.forEach((name, shape) -> requireFit(source, name, shape));
        List<String> extra = source.names().stream()
                .filter(name -> !expected.containsKey(name))
                .toList();
        if (!extra.isEmpty()) {
            throw new CheckpointException("tensor " + extra.get(0) + " in "
                    + source.info(extra.get(0)).file() + " belongs to nothing in this model"
                    + (extra.size() == 1 ? "" : ", nor do " + (extra.size() - 1) + " others"));
        }
    }

    private static void requireFit(Safetensors source, String name, long[] expected) {
        TensorInfo info = source.info(name);
        if (!info.hasShape(expected)) {
            throw new CheckpointException("tensor " + info.name() + " in " + info.file() + " has shape " + info.shape()
                    + ", expected " + Arrays.toString(expected));
        }
        if (info.dtype() == Dtype.I8 && !source.isQuantised(name)) {
            throw new CheckpointException("tensor " + name + " in " + info.file()
                    + " is in INT8 without scales, expected " + Int8Rows.scalesOf(name) + " beside it");
        }
    }

    /** Frees the weights and closes the file they came from. */
    @Override
    public void close() {
        synchronized (store.loaded) {
            store.loaded.values().forEach(Tensor::close);
            store.loaded.clear();
        }
        store.origin.close();
    }
}
