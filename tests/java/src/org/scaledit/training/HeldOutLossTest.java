package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.LoraFile;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.PeftLora;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.training.HeldOutLoss.Losses;
import org.scaledit.training.HeldOutLoss.Order;
import org.scaledit.training.HeldOutLoss.Sample;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;
import org.scaledit.transformer.ScaledLora;

/** On the tiny model, of pictures that are drawn here: four, one of them four times as wide as high. */
class HeldOutLossTest {
    private static final int RESOLUTION = 128;
    private static final int RATIO = 2;
    private static final int TEXT_TOKENS = 8;
    private static final int LEVELS = 3;
    private static final long SEED = 11;
    private static final LoraFile GIVEN = new LoraFile(Golden.path("golden/lora/scaledit_lora.safetensors"), 0.5);

    @TempDir
    static Path folder;

    private static Path data;

    @BeforeAll
    static void draw() {
        data = DrawnPictures.in(folder.resolve("data"), 4, 128, 128);
    }

    private static Order order(LoraFile lora, OptionalInt pictures, Recipe.AttentionKind attention, long seed) {
        return new Order(
                Golden.tinyFlux(),
                data,
                folder.resolve("cache"),
                List.of(lora),
                Recipe.Scope.GUIDANCE,
                RESOLUTION,
                RATIO,
                OptionalInt.of(TEXT_TOKENS),
                pictures,
                LEVELS,
                Recipe.Timesteps.UNIFORM,
                attention,
                Placement.FLOAT32_CPU,
                seed);
    }

    private static List<Sample> measured(LoraFile lora) {
        return measured(order(lora, OptionalInt.empty(), Recipe.AttentionKind.NATIVE, SEED));
    }

    private static List<Sample> measured(Order order) {
        return HeldOutLoss.measure(order, new Counting());
    }

    private static class Counting implements HeldOutLoss.Listener {
        final List<String> heard = new ArrayList<>();

        @Override
        public void encoded(int done, int all) {}

        @Override
        public void measured(int done, int all) {
            heard.add(done + "/" + all);
        }
    }

    /** Each loss once more: that of dense attention from a velocity, those of Scale-DiT as a training has them. */
    @Test
    void everyLossIsTheOneComputedByHand() {
        ModelDirectory model = ModelDirectory.open(Golden.tinyFlux());
        List<Sample> samples = measured(GIVEN);
        SampleOrder chance = new SampleOrder(SEED, 4, Recipe.Timesteps.UNIFORM);
        List<Example> examples = Example.of(data);
        TrainingSet set = new TrainingSet(
                examples,
                new TrainingSet.Encoding(model, RESOLUTION, RATIO, TEXT_TOKENS, Placement.FLOAT32_CPU),
                ExampleCache.in(folder.resolve("cache")));
        AttentionWindow window = AttentionWindow.ofRatio(RATIO);
        try (FluxTransformer plain = FluxTransformer.load(model, Placement.FLOAT32_CPU);
                Lora lora = Lora.load(GIVEN.file());
                FluxTransformer adapted =
                        plain.withLoras(List.of(new ScaledLora(lora, GIVEN.scale())), LoraScope.GUIDANCE);
                FlowMatching withoutLora = new FlowMatching(plain, Recipe.AttentionKind.NATIVE, window);
                FlowMatching withLora = new FlowMatching(adapted, Recipe.AttentionKind.NATIVE, window)) {
            assertThat(samples).hasSize(4 * LEVELS);
            for (int count = 0; count < samples.size(); count++) {
                Sample sample = samples.get(count);
                int picture = chance.sample(count / LEVELS);
                int band = count % LEVELS;
                long noise = chance.noise(count);
                assertThat(sample.picture()).isEqualTo(examples.get(picture).name());
                assertThat(sample.band()).isEqualTo(band);
                assertThat(sample.sigma() * LEVELS).isBetween((double) band, band + 1.0);
                Tensors.run(() -> {
                    TokenGrid grid = set.bucket(picture).grid();
                    TrainingSet.Inputs inputs = set.inputs(picture);
                    FlowMatching.Noising noising =
                            new FlowMatching.Noising(sample.sigma(), SeededNoise.draw(noise, grid));
                    Losses losses = sample.losses();
                    assertThat(losses.withoutLora()).isEqualTo(withoutLora.loss(grid, inputs, noising, () -> {}));
                    assertThat(losses.withLora())
                            .isEqualTo(withLora.loss(grid, inputs, noising, () -> {}))
                            .isNotEqualTo(losses.withoutLora());
                    assertThat(losses.dense())
                            .isCloseTo(denseLoss(plain, grid, inputs, noising), within(1e-5 * losses.dense()));
                });
            }
        }
        assertThat(samples.stream().map(Sample::picture).distinct()).hasSize(4);
        assertThat(samples.stream().map(Sample::sigma).distinct()).hasSize(4 * LEVELS);
    }

