package org.scaledit.evaluation;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.TokenLayout;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.FluxConfig;

/** The bare matrix products of a step's linear layers: what a step would take if everything else were free. */
record MatrixProducts(List<Product> products) {

    /**
     * {@code [rows, in] × [in, out]}, {@code times} times a step.
     *
     * @param large whether it is one of the blocks' products of all tokens, which may be in FP8
     */
    record Product(long rows, long in, long out, int times, boolean large) {
        double operations() {
            return 2.0 * rows * in * out * times;
        }
    }

    static MatrixProducts of(FluxConfig config, TokenLayout layout) {
        long width = config.width();
        long mlp = config.mlpWidth();
        int doubles = config.doubleBlocks();
        int singles = config.singleBlocks();
        long streams = layout.guidanceTokens() > 0 ? 2 : 1;
        List<Product> products = new ArrayList<>();
        products.add(new Product(layout.imageTokens(), config.latentChannels(), width, 1, false));
        products.add(new Product(1, width, 6 * width, doubles, false));
        products.add(new Product(streams, width, 6 * width, doubles, false));
        for (long rows : new long[] {layout.textTokens(), (long) layout.imageTokens() + layout.guidanceTokens()}) {
            products.add(new Product(rows, width, 3 * width, doubles, true));
            products.add(new Product(rows, width, width, doubles, true));
            products.add(new Product(rows, width, mlp, doubles, true));
            products.add(new Product(rows, mlp, width, doubles, true));
        }
        products.add(new Product(streams, width, 3 * width, singles, false));
        products.add(new Product(layout.tokens(), width, 3 * width, singles, true));
        products.add(new Product(layout.tokens(), width, mlp, singles, true));
        products.add(new Product(layout.tokens(), width + mlp, width, singles, true));
        products.add(new Product(1, width, 2 * width, 1, false));
        products.add(new Product(layout.imageTokens(), width, config.latentChannels(), 1, false));
        return new MatrixProducts(products);
    }

    /** Of multiplications and additions. */
    double operations() {
        return products.stream().mapToDouble(Product::operations).sum();
    }

    /**
     * Computes all of them once, on random numbers, one shape after the other.
     *
     * @param fp8 whether the large ones are in FP8
     */
    double seconds(Placement placement, boolean fp8, Hardware hardware) {
        double seconds = 0;
        for (Product product : products) {
            seconds += Tensors.compute(() -> {
                Matrix x = random(placement, product.rows(), product.in(), fp8 && product.large());
                Matrix weight = random(placement, product.out(), product.in(), fp8 && product.large());
                Tensor y = torch.empty(new long[] {product.rows(), product.out()}, placement.options(), null);
                MatrixProduct.bare(x, weight, y); // the first product of a shape chooses its kernel
                return hardware.seconds(() -> {
                    for (int i = 0; i < product.times(); i++) {
                        MatrixProduct.bare(x, weight, y);
                    }
                });
            });
        }
        return seconds;
    }

    private static Matrix random(Placement placement, long rows, long columns, boolean fp8) {
        Tensor plain = torch.randn(new long[] {rows, columns}, placement.options());
        return fp8 ? Matrix.quantised(plain) : Matrix.of(plain);
    }
}
