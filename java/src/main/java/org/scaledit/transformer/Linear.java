package org.scaledit.transformer;

import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Tensors;

/**
 * {@code y = x Wᵀ + b}, plus LoRAs' {@code (x Aᵀ) Bᵀ} on the rows that their scope reaches. Computes in the precision of
 * its input; a layer in FP8 takes an input in FP8. One layer of the checkpoint, or several with the same input, their
 * outputs side by side.
 *
 * @param weight [out, in]
 * @param bias [out]
 * @param loras of each layer of the checkpoint that has any
 */
record Linear(Matrix weight, Tensor bias, List<LowRank> loras) {

    /**
     * What LoRAs add to one layer.
     *
     * @param down A, [rank, in]
     * @param up B, [columns, rank]
     * @param scale of their product
     * @param guidanceOnly acts on the rows of guidance tokens alone
     * @param firstColumn of the output's columns to which it adds
     */
    record LowRank(Tensor down, Tensor up, double scale, boolean guidanceOnly, long firstColumn) {

        /** Adds to y [rows, out] what it makes of the columns of x [rows, part of in] that begin at {@code firstInput}. */
        private void add(Matrix x, long firstInput, Tensor y, long guidanceRows) {
            torch.ScalarType precision = y.scalar_type();
            long reached = guidanceOnly ? guidanceRows : x.rows();
            Tensor from = x.rows(x.rows() - reached, reached).plain(precision);
            Tensor to = y.narrow(0, y.size(0) - reached, reached).narrow(1, firstColumn, up.size(0));
            Tensor part = down.narrow(1, firstInput, x.columns()).to(precision);
            to.addmm_(from.matmul(part.t()), up.to(precision).t(), new Scalar(1), new Scalar(scale));
        }
    }

    long out() {
        return weight.rows();
    }

    /** {@link #forward(Matrix, long)} of an input as it is. */
    Tensor forward(Tensor x, long guidanceRows) {
        return forward(Matrix.of(x), guidanceRows);
    }

    /**
     * @param x [rows, in]
     * @param guidanceRows how many rows, at the end, belong to the guidance stream
     * @return [rows, out]
     */
    Tensor forward(Matrix x, long guidanceRows) {
        return Tensors.scoped(() -> {
            Tensor y = MatrixProduct.linear(x, weightFor(x), biasFor(x));
            addLoras(x, 0, y, guidanceRows);
            return y;
        });
    }

    /** The same, written into y: [rows, out] */
    void forward(Matrix x, long guidanceRows, Tensor y) {
        Tensors.run(() -> {
            MatrixProduct.linearInto(x, weightFor(x), biasFor(x), y);
            addLoras(x, 0, y, guidanceRows);
        });
    }

    /**
     * The same of an input whose columns come in one part, or in two that are not in FP8.
     *
     * @param parts [rows, its part of in] each
     */
    Tensor forward(List<Matrix> parts, long guidanceRows) {
        if (parts.size() == 1) {
            return forward(parts.get(0), guidanceRows);
        }
        Matrix left = parts.get(0);
        Matrix right = parts.get(1);
        return Tensors.scoped(() -> {
            Tensor y = MatrixProduct.linearOfParts(
                    left.values(), right.values(), weightFor(left).values(), biasFor(left));
            addLoras(left, 0, y, guidanceRows);
            addLoras(right, left.columns(), y, guidanceRows);
            return y;
        });
    }

    /** The same of a batch by torch's own product, whose gradients autograd finds: […, in] → […, out] */
    Tensor batched(Tensor x) {
        return Tensors.scoped(
                () -> torch.linear(x, weightFor(Matrix.of(x)).values(), Tensors.optional(biasFor(Matrix.of(x)))));
    }

    /** The same of layers with one input, their outputs side by side, in one product: […, in] → […, all their outputs] */
    static Tensor batched(List<Linear> layers, Tensor x) {
        Matrix input = Matrix.of(x);
        return Tensors.scoped(() -> torch.linear(
                x,
                Tensors.concatenate(
                        0,
                        layers.stream()
                                .map(layer -> layer.weightFor(input).values())
                                .toArray(Tensor[]::new)),
                Tensors.optional(Tensors.concatenate(
                        0, layers.stream().map(layer -> layer.biasFor(input)).toArray(Tensor[]::new)))));
    }

    /** GELU, in its tanh form, of what {@link #forward(Tensor, long)} gives: [rows, in] → [rows, out] */
    Tensor gelu(Tensor x, long guidanceRows) {
        Matrix input = Matrix.of(x);
        return Tensors.scoped(() -> loras.isEmpty()
                ? MatrixProduct.linearGelu(x, weightFor(input).values(), biasFor(input))
                : torch.gelu_(forward(input, guidanceRows), "tanh"));
    }

    private Matrix weightFor(Matrix x) {
        return weight.isQuantised()
                ? weight
                : Matrix.of(weight.values().to(x.values().scalar_type()));
    }

    private Tensor biasFor(Matrix x) {
        return weight.isQuantised() ? bias : bias.to(x.values().scalar_type());
    }

    private void addLoras(Matrix x, long firstInput, Tensor y, long guidanceRows) {
        loras.forEach(lora -> lora.add(x, firstInput, y, guidanceRows));
    }
}
