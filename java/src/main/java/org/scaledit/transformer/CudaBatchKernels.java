package org.scaledit.transformer;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Preparation;
import org.scaledit.bindings.CudaBatchAddGatedArguments;
import org.scaledit.bindings.CudaBatchAddGatedGradientArguments;
import org.scaledit.bindings.CudaBatchModulateArguments;
import org.scaledit.bindings.CudaBatchModulateGradientArguments;
import org.scaledit.bindings.CudaBatchNormAndRotateArguments;
import org.scaledit.bindings.CudaBatchNormAndRotateGradientArguments;
import org.scaledit.bindings.CudaGeluGradientArguments;
import org.scaledit.bindings.CudaJoinGeluArguments;
import org.scaledit.bindings.MatrixView;
import org.scaledit.bindings.PictureGradients;
import org.scaledit.bindings.PictureVectors;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.CoreViews;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** The native core's, on an NVIDIA GPU: bfloat16 in memory and float32 in between. Queued on torch's current stream. */
final class CudaBatchKernels implements BatchKernels {
    /** In which the gradient of a norm is summed: eight blocks for each multiprocessor of a Hopper. */
    private static final int NORM_PARTS = 1056;

    /** Blocks of a kernel that sums the gradients of modulations: from 2,000 on they end at nearly the same time. */
    private static final long BLOCKS = 4096;

    /** Of a block: with fewer it pays for its beginning and end. */
    private static final long LEAST_ROWS = 16;

    /** That a row has at most where it goes through GELU, with attention's output beside it. */
    private static final long MOST_CHANNELS = 16_384;

    /** Whether there are kernels for a model of these sizes. */
    static boolean take(FluxConfig config) {
        return (config.headDim() == 64 || config.headDim() == 128)
                && config.width() + config.mlpWidth() <= MOST_CHANNELS;
    }

    @Override
    public long gradientParts(long batch, long rows) {
        return Math.max(1, Math.min(BLOCKS / batch, rows / LEAST_ROWS));
    }

    @Override
    public Tensor modulated(Tensor hidden, Tensor shift, Tensor scale) {
        Tensor output = empty(hidden, hidden.size(2));
        Tensors.run(() -> {
            CudaBatchModulateArguments arguments = new CudaBatchModulateArguments()
                    .rows(rows(hidden))
                    .picture_rows(hidden.size(1))
                    .width((int) hidden.size(2))
                    .epsilon((float) TokenWise.EPSILON);
            arguments.stream(Cuda.currentStream());
            describe(hidden, arguments.hidden());
            describe(shift, arguments.shift());
            describe(scale, arguments.scale());
            describe(output, arguments.output());
            Status.check(scaledit_cuda_batch_modulate(arguments));
        });
        return output;
    }

    @Override
    public void modulatedGradient(
            Tensor hidden,
            Tensor scale,
            Tensor gradient,
            Tensor hiddenGradient,
            boolean adds,
            Tensor shiftGradient,
            Tensor scaleGradient) {
        Tensors.run(() -> {
            CudaBatchModulateGradientArguments arguments = new CudaBatchModulateGradientArguments()
                    .rows(rows(hidden))
                    .picture_rows(hidden.size(1))
                    .width((int) hidden.size(2))
                    .parts((int) (shiftGradient.size(0) / hidden.size(0)))
                    .adds(adds ? 1 : 0)
                    .epsilon((float) TokenWise.EPSILON);
            arguments.stream(Cuda.currentStream());
            describe(hidden, arguments.hidden());
            describe(scale, arguments.scale());
            describe(gradient, arguments.output_gradient());
            describe(hiddenGradient, arguments.hidden_gradient());
            describe(shiftGradient, arguments.shift_gradient());
            describe(scaleGradient, arguments.scale_gradient());
            Status.check(scaledit_cuda_batch_modulate_gradient(arguments));
        });
    }

    @Override
    public Tensor gated(Tensor hidden, Tensor update, Tensor gate) {
        Tensor output = empty(hidden, hidden.size(2));
        Tensors.run(() -> {
            CudaBatchAddGatedArguments arguments = new CudaBatchAddGatedArguments()
                    .rows(rows(hidden))
                    .picture_rows(hidden.size(1))
                    .width((int) hidden.size(2));
            arguments.stream(Cuda.currentStream());
            describe(hidden, arguments.hidden());
            describe(update, arguments.update());
            describe(gate, arguments.gate());
            describe(output, arguments.output());
            Status.check(scaledit_cuda_batch_add_gated(arguments));
        });
        return output;
    }

    @Override
    public Tensor gatedGradient(Tensor update, Tensor gate, Tensor gradient, Tensor gateGradient) {
        Tensor output = empty(update, update.size(2));
        Tensors.run(() -> {
            CudaBatchAddGatedGradientArguments arguments = new CudaBatchAddGatedGradientArguments()
                    .rows(rows(update))
                    .picture_rows(update.size(1))
                    .width((int) update.size(2))
                    .parts((int) (gateGradient.size(0) / update.size(0)));
            arguments.stream(Cuda.currentStream());
            describe(update, arguments.update());
            describe(gate, arguments.gate());
            describe(gradient, arguments.output_gradient());
            describe(output, arguments.update_gradient());
            describe(gateGradient, arguments.gate_gradient());
            Status.check(scaledit_cuda_batch_add_gated_gradient(arguments));
        });
        return output;
    }

