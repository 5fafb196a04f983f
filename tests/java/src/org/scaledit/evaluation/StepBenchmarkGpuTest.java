package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

@Tag("gpu")
class StepBenchmarkGpuTest {
    @BeforeAll
    static void requireGpu() {
        CudaAttention.requireGpu();
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void everyMethodIsMeasured(boolean low) {
        try (StepBenchmark benchmark = StepBenchmark.open(Optional.of(Golden.tinyFlux()), true, low)) {
            StepBenchmark.Plan plan =
                    new StepBenchmark.Plan(List.of(Method.values()), List.of(512), List.of(512), 32, 1, 2, true);
            benchmark.run(plan, measurement -> {}); // cuBLAS keeps memory of its own from now on
            long before = Gpu.allocatedBytes();
            List<Measurement> measurements =
                    benchmark.run(plan, measurement -> System.out.print(Report.line(measurement)));
            for (Measurement measurement : measurements) {
                if (low && measurement.method() == Method.TRAINING) {
                    assertThat(measurement.failure()).hasValue("memory low is for sampling alone");
                    continue;
                }
                assertThat(measurement.failure())
                        .as(measurement.method().label())
                        .isEmpty();
                Measurement.Result result = measurement.result().orElseThrow();
                assertThat(result.seconds()).isPositive();
                assertThat(result.bareSeconds()).isPresent();
                assertThat(result.picture().isPresent())
                        .isEqualTo(measurement.method().paints());
                result.picture()
                        .ifPresent(picture ->
                                assertThat(picture.decode()).isPositive().isLessThan(picture.seconds()));
                double parts = result.parts().values().stream()
                        .mapToDouble(Double::doubleValue)
                        .sum();
                assertThat(parts).isPositive().isLessThan(20 * result.seconds());
                assertThat(result.bytesAboveWeights().orElseThrow())
                        .isPositive()
                        .isLessThan(result.peakBytes().orElseThrow());
            }
            assertThat(Gpu.allocatedBytes()).isEqualTo(before);
        }
    }

    /** 16,384² pixels have 1,048,608 tokens: no GPU has the memory for their scores. */
    @Test
    void aSizeThatDoesNotFitIsARowAndTheNextOneIsMeasured() {
        try (StepBenchmark benchmark = StepBenchmark.open(Optional.of(Golden.tinyFlux()), true, false)) {
            List<Measurement> measurements = benchmark.run(
                    new StepBenchmark.Plan(List.of(Method.NAIVE), List.of(16_384, 256), List.of(), 32, 1, 1, false),
                    measurement -> {});
            assertThat(measurements.get(0).failure()).hasValue("out of memory");
            assertThat(measurements.get(1).result()).isPresent();
        }
    }
}
