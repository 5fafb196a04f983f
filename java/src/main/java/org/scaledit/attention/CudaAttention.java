package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.Optional;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.SizeTPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.bindings.CudaAttentionArguments;
import org.scaledit.bindings.CudaAttentionBackwardArguments;
import org.scaledit.bindings.NativeLibrary;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Attention by the native core on an NVIDIA GPU: only the tiles that the geometry lists are computed. Takes bfloat16
 * tensors in the geometry's order, head sizes 64 and 128, and is queued on torch's current stream. Gradients are computed
 * in bfloat16, those of bfloat16 arithmetic alone. Used by one thread at a time.
 */
public final class CudaAttention implements PartialAttention {

    /** How the core multiplies. */
    public enum Arithmetic {
        /** Products of bfloat16, summed in float32. */
        BFLOAT16,
        /**
         * Query and key in INT8, softmax in float32, its weights and the values in FP8: cosine 0.9992 to the exact. Before
         * compute capability 8.9 these are in FP16: 0.9999.
         */
        INT8
    }

    private final Geometry geometry;
    private final Arithmetic arithmetic;
    private final Tensor deviceGeometry; // [bytes], uint8
    private final Workspace workspace = new Workspace(true);

    /**
     * Copies the geometry to the GPU.
     *
     * @param geometry stays the caller's: it must outlive this object
     */
    public CudaAttention(Geometry geometry, Arithmetic arithmetic) {
        this.geometry = geometry;
        this.arithmetic = arithmetic;
        this.deviceGeometry = Tensors.outlive(() -> upload(geometry));
    }

    /**
     * Loads what computes on a GPU, the native core's part and torch's.
     *
     * @throws IllegalStateException in one sentence: which libraries are missing
     * @throws UnsupportedOperationException in one sentence: that there is no GPU, no driver, or no kernel for the GPU
     */
    public static void requireGpu() {
        requireGpus(1);
    }

    /**
     * The same for several GPUs, from the first on.
     *
     * @throws IllegalArgumentException in one sentence, if there are not so many
     */
    public static void requireGpus(int count) {
        Cuda.requireBuild(NativeLibrary.missingGpuArtifact());
        NativeLibrary.load();
        requireSupported(0);
        Cuda.load();
        if (Cuda.count() < count) {
            throw new IllegalArgumentException(
                    "gpus is " + count + ", expected no more than the " + Cuda.count() + " that CUDA finds");
        }
        for (int gpu = 1; gpu < count; gpu++) {
            requireSupported(gpu);
        }
    }

    private static void requireSupported(int gpu) {
        try {
            Status.check(scaledit_cuda_supported(gpu));
        } catch (UnsupportedOperationException e) {
            throw new UnsupportedOperationException(
                    "device cuda cannot be used: " + e.getMessage()
                            + " (needed: an NVIDIA GPU of compute capability 8.0 or later and its driver for CUDA 13)",
                    e);
        }
    }

    private static Tensor upload(Geometry geometry) {
        SizeTPointer bytes = new SizeTPointer(1);
        Status.check(scaledit_cuda_geometry_bytes(geometry.handle(), bytes));
        Placement placement = new Placement(torch.ScalarType.Byte, true);
        Tensor copy = torch.empty(new long[] {bytes.get()}, placement.options(), null);
        Status.check(
                scaledit_cuda_geometry_upload(geometry.handle(), copy.data_ptr(), copy.numel(), Cuda.currentStream()));
        return copy;
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return Tensors.scoped(() -> {
            Operands operands = Operands.of(geometry, true, query, key, value);
            compute(operands, Optional.empty(), null);
            return operands.joined();
        });
    }

    /** In INT8 the core norms and rotates on the way to its packed copies. */
    @Override
    public void attend(Tensor query, Tensor key, Tensor value, Preparation preparation, Tensor output) {
        Tensors.run(() -> attendWith(query, key, value, Optional.of(preparation), output, null));
    }

    @Override
    public void attend(
            Tensor query, Tensor key, Tensor value, Optional<Preparation> lacking, Tensor output, Tensor logSumExp) {
        Tensors.run(() -> attendWith(query, key, value, lacking, output, logSumExp));
    }

    private void attendWith(
            Tensor query,
            Tensor key,
            Tensor value,
            Optional<Preparation> lacking,
            Tensor output,
            @Nullable Tensor logSumExp) {
        Operands.requireOf(geometry, query, key, value);
        boolean apart = lacking.isPresent() && arithmetic == Arithmetic.BFLOAT16;
        Operands operands = Operands.of(
                geometry,
                true,
                apart ? HeadPreparation.ofQueries(lacking.get()).prepared(query) : query,
                apart ? HeadPreparation.ofKeys(lacking.get()).prepared(key) : key,
                value,
                output);
        if (logSumExp != null) {
            operands.requireLogSumExp(logSumExp);
        }
        compute(operands, apart ? Optional.empty() : lacking, logSumExp);
    }

