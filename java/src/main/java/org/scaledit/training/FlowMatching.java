package org.scaledit.training;

import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.GradientPass;

/**
 * The loss of flow matching: {@code x = (1 − σ) image + σ noise}, and of the velocity at x the mean squared distance to
 * {@code noise − image}, on image tokens alone. Used by one thread at a time.
 */
final class FlowMatching implements AutoCloseable {
    /** Of the distilled guidance: an image is trained as it is. */
    static final double GUIDANCE = 1;

    private final FluxTransformer transformer;
    private final Recipe.AttentionKind kind;
    private final AttentionWindow window;
    private @Nullable TokenGrid grid;
    private @Nullable GradientAttention attention; // of the grid: of all of them, workspaces would fill the memory

    FlowMatching(FluxTransformer transformer, Recipe.AttentionKind kind, AttentionWindow window) {
        this.transformer = transformer;
        this.kind = kind;
        this.window = window;
    }

    /**
     * What is mixed into an image.
     *
     * @param sigma its share, 0 … 1
     * @param noise standard normal numbers, in raster order: {@code [W·H, 64]}
     */
    record Noising(double sigma, Tensor noise) {

        /** An image with its noise: {@code [W·H, 64]}, float32, in the noise's order and where the noise is, as the image. */
        Tensor noised(Tensor image) {
            return image.mul(new Scalar(1 - sigma)).add_(noise.mul(new Scalar(sigma)));
        }

        /** The velocity from an image to the noise, likewise. */
        Tensor velocity(Tensor image) {
            return noise.sub(image);
        }
    }

    /**
     * Adds the gradients of {@code share} times the loss to those of the matrices in training.
     *
     * @return the loss itself
     */
    double addGradients(TokenGrid grid, TrainingSet.Inputs inputs, Noising noising, double share) {
        return evaluate(grid, inputs, noising, (denoiser, attention, noised, loss) -> {
            UnaryOperator<Tensor> shared = velocity -> loss.apply(velocity).mul(new Scalar(share));
            return new GradientPass(denoiser, attention.attention()).add(noised, noising.sigma, shared) / share;
        });
    }

    /**
     * The loss alone.
     *
     * @param betweenBlocks may throw, to stop
     */
    double loss(TokenGrid grid, TrainingSet.Inputs inputs, Noising noising, Runnable betweenBlocks) {
        double[] value = new double[1];
        Tensors.withoutGradients(() -> value[0] = evaluate(
                grid,
                inputs,
                noising,
                (denoiser, attention, noised, loss) -> loss.apply(
                                denoiser.velocity(noised, noising.sigma, betweenBlocks))
                        .item_double()));
        return value[0];
    }

    private interface Evaluation {
        double of(Denoiser denoiser, GradientAttention attention, Tensor noised, UnaryOperator<Tensor> loss);
    }

    private double evaluate(TokenGrid grid, TrainingSet.Inputs inputs, Noising noising, Evaluation evaluation) {
        Placement placement = transformer.placement().with(torch.ScalarType.Float);
        GradientAttention current = attention(grid, inputs);
        return Tensors.compute(() -> {
            Tensor image = current.layout().arrangeImage(placement.place(inputs.image()));
            Noising arranged =
                    new Noising(noising.sigma, current.layout().arrangeImage(placement.place(noising.noise)));
            Tensor noised = arranged.noised(image);
            Tensor target = arranged.velocity(image);
            try (Denoiser denoiser = transformer.denoiser(
                    current.layout(),
                    current.attention(),
                    FluxTransformer.NTK_THETA,
                    inputs.text().states(),
                    inputs.text().pooled(),
                    GUIDANCE,
                    current.layout().arrangeGuidance(placement.place(inputs.guidance())))) {
                return evaluation.of(denoiser, current, noised, velocity -> torch.mse_loss(velocity, target));
            }
        });
    }

    private GradientAttention attention(TokenGrid asked, TrainingSet.Inputs inputs) {
        GradientAttention current = attention;
        if (current == null || !asked.equals(grid)) {
            close();
            int textTokens = Math.toIntExact(inputs.text().states().size(0));
            current = GradientAttention.of(kind, textTokens, asked, window, transformer.placement());
            attention = current;
            grid = asked;
        }
        return current;
    }

    @Override
    public void close() {
        if (attention != null) {
            attention.close();
            attention = null;
        }
    }
}
