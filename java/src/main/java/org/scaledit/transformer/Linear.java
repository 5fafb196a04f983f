package org.scaledit.transformer;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Tensors;

/**
 * {@code y = x Wᵀ + b}, plus LoRAs' {@code (x Aᵀ) Bᵀ} on the rows that their scope reaches. Computes in the precision of
 * its input. One layer of the checkpoint, or several with the same input, their outputs side by side.
 *
 * @param weight [out, in]
 * @param bias [out]
 * @param loras of each layer of the checkpoint that has any
 */
record Linear(Tensor weight, Tensor bias, List<LowRank> loras) {

    /**
     * What LoRAs add to one layer, their scales included.
     *
     * @param down A, [rank, in]
     * @param up scale · B, [columns, rank]
     * @param guidanceOnly acts on the rows of guidance tokens alone
     * @param firstColumn of the output's columns to which it adds
     */
    record LowRank(Tensor down, Tensor up, boolean guidanceOnly, long firstColumn) {

        /** Adds to y [rows, out] what it makes of the columns of x [rows, part of in] that begin at {@code firstInput}. */
        private void add(Tensor x, long firstInput, Tensor y, long guidanceRows) {
            torch.ScalarType precision = x.scalar_type();
            long reached = guidanceOnly ? guidanceRows : x.size(0);
            Tensor from = x.narrow(0, x.size(0) - reached, reached);
            Tensor to = y.narrow(0, y.size(0) - reached, reached).narrow(1, firstColumn, up.size(0));
            Tensor part = down.narrow(1, firstInput, x.size(1)).to(precision);
            to.addmm_(from.matmul(part.t()), up.to(precision).t());
        }
    }

    long out() {
        return weight.size(0);
    }

    /**
     * @param x [rows, in]
     * @param guidanceRows how many rows, at the end, belong to the guidance stream
     * @return [rows, out]
     */
    Tensor forward(Tensor x, long guidanceRows) {
        return Tensors.scoped(() -> {
            torch.ScalarType precision = x.scalar_type();
            Tensor y = MatrixProduct.linear(x, weight.to(precision), bias.to(precision));
            addLoras(x, 0, y, guidanceRows);
            return y;
        });
    }

    /** The same, written into y: [rows, out], which may be a strided view */
    void forward(Tensor x, long guidanceRows, Tensor y) {
        Tensors.run(() -> {
            torch.ScalarType precision = x.scalar_type();
            MatrixProduct.linearInto(x, weight.to(precision), bias.to(precision), y);
            addLoras(x, 0, y, guidanceRows);
        });
    }

    /** The same of an input in two parts, [rows, left in] and [rows, right in] → [rows, out] */
    Tensor forward(Tensor left, Tensor right, long guidanceRows) {
        return Tensors.scoped(() -> {
            torch.ScalarType precision = left.scalar_type();
            Tensor y = MatrixProduct.linearOfParts(left, right, weight.to(precision), bias.to(precision));
            addLoras(left, 0, y, guidanceRows);
            addLoras(right, left.size(1), y, guidanceRows);
            return y;
        });
    }

    /** GELU, in its tanh form, of what {@link #forward(Tensor, long)} gives: [rows, in] → [rows, out] */
    Tensor gelu(Tensor x, long guidanceRows) {
        return Tensors.scoped(() -> {
            torch.ScalarType precision = x.scalar_type();
            return loras.isEmpty()
                    ? MatrixProduct.linearGelu(x, weight.to(precision), bias.to(precision))
                    : torch.gelu_(forward(x, guidanceRows), "tanh");
        });
    }

    private void addLoras(Tensor x, long firstInput, Tensor y, long guidanceRows) {
        loras.forEach(lora -> lora.add(x, firstInput, y, guidanceRows));
    }
}
