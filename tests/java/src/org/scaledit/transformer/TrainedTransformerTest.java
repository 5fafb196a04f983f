package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.Attention;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** A batch in training computes what a picture is sampled with, and its gradients are differences of the loss. */
class TrainedTransformerTest {
    private static final int TEXT = 7;
    private static final int WIDTH = 5;
    private static final int HEIGHT = 3;
    private static final float[] SIGMAS = {0.9f, 0.3f};

    private static FluxConfig config;
    private static final Map<String, Tensor> weights = new LinkedHashMap<>(); // float32 leaves

    @BeforeAll
    static void load() {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        config = FluxConfig.of(directory.config("transformer"));
        try (Safetensors file = Safetensors.openModel(directory.part("transformer"), "diffusion_pytorch_model")) {
            FluxTransformer.expectedTensors(config).forEach((name, shape) -> {
                Tensor leaf = Tensors.outlive(
                        () -> Tensors.toFloat32(file.tensor(name)).clone());
                leaf.set_requires_grad(true);
                weights.put(name, leaf);
            });
        }
    }

    @AfterAll
    static void close() {
        weights.values().forEach(Tensor::close);
    }

    private static TrainedTransformer.Batch batch() {
        return batch(2);
    }

    /** @param count of pictures, 1 or 2 */
    private static TrainedTransformer.Batch batch(int count) {
        torch.manual_seed(3);
        return new TrainedTransformer.Batch(
                WIDTH,
                HEIGHT,
                torch.randn(count, WIDTH * HEIGHT, 64),
                Tensors.of(Arrays.copyOf(SIGMAS, count), count),
                torch.randn(count, TEXT, config.jointWidth()),
                torch.randn(count, config.pooledWidth()),
                2.5);
    }

    @Test
    void velocitiesAreThoseThatAPictureIsSampledWith() {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        Tensors.withoutGradients(() -> Tensors.run(() -> {
            TrainedTransformer.Batch batch = batch();
            TokenLayout layout = TokenLayout.raster(TEXT, WIDTH, HEIGHT);
            try (TrainedTransformer trained = new TrainedTransformer(config, weights, Placement.FLOAT32_CPU, false);
                    FluxTransformer plain = FluxTransformer.load(directory, Placement.FLOAT32_CPU);
                    Attention attention = DenseAttention.full()) {
                Tensor velocities = trained.velocity(batch);
                for (int i = 0; i < SIGMAS.length; i++) {
                    try (Denoiser denoiser = plain.denoiser(
                            layout,
                            attention,
                            FluxTransformer.THETA,
                            batch.states().select(0, i),
                            batch.pooled().select(0, i),
                            batch.guidance())) {
                        Tensor expected = denoiser.velocity(batch.latents().select(0, i), SIGMAS[i], () -> {});
                        assertThat(Golden.relativeL2(velocities.select(0, i), expected))
                                .isLessThan(2e-6);
                    }
                }
            }
        }));
    }

    private static UnaryOperator<Tensor> loss() {
        torch.manual_seed(4);
        Tensor target = torch.randn(2, WIDTH * HEIGHT, 64);
        return velocity -> torch.mse_loss(velocity, target.narrow(0, 0, velocity.size(0)));
    }

    private static double value(TrainedTransformer trained, TrainedTransformer.Batch batch) {
        double[] value = new double[1];
        Tensors.withoutGradients(() -> value[0] =
                Tensors.compute(() -> loss().apply(trained.velocity(batch)).item_double()));
        return value[0];
    }

    private static void clear() {
        weights.values()
                .forEach(weight -> Tensors.run(() -> {
                    if (weight.grad().defined()) {
                        weight.mutable_grad().zero_();
                    }
                }));
    }

