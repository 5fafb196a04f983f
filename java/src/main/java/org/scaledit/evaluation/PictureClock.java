package org.scaledit.evaluation;

import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalDouble;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.ImageRequest;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.image.Pixels;
import org.scaledit.sampling.Noise;
import org.scaledit.sampling.PictureSampler;
import org.scaledit.sampling.Plan;
import org.scaledit.sampling.Prompt;
import org.scaledit.sampling.SamplingListener;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.text.Conditioning;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.BandConsumer;
import org.scaledit.vae.Latents;
import org.scaledit.vae.TileListener;

/**
 * Times whole pictures, the model loaded and the text encoded, as a request with its defaults is painted: the guidance image,
 * the high-resolution pass, and the decoding to pixels.
 */
final class PictureClock implements AutoCloseable {
    private static final long SEED = 1;

    private final ModelDirectory directory;
    private final AutoencoderKl vae;
    private final Hardware hardware;

    /** @param directory has the schedule and the autoencoder */
    PictureClock(ModelDirectory directory, Placement placement, Hardware hardware) {
        this.directory = directory;
        this.vae = AutoencoderKl.load(directory.part("vae"), placement);
        this.hardware = hardware;
    }

    /** Who paints, all together or alone. */
    interface Hands {
        Hands ALONE = new Hands() {
            @Override
            public Tensor sample(
                    PictureSampler.Models models, Plan plan, Prompt prompt, Noise noise, SamplingListener listener) {
                return PictureSampler.sample(models, plan, prompt, noise, listener);
            }

            @Override
            public void decode(AutoencoderKl vae, Tensor raw, BandConsumer sink) {
                vae.decode(raw, TileListener.NONE, sink);
            }
        };

        Tensor sample(PictureSampler.Models models, Plan plan, Prompt prompt, Noise noise, SamplingListener listener);

        void decode(AutoencoderKl vae, Tensor raw, BandConsumer sink);
    }

    /** Of one picture, after another one of two steps. */
    Measurement.Picture measure(
            FluxTransformer transformer, Method method, int textTokens, TokenGrid grid, Hands hands) {
        paint(transformer, shortPlan(method, grid), textTokens, hands);
        return paint(transformer, plan(method, grid), textTokens, hands);
    }

    static Plan shortPlan(Method method, TokenGrid grid) {
        return plan(ImageRequest.of("").steps(1).guideSteps(1), method, grid);
    }

    static Plan plan(Method method, TokenGrid grid) {
        return plan(ImageRequest.of(""), method, grid);
    }

    private static Plan plan(ImageRequest request, Method method, TokenGrid grid) {
        return new Plan(
                grid,
                1,
                AttentionWindow.DEFAULT,
                method.backend(),
                request.steps(),
                (float) request.guidance(),
                request.guideSteps(),
                (float) request.guideGuidance(),
                Optional.<Path>empty(),
                OptionalDouble.empty());
    }

    AutoencoderKl vae() {
        return vae;
    }

    private Measurement.Picture paint(FluxTransformer transformer, Plan plan, int textTokens, Hands hands) {
        return Tensors.compute(() -> {
            FluxConfig config = transformer.config();
            // Noise stands in for the text: time does not depend on it.
            Placement placement = transformer.placement();
            Conditioning text = new Conditioning(
                    torch.randn(new long[] {textTokens, config.jointWidth()}, placement.options()),
                    torch.randn(new long[] {config.pooledWidth()}, placement.options()));
            PictureSampler.Models models = new PictureSampler.Models(directory, transformer, transformer, vae);
            Stages stages = new Stages();
            Tensor latents = Tensors.scoped(() -> Placement.FLOAT32_CPU.place(
                    hands.sample(models, plan, Prompt.of(text), new SeededNoise(SEED), stages)));
            double sampled = stages.next();
            decode(latents, plan.lastGrid(), hands);
            return new Measurement.Picture(plan.guideSteps(), stages.guidance, plan.steps(), sampled, stages.next());
        });
    }

    private void decode(Tensor latents, TokenGrid grid, Hands hands) {
        Tensor raw = Latents.unscale(Latents.unpack(latents, grid.height(), grid.width()), vae.config());
        Pixels pixels = new Pixels(grid.pixelWidth(), grid.pixelHeight());
        hands.decode(vae, raw, pixels::put);
    }

    /** Reads the clock where one stage ends and the next begins. */
    private final class Stages implements SamplingListener {
        private long begun;
        private double guidance;

        Stages() {
            hardware.await();
            begun = System.nanoTime();
        }

        /** The seconds of the stage that is over. */
        double next() {
            hardware.await();
            long now = System.nanoTime();
            double seconds = (now - begun) / 1e9;
            begun = now;
            return seconds;
        }

        @Override
        public void guidanceLatents(Tensor latents) {
            guidance = next();
        }
    }

    @Override
    public void close() {
        vae.close();
    }
}
