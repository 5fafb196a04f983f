package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.Map;
import java.util.function.DoubleUnaryOperator;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
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
}
