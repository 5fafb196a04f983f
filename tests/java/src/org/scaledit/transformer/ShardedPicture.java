package org.scaledit.transformer;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CoreAttention;
import org.scaledit.attention.ShardedAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.ranks.Exchange;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * A picture of random latents, of which one rank or several compute velocities.
 *
 * @param width tokens of its grid; {@code height} likewise
 * @param negative with classifier-free guidance
 * @param nudge by which each latent is larger or smaller, as a share of it
 */
record ShardedPicture(
        int text,
        int width,
        int height,
        AttentionWindow window,
        boolean int8,
        boolean negative,
        Placement placement,
        double nudge) {
    private static final double[] SIGMAS = {0.9, 0.4};

    ShardedPicture(
            int text,
            int width,
            int height,
            AttentionWindow window,
            boolean int8,
            boolean negative,
            Placement placement) {
        this(text, width, height, window, int8, negative, placement, 0);
    }

    /** The same with latents that are not quite the same. */
    ShardedPicture nudged(double share) {
        return new ShardedPicture(text, width, height, window, int8, negative, placement, share);
    }

    /**
     * What came out.
     *
     * @param velocities at two noise levels: {@code [W·H, 64]}, float32 on the CPU, in Hilbert order
     * @param texts of each rank, each block's hidden states of the text, one after the other: float32 on the CPU
     */
    record Result(List<Tensor> velocities, List<List<Tensor>> texts) implements AutoCloseable {
        @Override
        public void close() {
            velocities.forEach(Tensor::close);
            texts.forEach(texts -> texts.forEach(Tensor::close));
        }
    }

    /** What one rank has: its own tokens' velocities and its texts. */
    private record Part(List<Tensor> velocities, List<Tensor> texts) {}

    /**
     * By ranks that share what they compute on: on a GPU the order of its one queue is that of their exchange.
     *
     * @param load makes a rank's transformer, where the rank computes
     */
    Result velocities(int ranks, Supplier<FluxTransformer> load) {
        return velocities(ranks, false, load);
    }

    /** @param apart whether each rank has a GPU of its own */
    Result velocities(int ranks, boolean apart, Supplier<FluxTransformer> load) {
        Part[] parts = new Part[ranks];
        Ranks.run(ranks, apart, exchange -> {
            try (FluxTransformer transformer = load.get()) {
                parts[exchange.rank()] = part(transformer, exchange);
            }
        });
        List<Tensor> velocities = new ArrayList<>();
        for (int step = 0; step < SIGMAS.length; step++) {
            int current = step;
            velocities.add(Tensors.outlive(() -> Tensors.concatenate(
                    0,
                    Arrays.stream(parts)
                            .map(part -> part.velocities.get(current))
                            .toArray(Tensor[]::new))));
        }
        Arrays.stream(parts).forEach(part -> part.velocities.forEach(Tensor::close));
        return new Result(velocities, Arrays.stream(parts).map(Part::texts).toList());
    }

    private Part part(FluxTransformer transformer, Exchange exchange) {
        List<Tensor> velocities = new ArrayList<>();
        List<Tensor> texts = new ArrayList<>();
        Tensors.run(() -> {
            FluxConfig config = transformer.config();
            try (Attention attention = attention(exchange)) {
                TokenLayout layout = layout(attention);
                try (Denoiser denoiser = transformer.denoiser(
                        layout,
                        attention,
                        FluxTransformer.NTK_THETA,
                        random(1, text, config.jointWidth()),
                        random(2, config.pooledWidth()),
                        4.5,
                        layout.arrangeGuidance(random(
                                3,
                                (long) layout.guidanceWidth() * layout.guidanceHeight(),
                                config.latentChannels())))) {
                    if (negative) {
                        denoiser.guideAwayFrom(
                                random(4, text, config.jointWidth()), random(5, config.pooledWidth()), 3.5);
                    }
                    Tensor latents = layout.arrangeImage(latents(config));
                    Placement exact = placement.with(torch.ScalarType.Float);
                    for (double sigma : SIGMAS) {
                        exchange.meet();
                        Tensor velocity = denoiser.velocity(
                                exact.place(latents),
                                sigma,
                                (block, hidden) -> texts.add(onHost(hidden.narrow(0, 0, text))));
                        velocities.add(onHost(velocity));
                    }
                }
            }
        });
        return new Part(velocities, texts);
    }

    private Attention attention(Exchange exchange) {
        return exchange.ranks() == 1
                ? new CoreAttention(text, width, height, window, placement.cuda(), int8)
                : new ShardedAttention(text, width, height, window, placement.cuda(), int8, exchange);
    }

    private Tensor latents(FluxConfig config) {
        Tensor latents = random(6, (long) width * height, config.latentChannels());
        return latents.addcmul(latents, random(7, latents.shape()).sign(), new Scalar(nudge));
    }

    private static TokenLayout layout(Attention attention) {
        return attention instanceof ShardedAttention sharded ? sharded.layout() : ((CoreAttention) attention).layout();
    }

    private static Tensor onHost(Tensor tensor) {
        return Tensors.outlive(() -> Placement.FLOAT32_CPU.place(tensor).clone());
    }

    /** The same numbers in every rank. */
    static Tensor random(long seed, long... shape) {
        return Tensors.scoped(() -> {
            Generator generator = torch.createCPUGenerator(seed);
            return torch.randn(shape, new GeneratorOptional(generator), Placement.FLOAT32_CPU.options());
        });
    }
}
