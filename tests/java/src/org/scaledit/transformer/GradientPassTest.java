package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.BiFunction;
import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.AutogradAttention;
import org.scaledit.attention.DifferentiableAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.transformer.Sequence.Backend;

/** The gradients of a LoRA in training: against the reference's, and against differences of the loss. */
class GradientPassTest {
    private static final double LOSS_LIMIT = 1e-5;
    private static final double GRADIENT_LIMIT = 2e-4;
    static final double BFLOAT16_LOSS_LIMIT = 2e-3;
    static final double BFLOAT16_GRADIENT_LIMIT = 6e-2;

    /** How far parameters are moved, in the length of their change. */
    private static final double STEP = 0.05;

    private static FluxTransformer float32;
    private static FluxTransformer bfloat16;

    @BeforeAll
    static void load() {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        float32 = FluxTransformer.load(directory, Placement.FLOAT32_CPU);
        bfloat16 = FluxTransformer.load(directory, Placement.BFLOAT16_CPU);
    }

    @AfterAll
    static void close() {
        float32.close();
        bfloat16.close();
    }

    @ParameterizedTest
    @EnumSource(names = {"DENSE_RASTER", "NATIVE_HILBERT"})
    void theReferencesStepHasItsLossAndGradients(Backend backend) {
        assertStep(float32, backend, Placement.FLOAT32_CPU, LOSS_LIMIT, GRADIENT_LIMIT);
    }

    @ParameterizedTest
    @EnumSource(names = {"DENSE_RASTER", "NATIVE_HILBERT"})
    void inBfloat16TheyAreAsNearAsBfloat16Is(Backend backend) {
        assertStep(bfloat16, backend, Placement.FLOAT32_CPU, BFLOAT16_LOSS_LIMIT, BFLOAT16_GRADIENT_LIMIT);
    }

    /** As on a GPU, where one product makes the queries, keys and values of some heads. */
    @Test
    void inGroupsOfHeadsTheyAreTheSame() {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        Weights weights = Weights.of(
                Safetensors.openModel(directory.part("transformer"), "diffusion_pytorch_model"), Placement.FLOAT32_CPU);
        try (FluxTransformer grouped =
                FluxTransformer.load(FluxConfig.of(directory.config("transformer")), weights, 2, false)) {
            assertStep(grouped, Backend.NATIVE_HILBERT, Placement.FLOAT32_CPU, LOSS_LIMIT, GRADIENT_LIMIT);
        }
    }

    /** @param placement of the sequence's mask */
    static void assertStep(
            FluxTransformer transformer, Backend backend, Placement placement, double lossLimit, double gradientLimit) {
        try (Golden golden = Golden.open("training/step");
                Lora lora = Lora.load(Golden.path("golden/lora/scaledit_lora.safetensors"));
                FluxTransformer trained = transformer.withTrainedLora(lora, LoraScope.GUIDANCE);
                Sequence sequence = sequence(golden.json(), backend, placement)) {
            for (int round = 1; round <= 2; round++) { // gradients add up
                double loss = Tensors.compute(() -> step(golden, trained, sequence));
                double expected = golden.float32("loss").item_double();
                assertThat(Math.abs(loss / expected - 1)).isLessThan(lossLimit);
                Scalar times = new Scalar(round);
                trained.trainedLayers().forEach((module, layer) -> {
                    assertGradient(golden, module + ".lora_A.weight", layer.down(), times, gradientLimit);
                    assertGradient(golden, module + ".lora_B.weight", layer.up(), times, gradientLimit);
                });
            }
            assertThat(trained.trainedLayers()).hasSize(12);
        }
    }

    private static void assertGradient(Golden golden, String name, Tensor parameter, Scalar times, double limit) {
        Tensors.run(() -> {
            Tensor expected = golden.float32("grad.transformer." + name).mul(times);
            if (expected.norm().item_double() == 0) { // of what is dropped after the last block
                assertThat(parameter.grad().norm().item_double()).as(name).isZero();
            } else {
                assertThat(Golden.relativeL2(parameter.grad().cpu(), expected))
                        .as(name)
                        .isLessThan(limit);
            }
        });
    }

    private static double step(Golden golden, FluxTransformer transformer, Sequence sequence) {
        return evaluated(
                golden,
                transformer,
                sequence,
                (denoiser, latents, loss) -> new GradientPass(denoiser, (DifferentiableAttention) sequence.attention())
                        .add(latents, sigma(golden), loss));
    }

