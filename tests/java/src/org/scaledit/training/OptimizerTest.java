package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.function.DoubleUnaryOperator;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.StringViewOptional;
import org.bytedeco.pytorch.T_TensorTensorTensor_T;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** Prodigy against the reference's trajectories, AdamW against its formula. */
class OptimizerTest {

    static Stream<Arguments> trajectories() {
        return StreamSupport.stream(
                        Golden.json("training/prodigy_quadratic")
                                .get("variants")
                                .spliterator(),
                        false)
                .map(variant -> variant.get("name").asText())
                .flatMap(name -> Stream.of(
                        Arguments.of(name, "f64", torch.ScalarType.Double, 1e-6),
                        Arguments.of(name, "f32", torch.ScalarType.Float, 1e-2)));
    }

    @ParameterizedTest
    @MethodSource("trajectories")
    void prodigyGoesTheReferencesWay(String name, String precision, torch.ScalarType type, double limit) {
        try (Golden golden = Golden.open("training/prodigy_quadratic")) {
            Tensors.run(() -> {
                Tensor curvature = golden.tensor("curvature").to(type);
                Tensor goal = golden.tensor("goal").to(type);
                Tensor x = golden.tensor("start").to(type).clone();
                x.set_requires_grad(true);
                Tensor expected = golden.tensor(name + "_" + precision + "_x");
                Tensor numbers = golden.tensor(name + "_" + precision + "_d"); // loss, dlr, d, d_max, …
                try (Prodigy prodigy = new Prodigy(Map.of("x", x), settings(golden.json(), name))) {
                    for (int step = 0; step < 100; step++) {
                        Tensor loss = curvature.mul(x.sub(goal).square()).sum().mul(new Scalar(0.5));
                        loss.backward();
                        prodigy.step();
                        x.mutable_grad().zero_();
                        Tensor row = numbers.select(0, step);
                        assertThat(loss.item_double()).isCloseTo(number(row, 0), relatively(limit, number(row, 0)));
                        assertThat(prodigy.learningRate())
                                .as("d after step %d", step)
                                .isCloseTo(number(row, 2), relatively(limit, number(row, 2)));
                        assertThat(Golden.relativeL2(x.detach(), expected.select(0, step)))
                                .as("x after step %d", step)
                                .isLessThan(limit);
                    }
                }
            });
        }
    }

    private static org.assertj.core.data.Offset<Double> relatively(double limit, double to) {
        return within(limit * Math.abs(to));
    }

    private static double number(Tensor row, int column) {
        return row.select(0, column).item_double();
    }

    private static Prodigy.Settings settings(JsonNode json, String name) {
        JsonNode variant = StreamSupport.stream(json.get("variants").spliterator(), false)
                .filter(candidate -> candidate.get("name").asText().equals(name))
                .findFirst()
                .orElseThrow();
        return new Prodigy.Settings(
                variant.get("lr").asDouble(),
                variant.get("weight_decay").asDouble(),
                variant.get("use_bias_correction").asBoolean(),
                variant.get("safeguard_warmup").asBoolean(),
                variant.get("d0").asDouble());
    }

    @Test
    void adamWIsItsFormula() {
        Tensors.run(() -> {
            Tensor x = Tensors.of(new float[] {3}, 1).to(torch.ScalarType.Double);
            x.set_requires_grad(true);
            DoubleUnaryOperator gradient = at -> 2 * at - 1;
            double expected = 3;
            double mean = 0;
            double square = 0;
            try (AdamW adamW = new AdamW(Map.of("x", x), 0.1, 0.02)) {
                for (int step = 1; step <= 50; step++) {
                    x.square().sub(x).sum().backward();
                    adamW.step();
                    x.mutable_grad().zero_();
                    double g = gradient.applyAsDouble(expected);
                    mean = 0.9 * mean + 0.1 * g;
                    square = 0.999 * square + 0.001 * g * g;
                    double unbiased = mean / (1 - Math.pow(0.9, step));
                    double root = Math.sqrt(square / (1 - Math.pow(0.999, step)));
                    expected = expected * (1 - 0.1 * 0.02) - 0.1 * unbiased / (root + 1e-8);
                    assertThat(x.item_double()).isCloseTo(expected, within(1e-9));
                }
                assertThat(adamW.learningRate()).isEqualTo(0.1);
            }
        });
    }

