package org.scaledit.inception;

import java.nio.file.Path;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.T_TensorTensor_T;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** Mean and covariance of vectors, in float64. The vectors themselves are not kept. */
public final class FeatureStatistics implements AutoCloseable {
    private final Tensor sum; // [features]
    private final Tensor products; // [features, features], the sum of all x xᵀ
    private long count;

    /** Of the network's features, where it computes. */
    public FeatureStatistics(Inception inception) {
        this(Inception.FEATURES, inception.placement());
    }

    FeatureStatistics(int features, Placement placement) {
        Placement exact = placement.with(torch.ScalarType.Double);
        this.sum = Tensors.outlive(() -> torch.zeros(new long[] {features}, exact.options()));
        this.products = Tensors.outlive(() -> torch.zeros(new long[] {features, features}, exact.options()));
    }

    /** How many vectors there are. */
    public long count() {
        return count;
    }

    /**
     * Adds features of a picture.
     *
     * @throws IllegalStateException naming it, if they are not finite: nor would be what is told of all pictures
     */
    public void add(Tensor vectors, Path picture) { // [count, features]
        Tensors.run(() -> {
            if (!torch.isfinite(vectors).all().item_bool()) {
                throw new IllegalStateException("the network has features of " + picture
                        + " that are not finite, expected numbers: its weights are not those it should have");
            }
            Tensor exact = vectors.to(torch.ScalarType.Double);
            sum.add_(exact.sum(0));
            products.addmm_(exact.t(), exact);
        });
        count += vectors.size(0);
    }

    /**
     * The Fréchet distance between the Gaussians of the same mean and covariance, {@code |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁
     * Σ₂)^½)} (arXiv 1706.08500), computed on the CPU. Covariances are those of samples, with {@code count − 1}.
     *
     * @throws IllegalStateException if either has fewer than two vectors
     */
    public double frechetDistance(FeatureStatistics other) {
        return Tensors.compute(() -> {
            Tensor difference = mean().sub(other.mean());
            Tensor covariance = covariance();
            Tensor others = other.covariance();
            Tensor root = root(covariance); // [features, rank]
            Tensor eigenvalues = torch.linalg_eigvalsh(root.t().mm(others).mm(root)); // of Σ₁ Σ₂, too
            double common = roots(largest(eigenvalues, Math.min(rank(), other.rank())))
                    .sum()
                    .item_double();
            double distance = difference.dot(difference).item_double()
                    + covariance.trace().item_double()
                    + others.trace().item_double()
                    - 2 * common;
            return Math.max(0, distance); // of equal ones rounding is left
        });
    }

    private Tensor mean() { // [features]
        return sum.cpu().div(new Scalar((double) count));
    }

    private Tensor covariance() { // [features, features]
        if (count < 2) {
            throw new IllegalStateException("a covariance of " + count + " vectors, expected 2 or more");
        }
        Tensor mean = mean();
        return products.cpu()
                .div(new Scalar((double) count))
                .sub(mean.outer(mean))
                .mul(new Scalar(count / (count - 1.0)));
    }

    /** The most that the covariance of so many vectors can have. */
    private long rank() {
        return Math.min(count - 1, sum.numel());
    }

    /** R with R Rᵀ = Σ. */
    private Tensor root(Tensor covariance) { // [features, features] -> [features, rank]
        T_TensorTensor_T eigen = torch.linalg_eigh(covariance);
        return largest(eigen.get1(), rank()).mul(roots(largest(eigen.get0(), rank())));
    }

    /**
     * The last of what is in ascending order. Eigenvalues beyond the rank are 0: what rounding makes of them must not count,
     * as its root is a hundred million times larger.
     */
    private static Tensor largest(Tensor ascending, long count) {
        return ascending.narrow(-1, ascending.size(-1) - count, count);
    }

    private static Tensor roots(Tensor eigenvalues) {
        return eigenvalues.clamp_min(new Scalar(0.0)).sqrt();
    }

    @Override
    public void close() {
        sum.close();
        products.close();
    }
}
