package org.scaledit.transformer;

import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Tensors;

/**
 * {@code y = x Wᵀ + b}, plus a LoRA's {@code (x Aᵀ) Bᵀ} on the rows that its scope reaches. Computes in the precision
 * of its input.
 *
 * @param weight [out, in]
 * @param bias [out]
 */
record Linear(Tensor weight, Tensor bias, Optional<LowRank> lora) {

    /**
     * What LoRAs add to one layer, their scales included.
     *
     * @param down A, [rank, in]
     * @param up scale · B, [out, rank]
     * @param guidanceOnly acts on the rows of guidance tokens alone
     */
    record LowRank(Tensor down, Tensor up, boolean guidanceOnly) {}

    /**
     * @param x [rows, in]
     * @param guidanceRows how many rows, at the end, belong to the guidance stream
     * @return [rows, out]
     */
    Tensor forward(Tensor x, long guidanceRows) {
        return Tensors.scoped(() -> {
            torch.ScalarType precision = x.scalar_type();
            Tensor y = MatrixProduct.linear(x, weight.to(precision), bias.to(precision));
            lora.ifPresent(lora -> {
                long reached = lora.guidanceOnly ? guidanceRows : x.size(0);
                Tensor from = x.narrow(0, x.size(0) - reached, reached);
                Tensor to = y.narrow(0, y.size(0) - reached, reached);
                Tensor down = lora.down.to(precision).t();
                to.addmm_(from.matmul(down), lora.up.to(precision).t());
            });
            return y;
        });
    }
}