    /** The loss alone, by the pass that generates pictures. */
    private static double loss(Golden golden, FluxTransformer transformer, Sequence sequence) {
        return evaluated(
                golden,
                transformer,
                sequence,
                (denoiser, latents, loss) -> loss.apply(denoiser.velocity(latents, sigma(golden), () -> {}))
                        .item_double());
    }

    private interface Evaluation {
        double of(Denoiser denoiser, Tensor latents, UnaryOperator<Tensor> loss);
    }

    private static double sigma(Golden golden) {
        return golden.json().get("sigma").asDouble();
    }

    private static double evaluated(
            Golden golden, FluxTransformer transformer, Sequence sequence, Evaluation evaluation) {
        TokenLayout layout = sequence.layout();
        Tensor image = layout.arrangeImage(golden.float32("x0"));
        Tensor noise = layout.arrangeImage(golden.float32("noise"));
        try (Denoiser denoiser = transformer.denoiser(
                layout,
                sequence.attention(),
                FluxTransformer.NTK_THETA,
                golden.float32("prompt_embeds"),
                golden.float32("pooled"),
                1,
                layout.arrangeGuidance(golden.float32("x_lr")))) {
            Tensor noised = image.mul(new Scalar(1 - sigma(golden))).add(noise.mul(new Scalar(sigma(golden))));
            return evaluation.of(
                    denoiser,
                    noised,
                    velocity -> torch.mse_loss(
                            velocity.cpu().to(torch.ScalarType.Double),
                            noise.sub(image).to(torch.ScalarType.Double)));
        }
    }

    private static Sequence sequence(JsonNode json, Backend backend) {
        return sequence(json, backend, Placement.FLOAT32_CPU);
    }

    private static Sequence sequence(JsonNode json, Backend backend, Placement placement) {
        return Sequence.of(
                backend,
                placement,
                json.get("T").asInt(),
                json.get("W").asInt(),
                json.get("H").asInt(),
                Optional.of(AttentionWindow.DEFAULT));
    }

    /** Every target that a LoRA can have, on the tokens that the scope says: the same layer of all blocks at a time. */
    @ParameterizedTest
    @EnumSource
    void theGradientOfEveryTargetIsTheDifferenceOfTheLoss(LoraScope scope) {
        torch.manual_seed(5);
        try (Golden golden = Golden.open("training/step");
                Lora lora = wideLora();
                FluxTransformer trained = float32.withTrainedLora(lora, scope);
                Sequence sequence = sequence(golden.json(), Backend.NATIVE_HILBERT)) {
            Tensors.compute(() -> step(golden, trained, sequence));
            assertThat(trained.trainedLayers()).hasSameSizeAs(lora.layers());
            Map<String, List<Tensor>> parameters = new TreeMap<>();
            trained.trainedLayers()
                    .forEach((module, layer) -> parameters
                            .computeIfAbsent(module.replaceFirst(".*blocks\\.\\d+\\.", ""), kind -> new ArrayList<>())
                            .addAll(List.of(layer.down(), layer.up())));
            assertThat(parameters).hasSizeGreaterThan(8);
            parameters.forEach((kind, ofKind) -> Tensors.run(() -> {
                double expected = ofKind.stream()
                        .mapToDouble(
                                parameter -> 2 * STEP * parameter.grad().norm().item_double())
                        .sum();
                double difference = moved(golden, trained, sequence, ofKind, STEP)
                        - moved(golden, trained, sequence, ofKind, -STEP);
                assertThat(difference).as(kind).isBetween(0.98 * expected, 1.02 * expected);
            }));
        }
    }

    /** The loss with each parameter moved so far along its gradient, and back again. */
    private static double moved(
            Golden golden, FluxTransformer trained, Sequence sequence, List<Tensor> parameters, double by) {
        List<Tensor> starts =
                parameters.stream().map(parameter -> parameter.detach().clone()).toList();
        Tensors.withoutGradients(() -> parameters.stream()
                .filter(parameter -> parameter.grad().norm().item_double() > 0)
                .forEach(parameter -> parameter.add_(
                        parameter.grad(),
                        new Scalar(by / parameter.grad().norm().item_double()))));
        double loss = Tensors.compute(() -> loss(golden, trained, sequence));
        Tensors.withoutGradients(() -> {
            for (int i = 0; i < starts.size(); i++) {
                parameters.get(i).copy_(starts.get(i));
            }
        });
        return loss;
    }