    @Override
    public void prepared(Tensor stream, Tensor norm, Tensor turns, long first, Tensor sequence) {
        Tensors.run(() -> {
            require(norm, torch.ScalarType.BFloat16);
            int headDim = (int) norm.size(0);
            Preparation.requireTurns(turns, sequence.size(1), headDim);
            CudaBatchNormAndRotateArguments arguments = new CudaBatchNormAndRotateArguments()
                    .rows(rows(stream))
                    .picture_rows(stream.size(1))
                    .sequence_rows(sequence.size(1))
                    .first(first)
                    .heads((int) stream.size(2) / headDim)
                    .head_dim(headDim)
                    .epsilon((float) Preparation.EPSILON)
                    .norm(norm.data_ptr())
                    .rotation(new FloatPointer(turns.data_ptr()));
            arguments.stream(Cuda.currentStream());
            describe(stream, arguments.input());
            describe(sequence, arguments.output());
            Status.check(scaledit_cuda_batch_norm_and_rotate(arguments));
        });
    }

    @Override
    public Tensor preparedGradient(
            Tensor stream, Tensor norm, Tensor turns, long first, Tensor gradient, Tensor streamGradient) {
        return Tensors.scoped(() -> {
            require(norm, torch.ScalarType.BFloat16);
            int headDim = (int) norm.size(0);
            Preparation.requireTurns(turns, gradient.size(1), headDim);
            Tensor ofNorm = torch.empty(
                    new long[] {NORM_PARTS, headDim}, new Placement(torch.ScalarType.Float, true).options(), null);
            CudaBatchNormAndRotateGradientArguments arguments = new CudaBatchNormAndRotateGradientArguments()
                    .rows(rows(stream))
                    .picture_rows(stream.size(1))
                    .sequence_rows(gradient.size(1))
                    .first(first)
                    .heads((int) stream.size(2) / headDim)
                    .head_dim(headDim)
                    .parts(NORM_PARTS)
                    .epsilon((float) Preparation.EPSILON)
                    .norm(norm.data_ptr())
                    .rotation(new FloatPointer(turns.data_ptr()))
                    .norm_gradient(new FloatPointer(ofNorm.data_ptr()));
            arguments.stream(Cuda.currentStream());
            describe(stream, arguments.input());
            describe(gradient, arguments.output_gradient());
            describe(streamGradient, arguments.input_gradient());
            Status.check(scaledit_cuda_batch_norm_and_rotate_gradient(arguments));
            return ofNorm.sum(0);
        });
    }

    @Override
    public Tensor besideGelu(Tensor input, Tensor wide) {
        Tensor output = empty(input, input.size(2) + wide.size(2));
        Tensors.run(() -> {
            CudaJoinGeluArguments arguments = new CudaJoinGeluArguments()
                    .rows(rows(input))
                    .width((int) input.size(2))
                    .gelu_width((int) wide.size(2));
            arguments.stream(Cuda.currentStream());
            describe(input, arguments.input());
            describe(wide, arguments.gelu_input());
            describe(output, arguments.output());
            Status.check(scaledit_cuda_join_gelu(arguments));
        });
        return output;
    }

    @Override
    public void geluGradient(Tensor wide, Tensor gradient, Tensor wideGradient) {
        Tensors.run(() -> {
            CudaGeluGradientArguments arguments =
                    new CudaGeluGradientArguments().rows(rows(wide)).width((int) wide.size(2));
            arguments.stream(Cuda.currentStream());
            describe(wide, arguments.input());
            describe(gradient, arguments.output_gradient());
            describe(wideGradient, arguments.input_gradient());
            Status.check(scaledit_cuda_gelu_gradient(arguments));
        });
    }

    private static Tensor empty(Tensor like, long columns) {
        return torch.empty(
                new long[] {like.size(0), like.size(1), columns},
                new Placement(torch.ScalarType.BFloat16, true).options(),
                null);
    }

    private static long rows(Tensor tokens) {
        return tokens.size(0) * tokens.size(1);
    }

    /** @param tokens [batch, rows, columns] */
    private static void describe(Tensor tokens, MatrixView view) {
        requireEven(tokens, torch.ScalarType.BFloat16);
        CoreViews.describe(tokens, tokens.stride(1), view);
    }

    /** The core knows rows of one distance alone. */
    static void requireEven(Tensor tokens, torch.ScalarType type) {
        require(tokens, type);
        boolean even =
                tokens.stride(2) == 1 && (tokens.size(0) == 1 || tokens.stride(0) == tokens.size(1) * tokens.stride(1));
        if (!even) {
            throw new IllegalArgumentException(
                    "tokens have shape " + Tensors.shape(tokens) + ", and not evenly spaced rows, expected such");
        }
    }

    private static void require(Tensor tensor, torch.ScalarType type) {
        if (tensor.scalar_type().intern() != type) {
            throw new IllegalArgumentException(
                    "a tensor is " + tensor.scalar_type().intern() + ", expected " + type);
        }
    }

    /** @param vectors [batch, columns] */
    private static void describe(Tensor vectors, PictureVectors view) {
        require(vectors, torch.ScalarType.BFloat16);
        view.data(vectors.data_ptr()).stride(vectors.stride(0));
    }

    /** @param gradients [parts * batch, columns], float32 */
    private static void describe(Tensor gradients, PictureGradients view) {
        require(gradients, torch.ScalarType.Float);
        view.data(new FloatPointer(gradients.data_ptr())).stride(gradients.stride(0));
    }
}
