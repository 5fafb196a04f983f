package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.image.Resize;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;
import org.scaledit.vae.AutoencoderKl;

/** A picture's way to its loss and on to the optimizer, against the reference's numbers. */
class FlowMatchingTest {
    private static final ModelDirectory MODEL = ModelDirectory.open(Golden.tinyFlux());

    @Test
    void aPictureAndItsGuidanceAreTheReferencesLatents() {
        try (Golden golden = Golden.open("training/step");
                AutoencoderKl vae = AutoencoderKl.load(MODEL.part("vae"), Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                Tensor image = golden.float32("image")
                        .permute(2, 0, 1)
                        .div(new Scalar(127.5))
                        .sub(new Scalar(1));
                Tensor small = Resize.toTrainingGuidance(
                        image, golden.json().get("rho").asInt());
                assertThat(Golden.maxAbsoluteDifference(small, golden.float32("image_down")))
                        .isLessThan(1e-5f);
                assertThat(Golden.maxAbsoluteDifference(TrainingSet.latents(vae, image), golden.float32("x0")))
                        .isLessThan(1e-4f);
                assertThat(Golden.maxAbsoluteDifference(TrainingSet.latents(vae, small), golden.float32("x_lr")))
                        .isLessThan(1e-4f);
            });
        }
    }

    @Test
    void aCaptionIsTheReferencesStates() {
        try (Golden golden = Golden.open("training/step");
                TextEncoders encoders = TextEncoders.load(MODEL, Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                Conditioning text = encoders.encode(
                        golden.json().get("prompt").asText(),
                        golden.json().get("T").asInt());
                assertThat(Golden.maxAbsoluteDifference(text.states(), golden.float32("prompt_embeds")))
                        .isLessThan(5e-4f);
                assertThat(Golden.maxAbsoluteDifference(text.pooled(), golden.float32("pooled")))
                        .isLessThan(2e-5f);
            });
        }
    }

    /** The whole of a step, twenty times. */
    @ParameterizedTest
    @EnumSource
    void twentyStepsOfProdigyAreTheReferences(Recipe.AttentionKind attention) {
        JsonNode steps = Golden.json("training/prodigy_model").get("steps");
        try (Golden golden = Golden.open("training/step");
                Golden trajectory = Golden.open("training/prodigy_model");
                FluxTransformer plain = FluxTransformer.load(MODEL, Placement.FLOAT32_CPU);
                Lora start = Lora.load(Golden.path("golden/lora/scaledit_lora.safetensors"));
                FluxTransformer trained = plain.withTrainedLora(start, LoraScope.GUIDANCE);
                FlowMatching matching = new FlowMatching(trained, attention, AttentionWindow.DEFAULT)) {
            Map<String, Tensor> parameters = new LinkedHashMap<>();
            trained.trainedLayers().forEach((module, layer) -> {
                parameters.put("transformer." + module + ".lora_A.weight", layer.down());
                parameters.put("transformer." + module + ".lora_B.weight", layer.up());
            });
            try (Prodigy prodigy = new Prodigy(parameters, Prodigy.Settings.DEFAULT)) {
                assertThat(steps).hasSize(20);
                for (JsonNode step : steps) {
                    Tensors.run(() -> {
                        boolean first = step.get("step").asInt() == 0;
                        assertLoss(golden, matching, step.get("loss_before").asDouble(), first);
                        if (first) {
                            parameters.forEach((name, parameter) -> assertGradient(golden, name, parameter));
                        }
                        prodigy.step();
                        parameters
                                .values()
                                .forEach(parameter -> parameter.mutable_grad().zero_());
                        assertThat(prodigy.learningRate() / step.get("d").asDouble())
                                .as("d after step %s", step.get("step"))
                                .isBetween(0.99, 1.01);
                        assertWatched(trajectory, step.get("step").asInt(), parameters);
                    });
                }
                for (JsonNode name : trajectory.json().get("watched")) {
                    Tensor parameter = Objects.requireNonNull(parameters.get(name.asText()));
                    Tensors.run(() -> assertThat(Golden.maxAbsoluteDifference(
                                    parameter.detach(), trajectory.float32("final." + name.asText())))
                            .isLessThan(3e-6f));
                }
            }
        }
    }

    /** @param inTwo whether gradients come in two halves, as those of two samples do, and the loss alone is looked at, too */
    private static void assertLoss(Golden golden, FlowMatching matching, double expected, boolean inTwo) {
        TrainingSet.Inputs inputs = new TrainingSet.Inputs(
                golden.float32("x0"),
                golden.float32("x_lr"),
                new Conditioning(golden.float32("prompt_embeds"), golden.float32("pooled")));
        JsonNode json = golden.json();
        TokenGrid grid = new TokenGrid(json.get("W").asInt(), json.get("H").asInt());
        FlowMatching.Noising noising =
                new FlowMatching.Noising(json.get("sigma").asDouble(), golden.float32("noise"));
        if (inTwo) {
            assertThat(matching.loss(grid, inputs, noising, () -> {}) / expected)
                    .isBetween(1 - 1e-5, 1 + 1e-5);
        }
        int parts = inTwo ? 2 : 1;
        for (int part = 0; part < parts; part++) {
            assertThat(matching.addGradients(grid, inputs, noising, 1.0 / parts) / expected)
                    .isBetween(1 - 1e-5, 1 + 1e-5);
        }
    }

    private static void assertGradient(Golden golden, String name, Tensor parameter) {
        Tensor expected = golden.float32("grad." + name);
        if (expected.norm().item_double() == 0) { // of what is dropped after the last block
            assertThat(parameter.grad().norm().item_double()).as(name).isZero();
        } else {
            assertThat(Golden.relativeL2(parameter.grad(), expected)).as(name).isLessThan(2e-4);
        }
    }

    /** The first 64 values of some matrices. */
    private static void assertWatched(Golden trajectory, int step, Map<String, Tensor> parameters) {
        Tensor expected = trajectory.float32("watched." + step);
        long first = 0;
        for (JsonNode name : trajectory.json().get("watched")) {
            Tensor parameter = Objects.requireNonNull(parameters.get(name.asText()));
            assertThat(Golden.maxAbsoluteDifference(
                            parameter.detach().flatten().narrow(0, 0, 64), expected.narrow(0, first, 64)))
                    .as("%s after step %d", name, step)
                    .isLessThan(3e-6f);
            first += 64;
        }
    }
}
