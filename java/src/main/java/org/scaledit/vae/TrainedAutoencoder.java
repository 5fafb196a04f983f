package org.scaledit.vae;

import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarOptional;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * An autoencoder whose weights are in training, or were: batches of whole pictures, without tiles, with their graph. It
 * computes what {@link AutoencoderKl} with the same weights does with a picture of one tile.
 */
public final class TrainedAutoencoder {
    /** Of the logarithm of the variance, as diffusers clamps it. */
    private static final double SMALLEST = -30;

    private static final double LARGEST = 20;

    private final Map<String, Tensor> weights;
    private final Placement placement;
    private final int latentChannels;
    private final List<Layer> encoder;
    private final List<Layer> decoder;

    /**
     * @param weights by diffusers' names, where the placement says and in its precision; they stay the caller's
     */
    public TrainedAutoencoder(VaeConfig config, Map<String, Tensor> weights, Placement placement) {
        this.weights = weights;
        this.placement = placement;
        this.latentChannels = config.latentChannels();
        this.encoder = Architecture.encoder(config);
        this.decoder = Architecture.decoder(config);
    }

    /**
     * The distribution of latents, raw, float32.
     *
     * @param mean {@code [batch, latent channels, h, w]}
     * @param logVariance likewise
     */
    public record Posterior(Tensor mean, Tensor logVariance) {

        /** {@code mean + deviation · noise} */
        public Tensor sample(Tensor noise) {
            return Tensors.scoped(
                    () -> mean.add(logVariance.mul(new Scalar(0.5)).exp().mul(noise)));
        }

        /** Kullback-Leibler divergence from the standard normal distribution, its mean over all numbers: a scalar. */
        public Tensor divergence() {
            return Tensors.scoped(() -> mean.square()
                    .add(logVariance.exp())
                    .sub(logVariance)
                    .sub(new Scalar(1))
                    .mean()
                    .mul(new Scalar(0.5)));
        }
    }

    /** Of pictures {@code [batch, 3, 8h, 8w]}, −1 … 1; in the caller's scope. */
    public Posterior encode(Tensor pictures) {
        Tensor moments =
                Tensors.scoped(() -> Tensors.toFloat32(Layer.run(encoder, weights, placement.place(pictures))));
        Tensor mean = moments.narrow(1, 0, latentChannels);
        Tensor logVariance = Tensors.scoped(() -> moments.narrow(1, latentChannels, latentChannels)
                .clamp(new ScalarOptional(new Scalar(SMALLEST)), new ScalarOptional(new Scalar(LARGEST))));
        return new Posterior(mean, logVariance);
    }

    /** Raw latents {@code [batch, latent channels, h, w]} to pictures {@code [batch, 3, 8h, 8w]}, float32. */
    public Tensor decode(Tensor latents) {
        return Tensors.scoped(() -> Tensors.toFloat32(Layer.run(decoder, weights, placement.place(latents))));
    }
}