    /** Singular vectors stay, all singular values come near 1; what has almost none is not blown up. */
    @ParameterizedTest
    @CsvSource({"6, 16", "16, 6", "9, 9"})
    void muonMakesMatricesOrthogonal(long rows, long columns) {
        Tensors.run(() -> {
            torch.manual_seed(4);
            Tensor matrices = torch.randn(2, rows, columns).mul_(new Scalar(3e-4));
            Tensor made = Muon.orthogonal(matrices);
            for (int i = 0; i < 2; i++) {
                T_TensorTensorTensor_T parts = torch.linalg_svd(
                        matrices.select(0, i).to(torch.ScalarType.Double), false, new StringViewOptional());
                Tensor values = parts.get0()
                        .t()
                        .matmul(made.select(0, i).to(torch.ScalarType.Double))
                        .matmul(parts.get2().t());
                Tensor beside = values.sub(values.diag().diag());
                assertThat(beside.abs().max().item_double()).isLessThan(1e-3);
                assertThat(values.diag().min().item_double()).isGreaterThan(0.6);
                assertThat(values.diag().max().item_double()).isLessThan(1.25);
            }
            assertThat(Muon.orthogonal(torch.zeros(1, rows, columns))
                            .abs()
                            .max()
                            .item_float())
                    .isZero();
        });
    }

    /** Hidden matrices of a shape are one stack; each goes its own way, all else AdamW's. */
    @Test
    void muonChangesHiddenMatricesAndAdamWTheRest() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put("transformer.x_embedder.weight", new long[] {16, 8});
        shapes.put("transformer.transformer_blocks.0.attn.to_q.weight", new long[] {16, 8});
        shapes.put("transformer.transformer_blocks.0.attn.to_q.bias", new long[] {16});
        shapes.put("transformer.transformer_blocks.0.ff.net.2.weight", new long[] {8, 8});
        shapes.put("transformer.single_transformer_blocks.0.proj_out.weight", new long[] {16, 8});
        shapes.put("transformer.single_transformer_blocks.0.norm.linear.weight", new long[] {16, 8});
        shapes.put(
                "text_encoder_2.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                new long[] {8, 8});
        shapes.put("text_encoder_2.encoder.block.0.layer.0.SelfAttention.o.weight", new long[] {8, 8});
        Set<String> hidden = Set.of(
                "transformer.transformer_blocks.0.attn.to_q.weight",
                "transformer.transformer_blocks.0.ff.net.2.weight",
                "transformer.single_transformer_blocks.0.proj_out.weight",
                "text_encoder_2.encoder.block.0.layer.0.SelfAttention.o.weight");
        assertThat(List.copyOf(Muon.ordered(shapes).keySet()).subList(0, 4))
                .containsExactlyInAnyOrderElementsOf(hidden);
        try (ParameterSet parameters = new ParameterSet(Muon.ordered(shapes), Placement.FLOAT32_CPU, 1)) {
            torch.manual_seed(3);
            parameters.begin((name, shape) -> torch.randn(shape));
            Map<String, Tensor> apart = new LinkedHashMap<>();
            Map<String, Tensor> momenta = new LinkedHashMap<>();
            parameters.leaves("").forEach((name, leaf) -> {
                apart.put(name, Tensors.outlive(() -> leaf.detach().clone()));
                momenta.put(name, Tensors.outlive(() -> torch.zeros_like(leaf.detach())));
            });
            Map<String, Tensor> rest = new LinkedHashMap<>(apart);
            rest.keySet().removeAll(hidden);
            try (Muon muon = new Muon(parameters, step -> 0.01 * step, 0.1);
                    AdamW adam = new AdamW(rest, step -> 0.01 * step, 0.1)) {
                assertThat(muon.state()).hasSize(1 + 2 + 2); // steps; means and squares of the rest; two stacks
                for (int step = 1; step <= 3; step++) {
                    double rate = 0.01 * step;
                    Tensors.run(() -> {
                        parameters.clearGradients();
                        parameters.leaves("").forEach((name, leaf) -> {
                            Tensor gradient = torch.randn(leaf.sizes().vec().get());
                            leaf.grad().copy_(gradient);
                            Tensor weight = Objects.requireNonNull(apart.get(name));
                            if (!hidden.contains(name)) {
                                weight.mutable_grad().put(gradient.clone());
                                return;
                            }
                            Tensor momentum = Objects.requireNonNull(momenta.get(name))
                                    .mul_(new Scalar(0.95))
                                    .add_(gradient);
                            Tensor direction = Muon.orthogonal(
                                    gradient.add(momentum, new Scalar(0.95)).unsqueeze(0));
                            double size = 0.2 * Math.sqrt(Math.max(weight.size(0), weight.size(1)));
                            weight.mul_(new Scalar(1 - 0.1 * rate)).sub_(direction.squeeze(0), new Scalar(rate * size));
                        });
                        parameters.gather();
                    });
                    assertThat(muon.learningRate()).isEqualTo(rate);
                    muon.step();
                    adam.step();
                }
            }
            parameters.leaves("").forEach((name, leaf) -> {
                if (hidden.contains(name)) {
                    assertThat(Golden.relativeL2(leaf.detach(), Objects.requireNonNull(apart.get(name))))
                            .as(name)
                            .isLessThan(1e-6);
                } else {
                    assertThat(leaf.equal(Objects.requireNonNull(apart.get(name))))
                            .as(name)
                            .isTrue();
                }
            });
            apart.values().forEach(Tensor::close);
            momenta.values().forEach(Tensor::close);
        }
    }
}
