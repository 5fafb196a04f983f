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

    /** Of one picture, after another one of two steps. */
    Measurement.Picture measure(FluxTransformer transformer, Method method, int textTokens, TokenGrid grid) {
        ImageRequest defaults = ImageRequest.of("");
        paint(transformer, plan(defaults.steps(1).guideSteps(1), method, grid), textTokens);
        return paint(transformer, plan(defaults, method, grid), textTokens);
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

    private Measurement.Picture paint(FluxTransformer transformer, Plan plan, int textTokens) {
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
                    PictureSampler.sample(models, plan, Prompt.of(text), new SeededNoise(SEED), stages)));
            double sampled = stages.next();
            decode(latents, plan.lastGrid());
            return new Measurement.Picture(plan.guideSteps(), stages.guidance, plan.steps(), sampled, stages.next());
        });
    }

    private void decode(Tensor latents, TokenGrid grid) {
        Tensor raw = Latents.unscale(Latents.unpack(latents, grid.height(), grid.width()), vae.config());
        Pixels pixels = new Pixels(grid.pixelWidth(), grid.pixelHeight());
        vae.decode(raw, TileListener.NONE, pixels::put);
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
