package org.scaledit.evaluation;

import java.util.Objects;
import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.jspecify.annotations.Nullable;
import org.scaledit.ranks.Exchange;
import org.scaledit.sampling.Noise;
import org.scaledit.sampling.PictureSampler;
import org.scaledit.sampling.Plan;
import org.scaledit.sampling.Prompt;
import org.scaledit.sampling.SamplingListener;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.BandConsumer;
import org.scaledit.vae.SharedTiles;
import org.scaledit.vae.TileListener;

/** Times whole pictures that ranks paint together, as {@link PictureClock} does those of one. One for all ranks. */
final class SharedPictureClock {
    private final int ranks;
    private final int textTokens;

    // What rank 0 says before all meet.
    private @Nullable Prompt prompt;
    private @Nullable Tensor raw;
    private @Nullable SharedTiles tiles;

    SharedPictureClock(int ranks, int textTokens) {
        this.ranks = ranks;
        this.textTokens = textTokens;
    }

    /**
     * Of one picture, after another one of two steps; called by all ranks.
     *
     * @param clock of this rank
     * @return what rank 0 has measured
     */
    Optional<Measurement.Picture> measure(
            PictureClock clock, FluxTransformer transformer, Method method, TokenGrid grid, Exchange exchange) {
        if (exchange.rank() == 0) {
            return Optional.of(clock.measure(transformer, method, textTokens, grid, first(exchange)));
        }
        follow(clock, transformer, PictureClock.shortPlan(method, grid), exchange);
        follow(clock, transformer, PictureClock.plan(method, grid), exchange);
        return Optional.empty();
    }

    private PictureClock.Hands first(Exchange exchange) {
        return new PictureClock.Hands() {
            @Override
            public Tensor sample(
                    PictureSampler.Models models, Plan plan, Prompt given, Noise noise, SamplingListener listener) {
                Prompt onHost = given.onHost();
                prompt = onHost;
                exchange.meet();
                return PictureSampler.sample(models, plan, onHost, noise, listener, exchange);
            }

            @Override
            public void decode(AutoencoderKl vae, Tensor latents, BandConsumer sink) {
                try (SharedTiles shared = vae.sharedTiles(latents, ranks)) {
                    raw = latents;
                    tiles = shared;
                    exchange.meet();
                    vae.decode(latents, shared, exchange, TileListener.NONE, sink);
                    exchange.meet();
                }
            }
        };
    }

    private void follow(PictureClock clock, FluxTransformer transformer, Plan plan, Exchange exchange) {
        exchange.meet();
        PictureSampler.follow(transformer, plan, Objects.requireNonNull(prompt), exchange, () -> {});
        exchange.meet();
        clock.vae().follow(Objects.requireNonNull(raw), Objects.requireNonNull(tiles), exchange);
        exchange.meet();
    }
}
