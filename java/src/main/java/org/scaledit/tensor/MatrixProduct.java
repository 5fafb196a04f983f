package org.scaledit.tensor;

import org.bytedeco.pytorch.IValue;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

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

    /** {@code _addmm_activation(self, mat1, mat2, *, beta, alpha, use_gelu)}: cuBLASLt has bias and GELU in its epilogue. */
    private static final class WithActivation {
        static final Operator OPERATOR = new Operator("aten::_addmm_activation");
    }

    private MatrixProduct() {}

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
     * The same, written into a tensor that there is already.
     *
     * @param y {@code [rows, out]}; may be a strided view
     */
    public static void linearInto(Tensor x, Tensor weight, Tensor bias, Tensor y) {
        Tensors.run(() -> {
            if (x.is_cuda()) {
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
