package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.javacpp.SizeTPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.bindings.AttentionArguments;
import org.scaledit.bindings.TensorView;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Attention by the native core on the CPU: only the tiles that the geometry lists are computed. Takes float32 and
 * bfloat16 tensors in the geometry's order, head sizes 64 and 128. Used by one thread at a time.
 */
public final class NativeAttention implements Attention {

    /** How the core multiplies. */
    public enum Arithmetic {
        /** Exact to float32 rounding. */
        FLOAT32,
        /** Query and key in INT8, softmax in float32, its weights and the values in 13 bits: cosine 0.9999 to the exact. */
        INT8
    }

    /** One thread for each processor. */
    private static final int ALL_PROCESSORS = 0;

    private static final TensorOptions BYTES = new Placement(torch.ScalarType.Byte, false).options();

    private final Geometry geometry;
    private final Arithmetic arithmetic;
    private @Nullable Tensor workspace;

    /** The geometry stays the caller's: it must outlive this object. */
    public NativeAttention(Geometry geometry, Arithmetic arithmetic) {
        this.geometry = geometry;
        this.arithmetic = arithmetic;
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return Tensors.scoped(() -> {
            long tokens = geometry.layout().tokens();
            long heads = query.size(1);
            long headDim = query.size(2);
            Tensor output = torch.empty(new long[] {tokens, heads, headDim}, query.options(), null);

            AttentionArguments arguments = new AttentionArguments()
                    .geometry(geometry.handle())
                    .heads((int) heads)
                    .head_dim((int) headDim)
                    .scale((float) (1 / Math.sqrt(headDim)))
                    .arithmetic(
                            switch (arithmetic) {
                                case FLOAT32 -> SCALEDIT_ARITHMETIC_FLOAT32;
                                case INT8 -> SCALEDIT_ARITHMETIC_INT8;
                            })
                    .instruction_set(SCALEDIT_INSTRUCTION_SET_BEST)
                    .threads(ALL_PROCESSORS)
                    .log_sum_exp(null);
            describe(arguments.query(), "query", query, output);
            describe(arguments.key(), "key", key, output);
            describe(arguments.value(), "value", value, output);
            describe(arguments.output(), "output", output, output);

            Tensor room = workspace(arguments);
            arguments.workspace(room.data_ptr()).workspace_bytes(room.numel());
            Status.check(scaledit_attention(arguments));
            return output.view(tokens, heads * headDim);
        });
    }

    /** Fills in where a tensor lies; all of them must be like the output, apart from their strides. */
    private static void describe(TensorView view, String name, Tensor tensor, Tensor output) {
        boolean fits = tensor.dim() == 3
                && tensor.size(0) == output.size(0)
                && tensor.size(1) == output.size(1)
                && tensor.size(2) == output.size(2);
        if (!fits) {
            throw new IllegalArgumentException(name + " has shape " + Tensors.shape(tensor)
                    + ", expected [tokens, heads, head_dim] = " + Tensors.shape(output));
        }
        if (tensor.is_cuda() || tensor.stride(2) != 1) {
            throw new IllegalArgumentException(name + " lies on " + (tensor.is_cuda() ? "a GPU" : "the CPU")
                    + " with stride " + tensor.stride(2) + " along head_dim, expected the CPU and stride 1");
        }
        view.data(tensor.data_ptr())
                .token_stride(tensor.stride(0))
                .head_stride(tensor.stride(1))
                .dtype(dtype(name, tensor));
    }

    private static int dtype(String name, Tensor tensor) {
        return switch (tensor.scalar_type().intern()) {
            case Float -> SCALEDIT_FLOAT32;
            case BFloat16 -> SCALEDIT_BFLOAT16;
            default ->
                throw new IllegalArgumentException(
                        name + " is " + tensor.scalar_type().intern() + ", expected Float or BFloat16");
        };
    }

    /** Room for the core's packed copies, made at the first call and kept. */
    private Tensor workspace(AttentionArguments arguments) {
        SizeTPointer bytes = new SizeTPointer(1);
        Status.check(scaledit_attention_workspace(arguments, bytes));
        Tensor room = workspace;
        if (room == null || room.numel() < bytes.get()) {
            close();
            room = Tensors.keep(torch.empty(new long[] {bytes.get()}, BYTES, null));
            workspace = room;
        }
        return room;
    }

    @Override
    public void close() {
        if (workspace != null) {
            workspace.close();
            workspace = null;
        }
    }
}
