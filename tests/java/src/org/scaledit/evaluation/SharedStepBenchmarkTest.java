package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.scaledit.attention.CudaAttention;
import org.scaledit.testing.Golden;

@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class SharedStepBenchmarkTest {

    /** Of the tiny model: two heads of 128, in float32. */
    @Test
    void stepsOfRanksThatShareTheCpuAreMeasured() {
        List<SharedMeasurement> measured = new ArrayList<>();
        SharedStepBenchmark benchmark = SharedStepBenchmark.open(
                Optional.of(Golden.tinyFlux()),
                new SharedStepBenchmark.Plan(
                        List.of(Method.SCALEDIT, Method.SCALEDIT_EXACT), List.of(512, 768), List.of(), 16, 1, 2),
                OptionalInt.of(2),
                false);
        assertThat(benchmark.hardware()).containsKeys("device", "torch", "java");
        benchmark.run(measured::add);
        assertThat(measured).extracting(SharedMeasurement::size).containsExactly(512, 512, 768, 768);
        for (SharedMeasurement measurement : measured) {
            assertThat(measurement.alone().orElseThrow()).isPositive();
            assertThat(measurement.exchanging())
                    .hasSize(2)
                    .allMatch(seconds -> 0 < seconds && seconds < 100 * measurement.together());
            // 512 pixels are 2 x 2 windows, of which each has two, and of 4 x 4 cells takes 4 of the other's; the
            // guidance image is one cell, which one of them has and the other takes.
            long text = 16 * (256 + 2) * 4;
            long keyAndValue = 2 * 256 * 4;
            if (measurement.size() == 512) {
                assertThat(measurement.bytes()).isEqualTo((4 * 64 + 64) * keyAndValue + text);
                assertThat(measurement.ringBytes()).isEqualTo((2 * 256 + 64) * keyAndValue);
            }
            assertThat(measurement.peakBytes()).containsExactly(0L, 0L);
        }
    }

    /** In INT8 a key's and a value's 8 channels take 17 bytes; text is as it was. */
    @Tag("gpus")
    @Test
    void keysAndValuesOfInt8AreMovedInHalfTheBytes() {
        CudaAttention.requireGpus(2);
        List<SharedMeasurement> measured = new ArrayList<>();
        SharedStepBenchmark.open(
                        Optional.of(Golden.tinyFlux()),
                        new SharedStepBenchmark.Plan(
                                List.of(Method.SCALEDIT, Method.SCALEDIT_EXACT), List.of(512), List.of(), 16, 1, 1),
                        OptionalInt.of(2),
                        true)
                .run(measured::add);
        long rows = 4 * 64 + 64;
        long text = 16 * (256 * 2 + 2 * 4);
        assertThat(measured)
                .extracting(SharedMeasurement::bytes)
                .containsExactly(rows * 256 * 17 / 8 + text, rows * 2 * 256 * 2 + text);
        assertThat(measured).extracting(SharedMeasurement::ringBytes).containsOnly((2 * 256 + 64) * 2 * 256 * 2L);
    }

    @Test
    void aMeasurementIsALineOfTheTable() {
        SharedMeasurement measurement = new SharedMeasurement(
                Method.SCALEDIT_FP8,
                4096,
                OptionalDouble.of(0.96),
                0.5,
                List.of(0.012, 0.02),
                28 << 20,
                384 << 20,
                List.of(16L << 30, 17L << 30),
                Optional.empty());
        assertThat(measurement.speedUp()).hasValue(1.92);
        assertThat(measurement.line().split("\\s+"))
                .containsExactly(
                        "scaledit-fp8",
                        "4096",
                        "2",
                        "0.960",
                        "0.500",
                        "1.92",
                        "28.00",
                        "384.0",
                        "12.0",
                        "to",
                        "20.0",
                        "17.00");
        assertThat(SharedMeasurement.head()).hasSameSizeAs(measurement.line());
    }

    /** 28 steps of guidance and 28 of high resolution of the tiny model, by one rank and by two, and decoded likewise. */
    @Test
    void picturesOfRanksThatShareTheCpuAreMeasured() {
        List<SharedMeasurement> measured = new ArrayList<>();
        SharedStepBenchmark.open(
                        Optional.of(Golden.tinyFlux()),
                        new SharedStepBenchmark.Plan(
                                List.of(Method.SCALEDIT_EXACT), List.of(512), List.of(512), 16, 0, 1),
                        OptionalInt.of(2),
                        false)
                .run(measured::add);
        SharedMeasurement.Pictures pictures = measured.get(0).pictures().orElseThrow();
        assertThat(measured).hasSize(1);
        for (Measurement.Picture picture : List.of(pictures.alone().orElseThrow(), pictures.together())) {
            assertThat(picture.guidanceSteps()).isEqualTo(28);
            assertThat(picture.highResolutionSteps()).isEqualTo(28);
            assertThat(picture.guidance()).isPositive();
            assertThat(picture.highResolution()).isPositive();
            assertThat(picture.decode()).isPositive();
        }
        assertThat(measured.get(0).line().lines().skip(1))
                .containsExactly(
                        "    picture by one: " + pictures.alone().orElseThrow().text(),
                        "    picture by all: " + pictures.together().text());
    }

    @Test
    void picturesAreOfSizesThatAreMeasured() {
        assertThatThrownBy(() ->
                        new SharedStepBenchmark.Plan(List.of(Method.SCALEDIT), List.of(512), List.of(1024), 16, 1, 1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("pictures are [1024], expected some of the sizes [512]");
    }

    @Test
    void onlyScaleDitIsComputedTogether() {
        assertThatThrownBy(() ->
                        new SharedStepBenchmark.Plan(List.of(Method.DENSE_FLASH), List.of(512), List.of(), 16, 1, 1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("method dense-flash is asked of several GPUs, expected scaledit, scaledit-fp8 or"
                        + " scaledit-exact");
    }
}