    /** Along a random direction of one weight of each kind, or of the text. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "context_embedder.weight",
                "x_embedder.bias",
                "time_text_embed.timestep_embedder.linear_1.weight",
                "time_text_embed.text_embedder.linear_2.weight",
                "time_text_embed.guidance_embedder.linear_2.bias",
                "transformer_blocks.0.norm1.linear.weight",
                "transformer_blocks.1.attn.add_k_proj.weight",
                "transformer_blocks.0.attn.norm_added_q.weight",
                "transformer_blocks.1.attn.to_out.0.weight",
                "transformer_blocks.0.ff_context.net.2.weight",
                "single_transformer_blocks.0.attn.norm_k.weight",
                "single_transformer_blocks.1.proj_out.weight",
                "norm_out.linear.weight",
                "proj_out.weight"
            })
    void gradientsAreDifferencesOfTheLoss(String name) {
        try (TrainedTransformer trained = new TrainedTransformer(config, weights, Placement.FLOAT32_CPU, false)) {
            Tensors.run(() -> {
                TrainedTransformer.Batch batch = batch();
                clear();
                trained.addGradients(batch, loss());
                Tensor weight = Objects.requireNonNull(weights.get(name));
                // Along the gradient itself the difference is largest beside what float32 rounds away.
                Tensor gradient = weight.grad().clone();
                double length = gradient.norm().item_double();
                double step = 5e-3 / length;
                double[] values = new double[2];
                Tensors.withoutGradients(() -> {
                    weight.add_(gradient, new Scalar(step));
                    values[0] = value(trained, batch);
                    weight.add_(gradient, new Scalar(-2 * step));
                    values[1] = value(trained, batch);
                    weight.add_(gradient, new Scalar(step));
                });
                double difference = (values[0] - values[1]) / (2 * step);
                assertThat(difference / (length * length)).isBetween(0.98, 1.02);
            });
        }
    }

    private static TrainedTransformer.HiddenLoss second(int block) {
        torch.manual_seed(5);
        Tensor target = torch.randn(2, WIDTH * HEIGHT, config.width());
        return new TrainedTransformer.HiddenLoss(
                block, image -> torch.mse_loss(image, target.narrow(0, 0, image.size(0))));
    }

    /** It is none of what comes after its block, and adds to the gradients of all before: by differences of both losses' sum. */
    @Test
    void aSecondLossIsOfABlocksInput() {
        try (TrainedTransformer trained = new TrainedTransformer(config, weights, Placement.FLOAT32_CPU, false)) {
            Tensors.run(() -> {
                TrainedTransformer.Batch batch = batch();
                Map<String, Tensor> alone = new LinkedHashMap<>();
                clear();
                double first = trained.addGradients(batch, loss()).item_double();
                weights.forEach((name, weight) -> alone.put(name, weight.grad().clone()));
                clear();
                assertThat(trained.addGradients(batch, loss(), Optional.of(second(1)))
                                .item_double())
                        .isEqualTo(first);
                for (String name : List.of(
                        "x_embedder.weight",
                        "context_embedder.weight",
                        "time_text_embed.timestep_embedder.linear_1.weight",
                        "transformer_blocks.0.attn.to_q.weight",
                        "transformer_blocks.0.attn.add_v_proj.weight")) {
                    assertThat(change(name, alone)).as(name).isGreaterThan(1e-3);
                }
                for (String name : List.of(
                        "transformer_blocks.0.ff_context.net.2.weight", // of text alone
                        "transformer_blocks.1.attn.to_q.weight",
                        "single_transformer_blocks.0.proj_out.weight",
                        "proj_out.weight")) {
                    assertThat(change(name, alone)).as(name).isLessThan(1e-6);
                }
            });
        }
    }

    private static double change(String name, Map<String, Tensor> gradients) {
        return Golden.relativeL2(
                Objects.requireNonNull(weights.get(name)).grad(), Objects.requireNonNull(gradients.get(name)));
    }

    private static BatchOperators taped() {
        return new TapedBatch(config, new TorchBatchKernels(), Placement.FLOAT32_CPU);
    }

