package org.scaledit.tensor;

import java.util.Optional;
import org.bytedeco.cuda.cudart.cudaDeviceProp;
import org.bytedeco.pytorch.IValue;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;

/** The linear map of a layer, {@code y = x Wᵀ + b}, the fastest way that the processor has. */
public final class MatrixProduct {
    /**
     * Without AVX-512 torch multiplies bfloat16 at 7 GFLOP/s where float32 has 56 (AVX2, two cores, [512, 3072] by
     * [3072, 3072]): then converting to float32 and back is the faster way.
     */
    private static final boolean SLOW_BFLOAT16 =
            !torch.get_cpu_capability().getString().contains("AVX512");

    /** Rows that are converted at a time: few enough that the copies stay small beside the weight's. */
    private static final long ROWS = 2048;

    /**
     * cuBLASLt has no kernel in FP8 for 16 rows of 3,072 columns, nor for 80 of 256, while it has one for 64 and 128: few rows
     * are multiplied among as many zeros as make them a multiple of 64.
     */
    private static final long FEW_ROWS_IN_FP8 = 1024;

    private static final long ROWS_IN_FP8 = 64;

    /** Bytes: where scales begin that cuBLASLt takes. Those of rows in the midst of a tensor need not. */
    private static final long ALIGNMENT_OF_SCALES = 16;

    private static final int FP8_CAPABILITY = 89;
    private static final int HOPPER = 90;

    /** {@code _addmm_activation(self, mat1, mat2, *, beta, alpha, use_gelu)}: cuBLASLt has bias and GELU in its epilogue. */
    private static final class WithActivation {
        static final Operator OPERATOR = new Operator("aten::_addmm_activation", "");
    }

    /**
     * {@code _scaled_mm(self, mat2, scale_a, scale_b, bias, scale_result, out_dtype, use_fast_accum, *, out)}: with a scale
     * for each row of the one and each column of the other, which must lie column by column.
     */
    private static final class Scaled {
        static final Operator OPERATOR = new Operator("aten::_scaled_mm", "out");
    }

    private MatrixProduct() {}

    /**
     * Makes sure that the first GPUs multiply FP8.
     *
     * @param gpus how many
     * @throws UnsupportedOperationException in one sentence, if one does not
     */
    public static void requireFp8(int gpus) {
        for (int gpu = 0; gpu < gpus; gpu++) {
            byte number = (byte) gpu;
            Tensors.run(() -> {
                int capability = capability(number);
                if (capability < FP8_CAPABILITY) {
                    throw new UnsupportedOperationException(
                            "precision fp8 needs a GPU of compute capability 8.9 or later, "
                                    + torch_cuda
                                            .getDeviceProperties(number)
                                            .name()
                                            .getString() + " has "
                                    + capability / 10 + "." + capability % 10);
                }
            });
        }
    }

    /** Whether the first GPU multiplies FP8. */
    public static boolean hasFp8() {
        return capability((byte) 0) >= FP8_CAPABILITY;
    }

    /** A GPU's, 90 for 9.0. */
    private static int capability(byte gpu) {
        return Tensors.compute(() -> {
            cudaDeviceProp properties = torch_cuda.getDeviceProperties(gpu);
            return 10 * properties.major() + properties.minor();
        });
    }

    /**
     * {@link #linear(Tensor, Tensor, Tensor)} of matrices which are both in FP8 or both not. Those in FP8 are on a GPU; their product is bfloat16.
     *
     * @param x {@code [rows, in]}
     * @param weight {@code [out, in]}
     * @param bias {@code [out]}; in bfloat16 beside FP8
     */
    public static Tensor linear(Matrix x, Matrix weight, Tensor bias) {
        if (!x.isQuantised()) {
            return linear(x.values(), weight.values(), bias);
        }
        return Tensors.scoped(() -> {
            Tensor y = torch.empty(new long[] {x.rows(), weight.rows()}, bias.options(), null);
            scaled(x, weight, new IValue(bias), y);
            return y;
        });
    }

    /** The same, written into y: {@code [rows, out]}; for matrices in FP8 contiguous. */
    public static void linearInto(Matrix x, Matrix weight, Tensor bias, Tensor y) {
        if (x.isQuantised()) {
            scaled(x, weight, new IValue(bias), y);
        } else {
            linearInto(x.values(), weight.values(), bias, y);
        }
    }

    /** Whether this GPU can {@link #addInto}: Hopper alone. */
    public static boolean addsInFp8() {
        return AddsInFp8.HERE;
    }

    /** Asked for when it is first needed, as it needs a GPU. */
    private static final class AddsInFp8 {
        static final boolean HERE = capability((byte) 0) == HOPPER;
    }

    /**
     * {@code y += x Wᵀ + b} of matrices in FP8, summed in float32 and rounded once.
     *
     * @param x {@code [rows, in]}
     * @param weight {@code [out, in]}
     * @param bias {@code [out]}, bfloat16
     * @param y {@code [rows, out]}, bfloat16
     * @return whether it has been added: cuBLASLt does not have it for every size, and then nothing has happened
     */
    public static boolean addInto(Matrix x, Matrix weight, Tensor bias, Tensor y) {
        return CublasLt.addInto(x, weight, bias, y);
    }

    /** {@code x Wᵀ} without a bias, written into y: {@code [rows, out]}, contiguous. */
    public static void bare(Matrix x, Matrix weight, Tensor y) {
        if (x.isQuantised()) {
            scaled(x, weight, new IValue(), y);
        } else {
            Tensors.run(() -> torch.mm_out(y, x.values(), weight.values().t()));
        }
    }

