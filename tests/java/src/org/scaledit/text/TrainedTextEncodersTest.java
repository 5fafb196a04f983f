package org.scaledit.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** Several texts at once, with their gradients, are what each prompt is encoded to. */
class TrainedTextEncodersTest {
    private static final ModelDirectory TINY = ModelDirectory.open(Golden.tinyFlux());
    private static final List<String> TEXTS = List.of("a fox", "three lighthouses in snow, 3D", "");
    private static final int TOKENS = 24;

    private static Map<String, Tensor> clip = new LinkedHashMap<>();
    private static Map<String, Tensor> t5 = new LinkedHashMap<>();

    @BeforeAll
    static void load() {
        clip = leaves("text_encoder", TrainedTextEncoders.expectedClipTensors(TINY.config("text_encoder")));
        t5 = leaves("text_encoder_2", TrainedTextEncoders.expectedT5Tensors(TINY.config("text_encoder_2")));
    }

    private static Map<String, Tensor> leaves(String part, Map<String, long[]> shapes) {
        Map<String, Tensor> leaves = new LinkedHashMap<>();
        try (Safetensors file = Safetensors.openModel(TINY.part(part), "model")) {
            shapes.forEach((name, shape) -> {
                Tensor leaf = Tensors.outlive(
                        () -> Tensors.toFloat32(file.tensor(name)).clone());
                leaf.set_requires_grad(true);
                leaves.put(name, leaf);
            });
        }
        return leaves;
    }

    @AfterAll
    static void close() {
        clip.values().forEach(Tensor::close);
        t5.values().forEach(Tensor::close);
    }

    private static TrainedTextEncoders trained() {
        return new TrainedTextEncoders(TINY, clip, t5, Placement.FLOAT32_CPU, false);
    }

    @Test
    void severalTextsAreEncodedAsEachIs() {
        try (TrainedTextEncoders trained = trained();
                TextEncoders plain = TextEncoders.load(TINY, Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                Conditioning encoded = trained.encode(trained.tokens(TEXTS, TEXTS, TOKENS));
                for (int i = 0; i < TEXTS.size(); i++) {
                    Conditioning expected = plain.encode(TEXTS.get(i), TOKENS);
                    assertThat(Golden.relativeL2(encoded.states().select(0, i), expected.states()))
                            .isLessThan(2e-6);
                    assertThat(Golden.relativeL2(encoded.pooled().select(0, i), expected.pooled()))
                            .isLessThan(2e-6);
                }
            });
        }
    }

    /** With scores scaled instead, as they are trained, and back again. */
    @Test
    void trainedQueriesAskTheSame() {
        long headDim = TINY.config("text_encoder_2").integer("d_kv");
        String query = "encoder.block.1.layer.0.SelfAttention.q.weight";
        Tensors.run(() -> {
            Map<String, Tensor> scaled = new LinkedHashMap<>();
            t5.forEach((name, weight) -> scaled.put(name, TrainedQueries.of(name, weight.detach(), headDim)));
            Tensor asStored = Objects.requireNonNull(t5.get(query));
            Tensor asTrained = Objects.requireNonNull(scaled.get(query));
            assertThat(Golden.relativeL2(asTrained, asStored)).isCloseTo(Math.sqrt(headDim) - 1, within(1e-5));
            assertThat(Golden.relativeL2(TrainedQueries.stored(query, asTrained, headDim), asStored))
                    .isLessThan(1e-6);
            try (TrainedTextEncoders files = trained();
                    TrainedTextEncoders training =
                            new TrainedTextEncoders(TINY, clip, scaled, Placement.FLOAT32_CPU, true)) {
                Tensor expected =
                        files.encode(files.tokens(TEXTS, TEXTS, TOKENS)).states();
                assertThat(Golden.relativeL2(
                                training.encode(training.tokens(TEXTS, TEXTS, TOKENS))
                                        .states(),
                                expected))
                        .isLessThan(2e-6);
            }
        });
    }

    private static Tensor loss(TrainedTextEncoders trained) {
        Conditioning encoded = trained.encode(trained.tokens(TEXTS, TEXTS, TOKENS));
        return encoded.states().sin().sum().add(encoded.pooled().sin().sum());
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "text_model.embeddings.token_embedding.weight",
                "text_model.encoder.layers.0.self_attn.k_proj.weight",
                "text_model.encoder.layers.1.mlp.fc2.weight",
                "shared.weight",
                "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                "encoder.block.1.layer.0.SelfAttention.q.weight",
                "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
                "encoder.final_layer_norm.weight"
            })
    void gradientsAreDifferencesOfTheLoss(String name) {
        try (TrainedTextEncoders trained = trained()) {
            Tensors.run(() -> {
                Tensor weight = Objects.requireNonNull(clip.getOrDefault(name, t5.get(name)));
                if (weight.grad().defined()) {
                    weight.mutable_grad().zero_();
                }
                loss(trained).backward();
                Tensor gradient = weight.grad().clone();
                double length = gradient.norm().item_double();
                double step = 1e-2 / length;
                double[] values = new double[2];
                Tensors.withoutGradients(() -> {
                    weight.add_(gradient, new Scalar(step));
                    values[0] = loss(trained).item_double();
                    weight.add_(gradient, new Scalar(-2 * step));
                    values[1] = loss(trained).item_double();
                    weight.add_(gradient, new Scalar(step));
                });
                assertThat((values[0] - values[1]) / (2 * step) / (length * length))
                        .isBetween(0.95, 1.05);
            });
        }
    }
}
