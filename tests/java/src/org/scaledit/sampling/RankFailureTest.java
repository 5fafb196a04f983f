package org.scaledit.sampling;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.text.Conditioning;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.vae.AutoencoderKl;

/** A rank that fails in the middle of a picture ends it for all. */
@Timeout(value = 2, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RankFailureTest {
    private static final int RANKS = 3;

    private static final Plan PLAN = new Plan(
            new TokenGrid(40, 56),
            1,
            AttentionWindow.DEFAULT,
            Plan.Backend.NATIVE_EXACT,
            20,
            4.5f,
            1,
            3.5f,
            Optional.empty(),
            OptionalDouble.empty());

    /** Fails after so many blocks, of four a step. */
    private static final int BLOCKS = 4 * 2 + 3;

    private static Runnable failing(boolean fails, int rank) {
        AtomicInteger blocks = new AtomicInteger();
        return () -> {
            if (fails && blocks.incrementAndGet() == BLOCKS) {
                throw new IllegalStateException("GPU " + rank + " has fallen off the bus");
            }
        };
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 2})
    void theFirstFailureEndsThePicture(int failing) {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        long begun = System.nanoTime();
        assertThatThrownBy(() -> Ranks.run(RANKS, false, exchange -> {
                    try (FluxTransformer transformer = FluxTransformer.load(directory, Placement.FLOAT32_CPU);
                            AutoencoderKl vae = AutoencoderKl.load(directory.part("vae"), Placement.FLOAT32_CPU)) {
                        Tensors.run(() -> {
                            FluxConfig config = transformer.config();
                            Prompt prompt = Prompt.of(new Conditioning(
                                    torch.randn(8, config.jointWidth()), torch.randn(config.pooledWidth())));
                            Runnable betweenBlocks = failing(exchange.rank() == failing, failing);
                            if (exchange.rank() > 0) {
                                PictureSampler.follow(transformer, PLAN, prompt, exchange, betweenBlocks);
                            } else {
                                PictureSampler.sample(
                                        new PictureSampler.Models(directory, transformer, transformer, vae),
                                        PLAN,
                                        prompt,
                                        new SeededNoise(1),
                                        new Quiet(betweenBlocks),
                                        exchange);
                            }
                        });
                    }
                }))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("GPU " + failing + " has fallen off the bus");
        assertThat(Duration.ofNanos(System.nanoTime() - begun)).isLessThan(Duration.ofSeconds(20));
    }

    private record Quiet(Runnable runBetweenBlocks) implements SamplingListener {
        @Override
        public void betweenBlocks() {
            runBetweenBlocks.run();
        }
    }
}