    private static Lora wideLora() {
        Map<String, Lora.Layer> layers = new TreeMap<>();
        BiFunction<Long, Long, Tensor> random = (rows, columns) ->
                Tensors.outlive(() -> new Tensor(torch.randn(rows, columns).mul_(new Scalar(0.1))));
        try (Lora wide = Lora.load(Golden.path("golden/lora/wide_lora.safetensors"))) {
            wide.layers()
                    .forEach((module, layer) -> layers.put(
                            module,
                            new Lora.Layer(
                                    random.apply(2L, layer.down().size(1)),
                                    random.apply(layer.up().size(0), 2L),
                                    0.5)));
        }
        return new Lora(Path.of("some.safetensors"), layers);
    }

    /** Double and single blocks, with the core's attention inside. */
    @Test
    void theGradientOfABlocksInputIsTheDifferenceOfItsOutput() {
        torch.manual_seed(6);
        try (Golden golden = Golden.open("training/step");
                Sequence sequence = sequence(golden.json(), Backend.NATIVE_HILBERT)) {
            TokenLayout layout = sequence.layout();
            DifferentiableAttention core = (DifferentiableAttention) sequence.attention();
            List<FluxModel.Block> blocks = float32.model().blocks();
            assertThat(blocks).hasSize(4);
            try (Denoiser denoiser = float32.denoiser(
                    layout,
                    core,
                    FluxTransformer.NTK_THETA,
                    golden.float32("prompt_embeds"),
                    golden.float32("pooled"),
                    1,
                    layout.arrangeGuidance(golden.float32("x_lr")))) {
                for (FluxModel.Block block : blocks) {
                    Tensors.run(() -> assertBlock(block, denoiser, core, layout.tokens()));
                }
            }
        }
    }

    private static void assertBlock(
            FluxModel.Block block, Denoiser denoiser, DifferentiableAttention core, long tokens) {
        Pass pass = denoiser.pass(0.4, part -> {});
        long width = float32.config().width();
        Tensor input = torch.randn(tokens, width).set_requires_grad(true);
        Tensor factors = torch.randn(tokens, width);
        Tensor output = input.clone();
        try (Attention attention = new AutogradAttention(core)) {
            block.forward(output, pass.with(attention, new AutogradTokenWise()));
            output.mul(factors).sum().backward();
        }
        Tensor plain = input.detach().clone();
        block.forward(plain, pass);
        assertThat(Golden.relativeL2(output.detach(), plain)).isLessThan(1e-6);

        Tensor gradient = input.grad();
        List<Tensor> directions = new ArrayList<>(List.of(gradient.div(gradient.norm())));
        for (int i = 0; i < 3; i++) {
            Tensor direction = torch.randn(tokens, width);
            directions.add(direction.div(direction.norm()));
        }
        double length = gradient.norm().item_double();
        for (Tensor direction : directions) {
            Tensor step = direction.mul(new Scalar(0.25));
            Tensor ahead = input.detach().add(step);
            Tensor behind = input.detach().sub(step);
            block.forward(ahead, pass);
            block.forward(behind, pass);
            double difference = ahead.sub(behind)
                    .to(torch.ScalarType.Double)
                    .mul(factors)
                    .sum()
                    .div(new Scalar(0.5))
                    .item_double();
            double expected =
                    gradient.to(torch.ScalarType.Double).mul(direction).sum().item_double();
            assertThat(Math.abs(difference - expected)).isLessThan(1e-3 * length);
        }
    }

    @Test
    void aLayerThatCannotBeTrainedIsNamed() {
        Map<String, Lora.Layer> layers = new TreeMap<>();
        layers.put("transformer_blocks.0.attn.add_q_proj", new Lora.Layer(torch.zeros(2, 256), torch.zeros(256, 2), 1));
        Lora lora = new Lora(Path.of("some.safetensors"), layers);
        assertThatThrownBy(() -> float32.withTrainedLora(lora, LoraScope.GUIDANCE))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("LoRA some.safetensors has no effect on transformer_blocks.0.attn.add_q_proj: the scope"
                        + " reaches guidance tokens alone, which never pass through it");
    }
}
