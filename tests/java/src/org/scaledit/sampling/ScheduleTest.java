package org.scaledit.sampling;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class ScheduleTest {
    private static final String CASES = "scheduler/schedules";

    private static Stream<JsonNode> cases() {
        return StreamSupport.stream(Golden.json(CASES).get("cases").spliterator(), false);
    }

    @ParameterizedTest
    @MethodSource("cases")
    void sigmasAndTimestepsEqualTheReference(JsonNode one) {
        String name = one.get("name").asText();
        Schedule schedule = schedule(one);
        try (Golden golden = Golden.open(CASES)) {
            float[] sigmas = Tensors.floats(golden.tensor(name + "_sigmas"));
            float[] timesteps = Tensors.floats(golden.tensor(name + "_timesteps"));
            assertThat(schedule.sigmas()).hasSize(sigmas.length).containsExactly(sigmas, within(1e-6f));
            for (int i = 0; i < timesteps.length; i++) {
                assertThat(schedule.sigmas()[i]).isCloseTo(timesteps[i] / 1000, within(1e-6f));
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"dev_4_80", "shift3_1"})
    void eulerFollowsTheReferenceTrajectory(String name) {
        JsonNode one = cases().filter(c -> c.get("name").asText().equals(name))
                .findFirst()
                .orElseThrow();
        try (PointerScope scope = new PointerScope();
                Golden golden = Golden.open(CASES)) {
            Tensor samples = golden.float32(name + "_samples"); // [steps + 1, 6, 8]
            Tensor outputs = golden.float32(name + "_model_outputs"); // [steps, 6, 8]
            int[] step = {0};
            Euler.integrate(
                    samples.get(0),
                    schedule(one),
                    0,
                    (latents, sigma) -> outputs.get(step[0]++),
                    (reached, latents) -> assertThat(Golden.maxAbsoluteDifference(latents, samples.get(reached)))
                            .isLessThan(1e-6f));
            assertThat(step[0]).isEqualTo(one.get("steps").asInt());
        }
    }

    @Test
    void refusesAScheduleWithoutSteps() {
        assertThatThrownBy(() -> Schedule.shifted(0, 3)).hasMessage("steps is 0, expected at least 1");
    }

    private static Schedule schedule(JsonNode one) {
        int steps = one.get("steps").asInt();
        String name = one.get("name").asText();
        if (name.startsWith("dev")) {
            ModelDirectory tiny = ModelDirectory.open(Golden.tinyFlux());
            return Schedule.ofCheckpoint(tiny, steps, one.get("image_tokens").asLong());
        }
        return Schedule.shifted(steps, name.startsWith("shift3") ? 3 : 1);
    }
}