    /** @throws IllegalStateException with INT8: its log-sum-exp is not exact enough to compute weights from */
    @Override
    public Attended attendForGradients(Tensor query, Tensor key, Tensor value) {
        if (arithmetic != Arithmetic.BFLOAT16) {
            throw new IllegalStateException(
                    "gradients of attention in " + arithmetic + " are asked for, expected " + Arithmetic.BFLOAT16);
        }
        Operands operands = Operands.of(geometry, true, query, key, value);
        Tensor logSumExp = operands.logSumExp();
        compute(operands, Optional.empty(), logSumExp);
        return new Attended(operands.output(), logSumExp);
    }

    @Override
    public boolean prepares() {
        return true;
    }

    @Override
    public Attended attendForGradients(Tensor query, Tensor key, Tensor value, Preparation preparation) {
        Operands.requireOf(geometry, query, key, value);
        return attendForGradients(
                HeadPreparation.ofQueries(preparation).prepared(query),
                HeadPreparation.ofKeys(preparation).prepared(key),
                value);
    }

    @Override
    public Gradients gradients(
            Tensor query, Tensor key, Tensor value, Preparation preparation, Attended attended, Tensor outputGradient) {
        Operands.requireOf(geometry, query, key, value);
        HeadPreparation ofQueries = HeadPreparation.ofQueries(preparation);
        HeadPreparation ofKeys = HeadPreparation.ofKeys(preparation);
        Gradients prepared =
                gradients(ofQueries.prepared(query), ofKeys.prepared(key), value, attended, outputGradient);
        return new Gradients(
                ofQueries.gradient(query, prepared.query()), ofKeys.gradient(key, prepared.key()), prepared.value());
    }

    @Override
    public Gradients gradients(Tensor query, Tensor key, Tensor value, Attended attended, Tensor outputGradient) {
        Operands forward =
                Operands.of(geometry, true, query, key, value, attended.output().flatten(1, 2));
        Operands backward = Operands.ofGradients(geometry, true, query, outputGradient);
        forward.requireLogSumExp(attended.logSumExp());
        Tensors.run(() -> {
            CudaAttentionBackwardArguments arguments = new CudaAttentionBackwardArguments()
                            .geometry(geometry.handle())
                            .device_geometry(deviceGeometry.data_ptr())
                            .heads(forward.heads())
                            .head_dim(forward.headDim())
                            .scale(forward.scale())
                            .kernels(SCALEDIT_CUDA_KERNELS_BEST)
                            .log_sum_exp(attended.logSumExp().data_ptr_float())
                            .stream(Cuda.currentStream());
            forward.describe(arguments.query(), arguments.key(), arguments.value(), arguments.output());
            backward.describe(
                    arguments.query_gradient(),
                    arguments.key_gradient(),
                    arguments.value_gradient(),
                    arguments.output_gradient());

            SizeTPointer bytes = new SizeTPointer(1);
            Status.check(scaledit_cuda_attention_backward_workspace(arguments, bytes));
            Tensor room = workspace.of(bytes.get());
            arguments.workspace(room.data_ptr()).workspace_bytes(room.numel());
            Status.check(scaledit_cuda_attention_backward(arguments));
        });
        return new Gradients(backward.query(), backward.key(), backward.value());
    }

    /** @param logSumExp as {@link Operands#logSumExp} makes it, written; or null */
    private void compute(Operands operands, Optional<Preparation> preparation, @Nullable Tensor logSumExp) {
        Tensors.run(() -> {
            // What is not set is zero: no norm and no rotation.
            CudaAttentionArguments arguments = new CudaAttentionArguments()
                            .geometry(geometry.handle())
                            .device_geometry(deviceGeometry.data_ptr())
                            .heads(operands.heads())
                            .head_dim(operands.headDim())
                            .scale(operands.scale())
                            .arithmetic(
                                    switch (arithmetic) {
                                        case BFLOAT16 -> SCALEDIT_ARITHMETIC_BFLOAT16;
                                        case INT8 -> SCALEDIT_ARITHMETIC_INT8;
                                    })
                            .stream(Cuda.currentStream());
            operands.describe(arguments.query(), arguments.key(), arguments.value(), arguments.output());
            preparation.ifPresent(lacking -> describe(lacking, operands, arguments));
            if (logSumExp != null) {
                arguments.log_sum_exp(logSumExp.data_ptr_float());
            }

            SizeTPointer bytes = new SizeTPointer(1);
            Status.check(scaledit_cuda_attention_workspace(arguments, bytes));
            Tensor room = workspace.of(bytes.get());
            arguments.workspace(room.data_ptr()).workspace_bytes(room.numel());
            Status.check(scaledit_cuda_attention(arguments));
        });
    }

    private static void describe(Preparation preparation, Operands operands, CudaAttentionArguments arguments) {
        preparation.requireFor(operands.query().size(0), operands.headDim());
        arguments
                .query_norm(preparation.norms().query().data_ptr())
                .key_norm(preparation.norms().key().data_ptr())
                .norm_epsilon((float) Preparation.EPSILON)
                .rotation(new FloatPointer(preparation.turns().data_ptr()));
        preparation
                .textNorms()
                .ifPresent(ofText -> arguments
                        .text_query_norm(ofText.query().data_ptr())
                        .text_key_norm(ofText.key().data_ptr()));
    }

    @Override
    public void close() {
        workspace.close();
        deviceGeometry.close();
    }
}
