package org.scaledit.transformer;

import static org.scaledit.transformer.GradientPassTest.BFLOAT16_GRADIENT_LIMIT;
import static org.scaledit.transformer.GradientPassTest.BFLOAT16_LOSS_LIMIT;
import static org.scaledit.transformer.GradientPassTest.assertStep;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;
import org.scaledit.transformer.Sequence.Backend;

/** The reference's training step on a GPU, where projections are cut into groups of heads. */
@Tag("gpu")
class GradientPassGpuTest {

    @BeforeAll
    static void requireGpu() {
        CudaAttention.requireGpu();
    }

    @ParameterizedTest
    @EnumSource(names = {"DENSE_RASTER", "NATIVE_HILBERT"})
    void theReferencesStepHasItsLossAndGradients(Backend backend) {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        try (FluxTransformer inGroups = FluxTransformer.load(directory, Gpu.BFLOAT16);
                FluxTransformer trained = FluxTransformer.loadForTraining(directory, Gpu.BFLOAT16)) {
            assertStep(inGroups, backend, Gpu.BFLOAT16, BFLOAT16_LOSS_LIMIT, BFLOAT16_GRADIENT_LIMIT);
            assertStep(trained, backend, Gpu.BFLOAT16, BFLOAT16_LOSS_LIMIT, BFLOAT16_GRADIENT_LIMIT);
        }
    }
}
