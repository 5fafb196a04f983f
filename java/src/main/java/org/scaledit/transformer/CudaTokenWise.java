package org.scaledit.transformer;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.bindings.CudaAddGatedArguments;
import org.scaledit.bindings.CudaModulateArguments;
import org.scaledit.bindings.CudaQuantizeArguments;
import org.scaledit.bindings.MatrixView;
import org.scaledit.bindings.ModulationPart;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.CoreViews;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Token-wise work by the native core on an NVIDIA GPU: each kernel reads and writes everything once, bfloat16 in memory
 * and float32 in between. Queued on torch's current stream.
 */
enum CudaTokenWise implements TokenWise {
    /** For products of bfloat16. GELU is in the epilogue of its product. */
    BFLOAT16 {
        @Override
        Matrix room(long rows, long columns) {
            return Matrix.of(empty(torch.ScalarType.BFloat16, rows, columns));
        }
    },
    /** For products in FP8: what they take is written in e4m3, with a scale for each row, and not in bfloat16 at all. */
    FP8 {
        @Override
        Matrix room(long rows, long columns) {
            return new Matrix(
                    empty(torch.ScalarType.Float8_e4m3fn, rows, columns),
                    Optional.of(empty(torch.ScalarType.Float, rows, 1)));
        }

        @Override
        public Matrix attended(Tensor attended) {
            Matrix output = room(attended.size(0), attended.size(1));
            quantise(Optional.of(attended), Optional.empty(), output);
            return output;
        }

        @Override
        public Matrix gelu(Linear mlpIn, Matrix x, long guidanceRows) {
            Matrix output = room(x.rows(), mlpIn.out());
            Tensors.run(() -> quantise(Optional.empty(), Optional.of(mlpIn.forward(x, guidanceRows)), output));
            return output;
        }

        /** One matrix with one scale a row, so that the last product is one. */
        @Override
        public List<Matrix> joined(Tensor attended, Linear mlpIn, Matrix x, long guidanceRows) {
            Matrix output = room(x.rows(), attended.size(1) + mlpIn.out());
            Tensors.run(() -> quantise(Optional.of(attended), Optional.of(mlpIn.forward(x, guidanceRows)), output));
            return List.of(output);
        }
    };

    /** For the input of a product, not yet written, in the caller's scope. */
    abstract Matrix room(long rows, long columns);

    private static Tensor empty(torch.ScalarType type, long rows, long columns) {
        return torch.empty(new long[] {rows, columns}, new Placement(type, true).options(), null);
    }

    @Override
    public Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale) {
        return modulated(hidden, modulation, shift, scale, arguments -> {});
    }

    /** In one pass over the hidden state. */
    @Override
    public Matrix addedAndModulated(Tensor hidden, Tensor y, Modulation modulation, int gate, int shift, int scale) {
        return modulated(hidden, modulation, shift, scale, arguments -> {
            describe(y, arguments.update());
            describe(modulation, gate, arguments.gate());
        });
    }

    /** @param addition describes what is added before the norm, if anything */
    private Matrix modulated(
            Tensor hidden, Modulation modulation, int shift, int scale, Consumer<CudaModulateArguments> addition) {
        Matrix output = room(hidden.size(0), hidden.size(1));
        Tensors.run(() -> {
            // What is not set is zero: nothing is added, and bfloat16 has no scales.
            CudaModulateArguments arguments = new CudaModulateArguments()
                    .rows(hidden.size(0))
                    .guidance_rows(modulation.guidanceRows())
                    .width((int) hidden.size(1))
                    .epsilon((float) EPSILON);
            arguments.stream(Cuda.currentStream());
            describe(hidden, arguments.hidden());
            describe(modulation, shift, arguments.shift());
            describe(modulation, scale, arguments.scale());
            addition.accept(arguments);
            describe(output.values(), arguments.output());
            output.scales().ifPresent(scales -> arguments.output_scale(new FloatPointer(scales.data_ptr())));
            Status.check(scaledit_cuda_modulate(arguments));
        });
        return output;
    }

    @Override
    public void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate) {
        Tensors.run(() -> {
            CudaAddGatedArguments arguments = new CudaAddGatedArguments()
                    .rows(hidden.size(0))
                    .guidance_rows(modulation.guidanceRows())
                    .width((int) hidden.size(1));
            arguments.stream(Cuda.currentStream());
            describe(hidden, arguments.hidden());
            describe(y, arguments.update());
            describe(modulation, gate, arguments.gate());
            Status.check(scaledit_cuda_add_gated(arguments));
        });
    }

    /**
     * Writes {@code [plain, GELU(wide)]}.
     *
     * @param plain [rows, its columns], or nothing
     * @param wide [rows, its columns], or nothing
     * @param output [rows, columns of both], in e4m3
     */
    private static void quantise(Optional<Tensor> plain, Optional<Tensor> wide, Matrix output) {
        Tensors.run(() -> {
            CudaQuantizeArguments arguments = new CudaQuantizeArguments().rows(output.rows());
            arguments.stream(Cuda.currentStream());
            plain.ifPresent(x -> describe(x, arguments.width((int) x.size(1)).input()));
            wide.ifPresent(
                    x -> describe(x, arguments.gelu_width((int) x.size(1)).gelu_input()));
            describe(output.values(), arguments.output());
            arguments.output_scale(
                    new FloatPointer(output.scales().orElseThrow().data_ptr()));
            Status.check(scaledit_cuda_quantize(arguments));
        });
    }

    private static void describe(Tensor x, MatrixView view) {
        CoreViews.describe(x, x.stride(0), view);
    }

    /** Without guidance rows in a call the core takes no parts of theirs, whether there are any or not. */
    private static void describe(Modulation modulation, int part, ModulationPart vectors) {
        vectors.current(modulation.part(part, 0).data_ptr());
        if (modulation.guidanceRows() > 0) {
            vectors.guidance(modulation.part(part, 1).data_ptr());
        }
    }
}
