package org.scaledit.sampling;

import java.nio.file.Path;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.image.ImageFile;
import org.scaledit.image.PixelSource;
import org.scaledit.image.Resize;
import org.scaledit.ranks.Exchange;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.Latents;
import org.scaledit.vae.TileListener;

/**
 * The two stages of Scale-DiT (arXiv 2510.16325, section 3): a guidance image by plain FLUX, then the high-resolution
 * pass under it, once for each level of a recursion.
 */
public final class PictureSampler {
    /**
     * What paints.
     *
     * @param directory has the checkpoint's own schedule
     * @param plain paints the guidance image
     * @param adapted paints the high-resolution picture: the same under its LoRAs, or the same
     */
    public record Models(ModelDirectory directory, FluxTransformer plain, FluxTransformer adapted, AutoencoderKl vae) {}

    private final Models models;
    private final Plan plan;
    private final Prompt prompt;
    private final Noise noise;
    private final SamplingListener listener;
    private final HighResolutionPass pass;

    private PictureSampler(
            Models models, Plan plan, Prompt prompt, Noise noise, SamplingListener listener, Exchange exchange) {
        this.pass = new HighResolutionPass(models.adapted(), plan, prompt, exchange);
        this.models = models;
        this.plan = plan;
        this.prompt = prompt;
        this.noise = noise;
        this.listener = listener;
    }

    /**
     * Samples a picture.
     *
     * @return the clean latents of {@link Plan#lastGrid}, {@code [W·H, 64]}, packed, in raster order, float32
     */
    public static Tensor sample(Models models, Plan plan, Prompt prompt, Noise noise, SamplingListener listener) {
        return sample(models, plan, prompt, noise, listener, Exchange.ALONE);
    }

    /**
     * Samples a picture with other ranks, which {@link #follow} at the same time. This one, rank 0, paints the guidance image;
     * the high-resolution picture they paint together, each a part of it.
     *
     * @param listener is not to ask for latents on the way
     * @return likewise
     * @throws IllegalArgumentException in one sentence, if the picture has fewer windows than there are ranks, or attention is
     *     dense
     */
    public static Tensor sample(
            Models models, Plan plan, Prompt prompt, Noise noise, SamplingListener listener, Exchange exchange) {
        return Tensors.scoped(() -> new PictureSampler(models, plan, prompt, noise, listener, exchange).sample());
    }

    /**
     * What a rank that is not the first one does for a picture of at least one level.
     *
     * @param adapted its own transformer, under the LoRAs
     * @param betweenBlocks called after every transformer block; what it throws ends the picture
     */
    public static void follow(
            FluxTransformer adapted, Plan plan, Prompt prompt, Exchange exchange, Runnable betweenBlocks) {
        new HighResolutionPass(adapted, plan, prompt, exchange)
                .follow(HighResolutionPass.Listener.silent(betweenBlocks));
    }

    private Tensor sample() {
        if (plan.levels() > 0 && !plan.isGuided()) {
            return highResolution(1, plan.grid(), pass.withoutGuidance());
        }
        Tensor guidance = plan.guideImage().map(this::encodeGuide).orElseGet(() -> paintGuidance(plan.guidanceGrid()));
        listener.guidanceLatents(guidance);
        return plan.levels() == 0 ? guidance : highResolution(1, plan.grid(), pass.shared(guidance));
    }

    /** The user's own guidance image as latents: {@code [w·h, 64]}. */
    private Tensor encodeGuide(Path file) {
        return Tensors.scoped(() -> {
            TokenGrid grid = plan.grid();
            Tensor image = Resize.toGuidance(ImageFile.read(file), grid.pixelHeight(), grid.pixelWidth(), ratio());
            return encode(PixelSource.of(image), stoppable());
        });
    }

    /** Plain FLUX at the guidance image's size, without LoRA: {@code [w·h, 64]}. */
    private Tensor paintGuidance(TokenGrid grid) {
        boolean dense = plan.backend() == Plan.Backend.DENSE;
        PlainPass plain =
                new PlainPass(models.directory(), models.plain(), dense, plan.guideSteps(), plan.guideGuidance());
        return Tensors.scoped(() -> plain.paint(grid, prompt, noise.guidance(grid), new PlainPass.Listener() {
            @Override
            public void step(int step, int steps) {
                listener.guidanceImage(step, steps);
            }

            @Override
            public void betweenBlocks() {
                PictureSampler.this.betweenBlocks();
            }
        }));
    }

    /**
     * The high-resolution pass of this level and, under its result, of those that follow.
     *
     * @param guidance clean latents in raster order, {@code [w·h, 64]}
     * @return of the last level, {@code [W·H, 64]} in raster order
     */
    private Tensor highResolution(int level, TokenGrid grid, Tensor guidance) {
        Tensor latents = Tensors.scoped(() -> {
            listener.schedule(level, pass.schedule());
            Tensor start = pass.shared(start(level, grid, guidance));
            return pass.paint(grid, guidance, start, new HighResolutionPass.Listener() {
                @Override
                public void step(int step, int steps, Supplier<Tensor> current) {
                    listener.highResolution(level, step, steps);
                    listener.latents(level, step, current);
                }

                @Override
                public void betweenBlocks() {
                    listener.betweenBlocks();
                }
            });
        });
        return level == plan.levels() ? latents : highResolution(level + 1, grid.enlarged(ratio()), latents);
    }

    /** Latents at the noise level of the first step: {@code [W·H, 64]} in raster order. */
    private Tensor start(int level, TokenGrid grid, Tensor guidance) {
        Tensor start = noise.image(level, grid);
        return plan.strength().isEmpty()
                ? start
                : mixed(enlarged(level, grid, guidance), start, pass.schedule().sigmas()[plan.firstStep()]);
    }

    /** The guidance image enlarged by the ratio, cropped to the picture, as clean latents: {@code [W·H, 64]}. */
    private Tensor enlarged(int level, TokenGrid grid, Tensor guidance) {
        AutoencoderKl vae = models.vae();
        TokenGrid small = grid.guidance(ratio());
        return Tensors.scoped(() -> {
            Tensor onHost = Placement.FLOAT32_CPU.place(guidance);
            Tensor latents = Latents.unscale(Latents.unpack(onHost, small.height(), small.width()), vae.config());
            Tensor image = vae.decode(latents, stoppable()); // [3, 16h, 16w]
            return encode(Resize.enlarged(image, ratio(), grid.pixelHeight(), grid.pixelWidth()), (tiles, all) -> {
                pass.exchange().requireOthers();
                listener.enlarge(level, tiles, all);
            });
        });
    }

    /** [3, 16H, 16W] → {@code [W·H, 64]} */
    private Tensor encode(PixelSource image, TileListener tiles) {
        AutoencoderKl vae = models.vae();
        return Tensors.scoped(() -> Latents.pack(Latents.scale(vae.encode(image, tiles), vae.config())));
    }

    /** Of tiles that nobody counts. */
    private TileListener stoppable() {
        return (tiles, all) -> betweenBlocks();
    }

    /** Of what this rank does by itself: with the others it exchanges nothing until it is done. */
    private void betweenBlocks() {
        pass.exchange().requireOthers();
        listener.betweenBlocks();
    }

    /** {@code (1 − σ) clean + σ noise} */
    private static Tensor mixed(Tensor clean, Tensor noise, float sigma) {
        return clean.mul(new Scalar(1 - sigma)).add(noise.mul(new Scalar(sigma)));
    }

    private int ratio() {
        return plan.window().ratio();
    }
}
