package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.Optional;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.SizeTPointer;
import org.bytedeco.pytorch.Tensor;
import org.jspecify.annotations.Nullable;
import org.scaledit.bindings.AttentionArguments;
import org.scaledit.bindings.AttentionBackwardArguments;
import org.scaledit.bindings.NativeLibrary;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.Tensors;

/**
 * Attention by the native core on the CPU: only the tiles that the geometry lists are computed. Takes float32 and
 * bfloat16 tensors in the geometry's order, head sizes 64 and 128. Gradients are computed in float32. Used by one thread
 * at a time.
 */
public final class NativeAttention implements PartialAttention {

    /** How the core multiplies. */
    public enum Arithmetic {
        /** Exact to float32 rounding. */
        FLOAT32,
        /** Query and key in INT8, softmax in float32, its weights and the values in 13 bits: cosine 0.9999 to the exact. */
        INT8
    }

    /** One thread for each processor. */
    private static final int ALL_PROCESSORS = 0;

    private final Geometry geometry;
    private final Arithmetic arithmetic;
    private final Workspace workspace = new Workspace(false);

    /** The geometry stays the caller's: it must outlive this object. */
    public NativeAttention(Geometry geometry, Arithmetic arithmetic) {
        this.geometry = geometry;
        this.arithmetic = arithmetic;
    }

    /** Whether this processor multiplies bfloat16: without that float32 is the faster precision. */
    public static boolean multipliesBfloat16() {
        NativeLibrary.load();
        return scaledit_multiplies_bfloat16() != 0;
    }

    /** Whether the core, on a CPU or a GPU, is made for heads of this size. */
    public static boolean takesHeadDim(int headDim) {
        return headDim == 64 || headDim == 128;
    }

    /**
     * Refuses heads that the core, on a CPU or a GPU, is not made for.
     *
     * @throws IllegalArgumentException in one sentence
     */
    public static void requireHeadDim(int headDim) {
        if (!takesHeadDim(headDim)) {
            throw new IllegalArgumentException("attention_head_dim of the transformer is " + headDim
                    + ", expected 64 or 128, which the native core is made for, or attention dense");
        }
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return Tensors.scoped(() -> {
            Operands operands = Operands.of(geometry, false, query, key, value);
            compute(operands, null);
            return operands.joined();
        });
    }

    @Override
    public void attend(Tensor query, Tensor key, Tensor value, Preparation preparation, Tensor output) {
        Tensors.run(() -> compute(
                Operands.of(geometry, false, preparation.query(query), preparation.key(key), value, output), null));
    }

    @Override
    public void attend(
            Tensor query, Tensor key, Tensor value, Optional<Preparation> lacking, Tensor output, Tensor logSumExp) {
        Tensors.run(() -> {
            Operands operands = Operands.of(
                    geometry,
                    false,
                    lacking.map(preparation -> preparation.query(query)).orElse(query),
                    lacking.map(preparation -> preparation.key(key)).orElse(key),
                    value,
                    output);
            operands.requireLogSumExp(logSumExp);
            compute(operands, logSumExp.data_ptr_float());
        });
    }

    @Override
    public Attended attendForGradients(Tensor query, Tensor key, Tensor value) {
        Operands operands = Operands.of(geometry, false, query, key, value);
        Tensor logSumExp = operands.logSumExp();
        compute(operands, logSumExp.data_ptr_float());
        return new Attended(operands.output(), logSumExp);
    }

    @Override
    public Gradients gradients(Tensor query, Tensor key, Tensor value, Attended attended, Tensor outputGradient) {
        Operands forward = Operands.of(
                geometry, false, query, key, value, attended.output().flatten(1, 2));
        Operands backward = Operands.ofGradients(geometry, false, query, outputGradient);
        forward.requireLogSumExp(attended.logSumExp());
        Tensors.run(() -> {
            AttentionBackwardArguments arguments = new AttentionBackwardArguments()
                    .geometry(geometry.handle())
                    .heads(forward.heads())
                    .head_dim(forward.headDim())
                    .scale(forward.scale())
                    .instruction_set(SCALEDIT_INSTRUCTION_SET_BEST)
                    .threads(ALL_PROCESSORS)
                    .log_sum_exp(attended.logSumExp().data_ptr_float());
            forward.describe(arguments.query(), arguments.key(), arguments.value(), arguments.output());
            backward.describe(
                    arguments.query_gradient(),
                    arguments.key_gradient(),
                    arguments.value_gradient(),
                    arguments.output_gradient());

            SizeTPointer bytes = new SizeTPointer(1);
            Status.check(scaledit_attention_backward_workspace(arguments, bytes));
            Tensor room = workspace.of(bytes.get());
            arguments.workspace(room.data_ptr()).workspace_bytes(room.numel());
            Status.check(scaledit_attention_backward(arguments));
        });
        return new Gradients(backward.query(), backward.key(), backward.value());
    }

    private void compute(Operands operands, @Nullable FloatPointer logSumExp) {
        Tensors.run(() -> {
            AttentionArguments arguments = new AttentionArguments()
                    .geometry(geometry.handle())
                    .heads(operands.heads())
                    .head_dim(operands.headDim())
                    .scale(operands.scale())
                    .arithmetic(
                            switch (arithmetic) {
                                case FLOAT32 -> SCALEDIT_ARITHMETIC_FLOAT32;
                                case INT8 -> SCALEDIT_ARITHMETIC_INT8;
                            })
                    .instruction_set(SCALEDIT_INSTRUCTION_SET_BEST)
                    .threads(ALL_PROCESSORS)
                    .log_sum_exp(logSumExp);
            operands.describe(arguments.query(), arguments.key(), arguments.value(), arguments.output());

            SizeTPointer bytes = new SizeTPointer(1);
            Status.check(scaledit_attention_workspace(arguments, bytes));
            Tensor room = workspace.of(bytes.get());
            arguments.workspace(room.data_ptr()).workspace_bytes(room.numel());
            Status.check(scaledit_attention(arguments));
        });
    }

    @Override
    public void close() {
        workspace.close();
    }
}