    private static double denseLoss(
            FluxTransformer plain, TokenGrid grid, TrainingSet.Inputs inputs, FlowMatching.Noising noising) {
        try (Attention everyone = DenseAttention.full();
                Denoiser denoiser = plain.denoiser(
                        TokenLayout.raster(TEXT_TOKENS, grid.width(), grid.height()),
                        everyone,
                        10_000,
                        inputs.text().states(),
                        inputs.text().pooled(),
                        1)) {
            float[] image = Tensors.floats(inputs.image());
            float[] noise = Tensors.floats(noising.noise());
            Tensor noised = inputs.image()
                    .mul(new Scalar(1 - noising.sigma()))
                    .add(noising.noise().mul(new Scalar(noising.sigma())));
            float[] velocity = Tensors.floats(denoiser.velocity(noised, noising.sigma(), () -> {}));
            double sum = 0;
            for (int i = 0; i < velocity.length; i++) {
                sum += Math.pow(velocity[i] - (noise[i] - image[i]), 2);
            }
            return sum / velocity.length;
        }
    }

    @Test
    void aLoraOfZerosChangesNothingAtAll() {
        SortedMap<String, Lora.Layer> layers = new TreeMap<>();
        Path zero = folder.resolve("zero.safetensors");
        try (Lora given = Lora.load(GIVEN.file())) {
            Tensors.run(() -> {
                given.layers()
                        .forEach((module, layer) -> layers.put(
                                module, new Lora.Layer(layer.down(), layer.up().mul(new Scalar(0)), layer.scale())));
                PeftLora.write(zero, layers, Map.of());
            });
        }
        assertThat(measured(new LoraFile(zero, 1)))
                .allSatisfy(sample -> assertThat(sample.losses().withLora())
                        .isEqualTo(sample.losses().withoutLora()));
    }

    @Test
    void theSeedDecidesEverything() {
        List<Sample> all = measured(GIVEN);
        assertThat(measured(GIVEN)).isEqualTo(all);
        Counting counting = new Counting();
        assertThat(HeldOutLoss.measure(order(GIVEN, OptionalInt.of(2), Recipe.AttentionKind.NATIVE, SEED), counting))
                .isEqualTo(all.subList(0, 2 * LEVELS));
        assertThat(counting.heard).startsWith("1/6", "2/6").endsWith("6/6").hasSize(6);
        assertThat(measured(order(GIVEN, OptionalInt.empty(), Recipe.AttentionKind.NATIVE, SEED + 1)))
                .doesNotContainAnyElementsOf(all);
    }

    @Test
    void torchsAttentionHasTheSameLosses() {
        List<Sample> core = measured(GIVEN);
        List<Sample> torch = measured(order(GIVEN, OptionalInt.empty(), Recipe.AttentionKind.DENSE, SEED));
        for (int i = 0; i < core.size(); i++) {
            Losses expected = torch.get(i).losses();
            Losses losses = core.get(i).losses();
            assertThat(losses.dense()).isEqualTo(expected.dense());
            assertThat(losses.withoutLora() / expected.withoutLora()).isCloseTo(1, within(1e-5));
            assertThat(losses.withLora() / expected.withLora()).isCloseTo(1, within(1e-5));
        }
    }

    @Test
    void anInterruptStopsIt() {
        Counting interrupting = new Counting() {
            @Override
            public void measured(int done, int all) {
                super.measured(done, all);
                Thread.currentThread().interrupt();
            }
        };
        assertThatThrownBy(() -> HeldOutLoss.measure(
                        order(GIVEN, OptionalInt.empty(), Recipe.AttentionKind.NATIVE, SEED), interrupting))
                .isInstanceOf(CancellationException.class)
                .hasMessage("the measurement was stopped");
        assertThat(interrupting.heard).hasSize(1);
        assertThat(Thread.interrupted()).isFalse();
    }

    @Test
    void aScaleWithoutBoundsIsRefused() {
        assertThatThrownBy(() -> measured(new LoraFile(GIVEN.file(), 1e39)))
                .isInstanceOf(TrainingException.class)
                .hasMessageStartingWith("a loss of " + data + "/picture0")
                .hasMessageContaining(".png is no number: ");
    }
}