    private static void scaled(Matrix x, Matrix weight, IValue bias, Tensor y) {
        long rows = (x.rows() + ROWS_IN_FP8 - 1) / ROWS_IN_FP8 * ROWS_IN_FP8;
        if (x.rows() == rows || x.rows() >= FEW_ROWS_IN_FP8) {
            scaledRows(x, weight, bias, y);
            return;
        }
        Tensors.run(() -> {
            Tensor values =
                    torch.zeros(new long[] {rows, x.columns()}, x.values().options());
            Tensor scales =
                    torch.ones(new long[] {rows, 1}, x.scales().orElseThrow().options());
            values.narrow(0, 0, x.rows()).copy_(x.values());
            scales.narrow(0, 0, x.rows()).copy_(x.scales().orElseThrow());
            Tensor all = torch.empty(new long[] {rows, y.size(1)}, y.options(), null);
            scaledRows(new Matrix(values, Optional.of(scales)), weight, bias, all);
            y.copy_(all.narrow(0, 0, x.rows()));
        });
    }

    /** A matrix's scales, copied if they begin where cuBLASLt does not take them; in the caller's scope. */
    static Tensor alignedScales(Matrix x) {
        Tensor scales = x.scales().orElseThrow();
        return scales.data_ptr().address() % ALIGNMENT_OF_SCALES == 0 ? scales : scales.clone();
    }

    private static void scaledRows(Matrix x, Matrix weight, IValue bias, Tensor y) {
        Tensors.run(() -> Scaled.OPERATOR.call(
                new IValue(x.values()),
                new IValue(weight.values().t()),
                new IValue(alignedScales(x)),
                new IValue(weight.scales().orElseThrow().reshape(1, -1)),
                bias,
                new IValue(),
                new IValue(torch.ScalarType.BFloat16),
                new IValue(true),
                new IValue(y)));
    }

    /**
     * @param x {@code [rows, in]}
     * @param weight {@code [out, in]}, in the dtype of x
     * @param bias {@code [out]}, likewise
     * @return {@code [rows, out]}, likewise, in the caller's scope
     */
    public static Tensor linear(Tensor x, Tensor weight, Tensor bias) {
        boolean bfloat16 = x.scalar_type().intern() == torch.ScalarType.BFloat16;
        return bfloat16 && !x.is_cuda() && SLOW_BFLOAT16
                ? throughFloat32(x, weight, bias, ROWS)
                : Tensors.scoped(() -> torch.linear(x, weight, Tensors.optional(bias)));
    }

    /**
     * The same, written into a tensor that there is already. Where autograd goes through x, it is copied there: torch has no
     * gradients for products that are written in place.
     *
     * @param y {@code [rows, out]}; may be a strided view
     */
    public static void linearInto(Tensor x, Tensor weight, Tensor bias, Tensor y) {
        Tensors.run(() -> {
            if (x.is_cuda() && !x.requires_grad()) {
                torch.linear_out(y, x, weight, Tensors.optional(bias));
            } else {
                y.copy_(linear(x, weight, bias));
            }
        });
    }

    /**
     * The same of an input whose columns come in two parts. On a GPU no tensor of both is made.
     *
     * @param left {@code [rows, in of the left]}
     * @param right {@code [rows, in of the right]}
     * @param weight {@code [out, in of both]}
     */
    public static Tensor linearOfParts(Tensor left, Tensor right, Tensor weight, Tensor bias) {
        return Tensors.scoped(() -> {
            if (!left.is_cuda()) {
                return linear(Tensors.concatenate(1, left, right), weight, bias);
            }
            long in = left.size(1);
            Tensor y = linear(left, weight.narrow(1, 0, in), bias);
            return y.addmm_(right, weight.narrow(1, in, right.size(1)).t());
        });
    }

    /** {@code gelu(x Wᵀ + b)}, GELU in its tanh form. */
    public static Tensor linearGelu(Tensor x, Tensor weight, Tensor bias) {
        if (x.requires_grad()) { // GELU's gradient needs what goes into it
            return Tensors.scoped(() -> torch.gelu(linear(x, weight, bias), "tanh"));
        }
        return Tensors.scoped(
                () -> x.is_cuda() ? withGelu(x, weight, bias) : torch.gelu_(linear(x, weight, bias), "tanh"));
    }

    /** The product with bias and GELU in its epilogue. */
    static Tensor withGelu(Tensor x, Tensor weight, Tensor bias) {
        return Tensors.scoped(() -> {
            IValue one = new IValue(new Scalar(1));
            return WithActivation.OPERATOR.call(
                    new IValue(bias), new IValue(x), new IValue(weight.t()), one, one, new IValue(true));
        });
    }

    /** The same as {@link #linear(Tensor, Tensor, Tensor)}, multiplied and summed in float32 and rounded once at the end. */
    static Tensor throughFloat32(Tensor x, Tensor weight, Tensor bias, long rows) {
        return Tensors.scoped(() -> {
            Tensor wideWeight = Tensors.toFloat32(weight);
            Tensor wideBias = Tensors.toFloat32(bias);
            Tensor y = torch.empty(new long[] {x.size(0), weight.size(0)}, x.options(), null);
            for (long first = 0; first < x.size(0); first += rows) {
                long from = first;
                long count = Math.min(rows, x.size(0) - first);
                Tensors.run(() -> {
                    Tensor wide = Tensors.toFloat32(x.narrow(0, from, count));
                    y.narrow(0, from, count).copy_(torch.linear(wide, wideWeight, Tensors.optional(wideBias)));
                });
            }
            return y;
        });
    }
}
