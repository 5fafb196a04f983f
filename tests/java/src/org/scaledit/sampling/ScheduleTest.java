package org.scaledit.sampling;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
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

    private static Schedule read(Path folder, String fields) throws IOException {
        Path file = Files.writeString(folder.resolve("scheduler_config.json"), "{" + fields.replace('\'', '"') + "}");
        return Schedule.ofConfig(Config.read(file), 4, 80);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "'use_karras_sigmas': true        | use_karras_sigmas true, expected false",
                "'use_exponential_sigmas': true   | use_exponential_sigmas true, expected false",
                "'use_beta_sigmas': true          | use_beta_sigmas true, expected false",
                "'invert_sigmas': true            | invert_sigmas true, expected false",
                "'stochastic_sampling': true      | stochastic_sampling true, expected false",
                "'shift_terminal': 0.1            | shift_terminal 0.1, expected none",
                "'use_dynamic_shifting': true, 'time_shift_type': 'linear' | time_shift_type linear, expected exponential",
                "'shift': 0                       | shift 0.0, expected a number above 0",
                "'shift': -3                      | shift -3.0, expected a number above 0",
                "'shift': 1e999                   | shift Infinity, expected a number above 0",
                "'use_dynamic_shifting': true, 'max_image_seq_len': 256 | max_image_seq_len 256.0, expected more than"
                        + " base_image_seq_len, 256.0",
                "'use_dynamic_shifting': true, 'max_shift': 1e9 | base_shift 0.5 and max_shift 1.0E9, expected shifts whose exponential is a"
                        + " number above 0 at 80 image tokens",
                "'use_dynamic_shifting': true, 'base_shift': 1e999 | base_shift Infinity and max_shift 1.15, expected shifts whose exponential is a"
                        + " number above 0 at 80 image tokens",
            })
    void refusesAnotherSchedule(String fields, String sentence, @TempDir Path folder) {
        assertThatThrownBy(() -> read(folder, fields))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder.resolve("scheduler_config.json") + " has " + sentence);
    }

    /** As diffusers writes them. */
    @Test
    void takesWhatChangesNothing(@TempDir Path folder) throws IOException {
        String off = "'use_karras_sigmas': false, 'use_exponential_sigmas': false, 'use_beta_sigmas': null,"
                + " 'invert_sigmas': false, 'stochastic_sampling': false, 'shift_terminal': null, 'shift': 3.0,";
        assertThat(read(folder, off + "'time_shift_type': 'linear'").sigmas())
                .isEqualTo(Schedule.shifted(4, 3).sigmas());
        Schedule dynamic = read(folder, "'use_dynamic_shifting': true");
        assertThat(read(folder, off + "'use_dynamic_shifting': true, 'time_shift_type': 'exponential'")
                        .sigmas())
                .isEqualTo(dynamic.sigmas());
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
