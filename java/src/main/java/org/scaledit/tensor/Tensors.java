package org.scaledit.tensor;

import java.util.Arrays;
import java.util.List;
import java.util.function.Supplier;
import java.util.stream.LongStream;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * Ownership of native tensors, and the few helpers that several packages share.
 *
 * <p>A Java {@link Tensor} is a handle on native memory that the garbage collector does not see. A handle belongs to
 * the innermost {@link PointerScope} that was open when it was made, and is released when that scope closes. In-place
 * operations ({@code add_}) and elements of a {@link TensorVector} are not even handles: they borrow another handle and
 * dangle when it goes.
 */
public final class Tensors {
    private Tensors() {}

    /**
     * Runs {@code body} in a scope of its own: everything that it makes is freed, except its result, which belongs to
     * the caller's scope. A caller without a scope owns the result and closes it. The result may be anything: an own
     * tensor, a view, a tensor of the caller, what an in-place operation returned.
     */
    public static Tensor scoped(Supplier<Tensor> body) {
        return scopedAll(() -> List.of(body.get())).get(0);
    }

    /** {@link #scoped} for several results. */
    @SuppressWarnings("resource") // the results are the caller's
    public static List<Tensor> scopedAll(Supplier<List<Tensor>> body) {
        List<Tensor> results =
                compute(() -> body.get().stream().map(Tensors::keep).toList());
        PointerScope caller = PointerScope.getInnerScope();
        if (caller != null) {
            results.forEach(result -> {
                caller.attach(result);
                result.releaseReference();
            });
        }
        return results;
    }

    /** Runs {@code body} in a scope of its own and frees everything that it made. */
    public static void run(Runnable body) {
        compute(() -> {
            body.run();
            return true;
        });
    }

    /** Runs {@code body} in a scope of its own and frees everything that it made; the result is a plain Java value. */
    @SuppressWarnings("try") // the scope works by being open
    public static <T> T compute(Supplier<T> body) {
        try (PointerScope scope = new PointerScope()) {
            return body.get();
        }
    }

    /** Runs {@code body} without torch noting what gradients would need. */
    @SuppressWarnings("try") // the guard works by being open
    public static void withoutGradients(Runnable body) {
        try (NoGradGuard guard = new NoGradGuard()) {
            body.run();
        }
    }

    /** A handle on the same tensor that no scope releases: whoever keeps it closes it. */
    public static Tensor keep(Tensor tensor) {
        return outlive(() -> new Tensor(tensor));
    }

    /** What {@code make} makes, released by no scope: whoever keeps it closes it. */
    public static <P extends Pointer> P outlive(Supplier<P> make) {
        return compute(() -> make.get().retainReference());
    }

    /**
     * Views of consecutive parts of a tensor, in the caller's scope. Under autograd their gradients are joined once; each of
     * several narrowed views would have one as large as the whole.
     */
    public static List<Tensor> split(Tensor tensor, long axis, long... sizes) {
        TensorVector parts = tensor.split_with_sizes(sizes, axis);
        return LongStream.range(0, sizes.length)
                .mapToObj(part -> new Tensor(parts.get(part)))
                .toList();
    }

    /** A float32 tensor on the CPU with a copy of {@code values}. */
    public static Tensor of(float[] values, long... shape) {
        return scoped(() -> {
            Tensor tensor = torch.empty(shape, Placement.FLOAT32_CPU.options(), null);
            requireCount(values.length, tensor);
            if (values.length > 0) { // there is no memory for none
                tensor.data_ptr_float().put(values);
            }
            return tensor;
        });
    }

    /** An int64 tensor on the CPU with a copy of {@code values}. */
    public static Tensor of(long[] values, long... shape) {
        return scoped(() -> {
            Tensor tensor = torch.empty(shape, new TensorOptions(torch.ScalarType.Long), null);
            requireCount(values.length, tensor);
            if (values.length > 0) { // there is no memory for none
                tensor.data_ptr_long().put(values);
            }
            return tensor;
        });
    }

    /** The values of a tensor of any dtype and device, row by row, as float32. */
    public static float[] floats(Tensor tensor) {
        return compute(() -> {
            Tensor plain = toFloat32(tensor).cpu().contiguous();
            float[] values = new float[Math.toIntExact(plain.numel())];
            plain.data_ptr_float().get(values);
            return values;
        });
    }

    /** The values of an integer tensor on any device, row by row. */
    public static long[] longs(Tensor tensor) {
        return compute(() -> {
            Tensor plain = tensor.to(torch.ScalarType.Long).cpu().contiguous();
            long[] values = new long[Math.toIntExact(plain.numel())];
            plain.data_ptr_long().get(values);
            return values;
        });
    }

    /** The tensor in float32; itself if it is float32 already. */
    public static Tensor toFloat32(Tensor tensor) {
        return tensor.to(torch.ScalarType.Float);
    }

    /** The tensors one after the other along {@code dimension}. */
    public static Tensor concatenate(long dimension, Tensor... tensors) {
        return scoped(() -> torch.cat(new TensorVector(tensors), dimension));
    }

    /** The tensor as an optional argument of an operator. */
    public static TensorOptional optional(Tensor tensor) {
        return new TensorOptional(tensor);
    }

    /** An optional argument of an operator that is not given. */
    public static TensorOptional none() {
        return new TensorOptional();
    }

    /** The shape for a message: "[3072, 64]". */
    public static String shape(Tensor tensor) {
        return Arrays.toString(tensor.shape());
    }

    private static void requireCount(long count, Tensor tensor) {
        if (count != tensor.numel()) {
            throw new IllegalArgumentException(
                    count + " values given for a tensor of shape " + shape(tensor) + ", expected " + tensor.numel());
        }
    }
}
