package org.scaledit.transformer;

import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * FLUX's {@code time_text_embed}: the embedding of timestep, guidance scale and pooled text that modulates every block.
 * All of it in float32 whatever the model's precision: bfloat16 would make 4512 of the guidance argument 4500.
 */
record Conditioning(Mlp timestep, Optional<Mlp> guidance, Mlp text) {
    private static final float[] FREQUENCIES = frequencies();
    private static final float SCALE = 1000;

    static Conditioning load(Layers layers, FluxConfig config) {
        Layers embedders = layers.at("time_text_embed");
        return new Conditioning(
                Mlp.load(embedders.at("timestep_embedder"), 2 * FREQUENCIES.length, config),
                config.guidanceEmbedder()
                        ? Optional.of(Mlp.load(embedders.at("guidance_embedder"), 2 * FREQUENCIES.length, config))
                        : Optional.empty(),
                Mlp.load(embedders.at("text_embedder"), config.pooledWidth(), config));
    }

    /** Two layers with SiLU between them. */
    record Mlp(Linear first, Linear second) {
        static Mlp load(Layers layers, long in, FluxConfig config) {
            return new Mlp(
                    layers.linear("linear_1", in, config.width()),
                    layers.linear("linear_2", config.width(), config.width()));
        }

        /** With gradients: [batch, in] → [batch, width] */
        Tensor batched(Tensor x) {
            return second.batched(torch.silu(first.batched(x)));
        }

        /** [streams, in] → [streams, width] */
        Tensor forward(Tensor x, long guidanceRows) {
            return second.forward(torch.silu(first.forward(x, guidanceRows)), guidanceRows);
        }
    }

    /**
     * @param sigma noise level of the current tokens, 0 … 1; guidance tokens, if there are any, are clean
     * @param pooled [pooled width], float32
     * @param withGuidance whether there are guidance tokens
     * @return [1, width], or [2, width] with the embedding of guidance tokens in the second row; float32
     */
    Tensor forward(float sigma, float guidanceScale, Tensor pooled, boolean withGuidance, Placement placement) {
        return Tensors.scoped(() -> {
            long streams = withGuidance ? 2 : 1;
            long guidanceRows = streams - 1;
            Tensor times = withGuidance ? Tensors.of(new float[] {sigma, 0}, 2) : Tensors.of(new float[] {sigma}, 1);
            Tensor embedding = timestep.forward(sinusoids(times, placement), guidanceRows)
                    .add(text.forward(pooled.expand(streams, -1), guidanceRows));
            guidance.ifPresent(mlp -> {
                Tensor scales = torch.full_like(times, new Scalar(guidanceScale));
                embedding.add_(mlp.forward(sinusoids(scales, placement), guidanceRows));
            });
            return embedding;
        });
    }

    /**
     * Of a batch, with gradients.
     *
     * @param sigmas noise levels, 0 … 1: [batch], float32 on the CPU
     * @param pooled [batch, pooled width], float32
     * @return [batch, width], float32
     */
    Tensor batched(Tensor sigmas, float guidanceScale, Tensor pooled, Placement placement) {
        return Tensors.scoped(() -> {
            Tensor embedding = timestep.batched(sinusoids(sigmas, placement)).add(text.batched(pooled));
            return guidance.map(mlp -> embedding.add(
                            mlp.batched(sinusoids(torch.full_like(sigmas, new Scalar(guidanceScale)), placement))))
                    .orElse(embedding);
        });
    }

    /** [n] → [n, 256]: cosines, then sines, of angles in float32 as diffusers has them */
    private static Tensor sinusoids(Tensor values, Placement placement) {
        return Tensors.scoped(() -> {
            Tensor angles = torch.outer(values.mul(new Scalar(SCALE)), Tensors.of(FREQUENCIES, FREQUENCIES.length));
            return placement.with(torch.ScalarType.Float).send(Tensors.concatenate(1, angles.cos(), angles.sin()));
        });
    }

    /**
     * {@code 10000^(−k / 128)}, every step rounded to float32. Rounded and not torch's {@code exp}, which may be off by a
     * bit: at an angle of 4500 that is 3e-4.
     */
    private static float[] frequencies() {
        float[] frequencies = new float[128];
        for (int k = 0; k < frequencies.length; k++) {
            float exponent = (float) -Math.log(10_000) * k / frequencies.length;
            frequencies[k] = (float) Math.exp(exponent);
        }
        return frequencies;
    }
}
