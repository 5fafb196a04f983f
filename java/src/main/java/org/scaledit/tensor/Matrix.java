package org.scaledit.tensor;

import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/**
 * One side of a product, tokens or weights: as it is, or in FP8 (e4m3) with a scale for each row.
 *
 * @param values {@code [rows, columns]}
 * @param scales {@code [rows, 1]}, float32: what a row's values in FP8 are to be multiplied by
 */
public record Matrix(Tensor values, Optional<Tensor> scales) {
    /** The largest number of e4m3. */
    private static final double LARGEST = 448;

    /** The tensor as it is. */
    public static Matrix of(Tensor values) {
        return new Matrix(values, Optional.empty());
    }

    /**
     * Quantised so that each row's largest value becomes e4m3's largest. Both tensors are in the caller's scope.
     *
     * @param x {@code [rows, columns]}; its precision is that of the multiplication on the way
     */
    public static Matrix quantised(Tensor x) {
        Tensor inverse = Tensors.scoped(() -> torch.linalg_vector_norm(
                        x,
                        new Scalar(Double.POSITIVE_INFINITY),
                        new long[] {1},
                        true,
                        new ScalarTypeOptional(torch.ScalarType.Float))
                .clamp_min_(new Scalar(1e-12)) // a row of zeros stays one
                .reciprocal_()
                .mul_(new Scalar(LARGEST))
                .to(x.scalar_type()));
        // Of the inverse as it was rounded: what is multiplied by one and then by the other comes back.
        Tensor scales = Tensors.scoped(() -> Tensors.toFloat32(inverse).reciprocal());
        Tensor values = Tensors.scoped(() -> x.mul(inverse).to(torch.ScalarType.Float8_e4m3fn));
        return new Matrix(values, Optional.of(scales));
    }

    /** Whether it is in FP8. */
    public boolean isQuantised() {
        return scales.isPresent();
    }

    public long rows() {
        return values.size(0);
    }

    public long columns() {
        return values.size(1);
    }

    /** Views of some rows, in the caller's scope. */
    public Matrix rows(long first, long count) {
        return new Matrix(values.narrow(0, first, count), scales.map(scale -> scale.narrow(0, first, count)));
    }

    /** The numbers that it stands for, in the caller's scope: {@code [rows, columns]} */
    public Tensor plain(torch.ScalarType precision) {
        return Tensors.scoped(() -> {
            // A number of e4m3 is one of any other precision, too: the product with its scale alone is rounded.
            Tensor numbers = values.to(precision);
            return scales.map(numbers::mul_).orElse(numbers);
        });
    }
}