    /** Also of what the text comes from, and with a second loss. */
    @ParameterizedTest
    @CsvSource({
        "2, false, false, -1, 1e-6",
        "2, true, false, -1, 1e-5",
        "2, true, false, 1, 1e-5",
        "2, true, false, 3, 1e-5",
        "2, false, true, -1, 1e-5",
        "2, false, true, 0, 1e-5",
        "2, false, true, 1, 1e-5",
        "2, false, true, 2, 1e-5",
        "1, false, true, 2, 1e-5",
        "2, false, true, 3, 1e-5",
        "2, true, true, -1, 1e-5",
        "2, true, true, 0, 1e-5",
        "1, true, true, 2, 1e-5",
        "2, true, true, 3, 1e-5"
    })
    void blockByBlockAndTapedTheyAreTheSame(int count, boolean again, boolean taped, int block, double limit) {
        Optional<TrainedTransformer.HiddenLoss> other = block < 0 ? Optional.empty() : Optional.of(second(block));
        Map<String, Tensor> expected = new LinkedHashMap<>();
        try (TrainedTransformer whole = new TrainedTransformer(config, weights, Placement.FLOAT32_CPU, false);
                TrainedTransformer trained = new TrainedTransformer(
                        config,
                        weights,
                        Placement.FLOAT32_CPU,
                        again,
                        () -> taped ? taped() : new AutogradBatch(config))) {
            Tensors.run(() -> {
                TrainedTransformer.Batch batch = batch(count);
                batch.states().set_requires_grad(true);
                batch.pooled().set_requires_grad(true);
                clear();
                double first = whole.addGradients(batch, loss(), other).item_double();
                weights.forEach(
                        (name, weight) -> expected.put(name, weight.grad().clone()));
                expected.put("states", batch.states().grad().clone());
                expected.put("pooled", batch.pooled().grad().clone());
                clear();
                batch.states().mutable_grad().zero_();
                batch.pooled().mutable_grad().zero_();
                double second = trained.addGradients(batch, loss(), other).item_double();
                assertThat(second / first).isBetween(1 - limit, 1 + limit);
                Map<String, Tensor> made = new LinkedHashMap<>(weights);
                made.put("states", batch.states());
                made.put("pooled", batch.pooled());
                made.forEach((name, tensor) -> assertThat(
                                Golden.relativeL2(tensor.grad(), Objects.requireNonNull(expected.get(name))))
                        .as(name)
                        .isLessThan(limit));
            });
        }
    }

    @Test
    void velocitiesAreTheSameTaped() {
        try (TrainedTransformer whole = new TrainedTransformer(config, weights, Placement.FLOAT32_CPU, false);
                TrainedTransformer trained = new TrainedTransformer(
                        config, weights, Placement.FLOAT32_CPU, false, TrainedTransformerTest::taped)) {
            Tensors.run(() -> assertThat(Golden.relativeL2(trained.velocity(batch()), whole.velocity(batch())))
                    .isLessThan(2e-6));
        }
    }

    /** What fails half way leaves the next pass as it is. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aLossThatFailsLeavesNothing(boolean again) {
        try (TrainedTransformer trained =
                new TrainedTransformer(config, weights, Placement.FLOAT32_CPU, again, TrainedTransformerTest::taped)) {
            Tensors.run(() -> {
                clear();
                double first = trained.addGradients(batch(), loss()).item_double();
                assertThatThrownBy(() -> trained.addGradients(
                                batch(), loss(), Optional.of(new TrainedTransformer.HiddenLoss(2, image -> {
                                    throw new IllegalStateException("no loss");
                                }))))
                        .hasMessage("no loss");
                assertThat(trained.addGradients(batch(), loss()).item_double()).isEqualTo(first);
            });
        }
    }

    @Test
    void aSecondLossIsOfABlock() {
        try (TrainedTransformer trained = new TrainedTransformer(config, weights, Placement.FLOAT32_CPU, false)) {
            Tensors.run(() -> assertThatThrownBy(() -> trained.addGradients(batch(), loss(), Optional.of(second(4))))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("a second loss of block 4, expected one from 0 to 3"));
        }
    }

    /** Where the core would refuse them torch computes. */
    @ParameterizedTest
    @CsvSource({
        "2, 128, true",
        "24, 128, true",
        "25, 128, true",
        "26, 128, false",
        "51, 64, true",
        "52, 64, false",
        "4, 32, false"
    })
    void theCoreTakesWidthsThatItHasKernelsFor(int heads, int headDim, boolean taken) {
        FluxConfig sizes = new FluxConfig(64, 1, 1, heads, headDim, 32, 32, false, List.of(16, 56, 56));
        assertThat(CudaBatchKernels.take(sizes)).isEqualTo(taken);
    }
}
