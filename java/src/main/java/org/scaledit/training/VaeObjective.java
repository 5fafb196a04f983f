package org.scaledit.training;

import java.util.Map;
import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.vae.TrainedAutoencoder;

/**
 * The loss of an autoencoder: the mean absolute error of the pixels and, weighted, of the differences between neighbouring
 * ones, which see blur; and, weighted, how far the latents are from a normal distribution.
 */
final class VaeObjective implements PartTraining.Objective<VaeObjective.Batch> {
    private final ModelRecipe.Vae recipe;
    private final SampleSource source;
    private final SampleOrder order;
    private final TrainedAutoencoder autoencoder;
    private final Placement placement;

    /** @param weights leaves, by diffusers' names */
    VaeObjective(
            ModelRecipe.Vae recipe, SampleSource source, long seed, Map<String, Tensor> weights, Placement placement) {
        this.recipe = recipe;
        this.source = source;
        this.order = new SampleOrder(seed, source.size(), Recipe.Timesteps.UNIFORM);
        this.placement = placement;
        this.autoencoder = new TrainedAutoencoder(recipe.config(1, 0), weights, placement);
    }

    /**
     * @param pictures [batch, 3, size, size], float32, where the source paints
     * @param noise [batch, 16, size / 8, size / 8], float32 on the CPU
     */
    record Batch(Tensor pictures, Tensor noise) implements AutoCloseable {
        @Override
        public void close() {
            pictures.close();
            noise.close();
        }
    }

    @Override
    public void begin(ModelRecipe.Phase phase) {}

    @Override
    public Batch batch(ModelRecipe.Batch kind, long count, int[] samples) {
        int size = kind.size();
        Tensor pictures = Tensors.outlive(() -> torch.empty(
                new long[] {samples.length, 3, size, size}, source.placement().options(), null));
        for (int i = 0; i < samples.length; i++) {
            int sample = samples[i];
            int row = i;
            long place = order.crop(count + i);
            int chosen =
                    (int) Long.remainderUnsigned(place, recipe.pictureSizes().size());
            int whole = recipe.pictureSizes().get(chosen);
            Tensors.run(() -> pictures.select(0, row)
                    .copy_(source.picture(
                            sample, whole, size, place / recipe.pictureSizes().size())));
        }
        Tensor noise = Tensors.outlive(() -> {
            Generator generator = torch.createCPUGenerator(order.noise(count));
            return placement.atHand(torch.randn(
                    new long[] {samples.length, 16, size / 8, size / 8},
                    new GeneratorOptional(generator),
                    Placement.FLOAT32_CPU.options()));
        });
        if (source.placement().cuda() || !placement.cuda()) {
            return new Batch(pictures, noise);
        }
        Tensor pinned = Tensors.outlive(() -> placement.atHand(pictures));
        pictures.close();
        return new Batch(pinned, noise);
    }

    @Override
    public Tensor addGradients(Batch batch, double share) {
        return Tensors.scoped(() -> {
            Placement wide = placement.with(torch.ScalarType.Float);
            Tensor pictures = wide.place(batch.pictures);
            TrainedAutoencoder.Posterior posterior = autoencoder.encode(pictures);
            Tensor decoded = autoencoder.decode(posterior.sample(wide.place(batch.noise)));
            Tensor error = decoded.sub(pictures);
            Tensor loss = error.abs()
                    .mean()
                    .add(differences(error).mul(new Scalar(recipe.gradient())))
                    .add(posterior.divergence().mul(new Scalar(recipe.divergence())));
            loss.mul(new Scalar(share)).backward();
            return loss.detach().unsqueeze(0);
        });
    }

    /** The mean absolute difference of neighbours, along rows and columns. */
    private static Tensor differences(Tensor error) {
        long last = error.size(2) - 1;
        Tensor across = error.narrow(3, 1, last).sub(error.narrow(3, 0, last));
        Tensor down = error.narrow(2, 1, last).sub(error.narrow(2, 0, last));
        return across.abs().mean().add(down.abs().mean());
    }

    /** Not before its latents have been measured, at the end. */
    @Override
    public void write() {}
}
