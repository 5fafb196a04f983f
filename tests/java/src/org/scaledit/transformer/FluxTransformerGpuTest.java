package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.AttentionWindow.GuidanceAttention;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;
import org.scaledit.transformer.Sequence.Backend;

/** The reference's forward passes on a GPU. */
@Tag("gpu")
class FluxTransformerGpuTest {
    private static final double FLOAT32_LIMIT = 2e-4;
    private static final double BFLOAT16_LIMIT = 2e-2;
    private static final double INT8_LIMIT = 8e-2; // attention alone is off by 4 %

    private static FluxTransformer float32;
    private static FluxTransformer bfloat16;

    @BeforeAll
    static void load() {
        CudaAttention.requireGpu();
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        float32 = FluxTransformer.load(directory, Gpu.FLOAT32);
        bfloat16 = FluxTransformer.load(directory, Gpu.BFLOAT16);
    }

    @AfterAll
    static void close() {
        float32.close();
        bfloat16.close();
    }

    /** The native core takes bfloat16 alone on a GPU: dense attention in float32, all of them in bfloat16. */
    @ParameterizedTest
    @MethodSource("org.scaledit.transformer.FluxTransformerTest#runs")
    void aHighResolutionPassHasTheVelocityOfTheReference(String name, String run, Backend backend) {
        try (Golden golden = Golden.open(name)) {
            Tensors.run(() -> {
                assertVelocity(golden, run, bfloat16, backend, backend.exact() ? BFLOAT16_LIMIT : INT8_LIMIT);
                if (backend == Backend.DENSE_RASTER) {
                    assertVelocity(golden, run, float32, backend, FLOAT32_LIMIT);
                }
            });
        }
    }

    private static void assertVelocity(
            Golden golden, String run, FluxTransformer transformer, Backend backend, double limit) {
        Tensor velocity =
                FluxTransformerTest.velocity(transformer, golden, run, backend).cpu();
        double off = Golden.relativeL2(FluxTransformerTest.rows(golden, "rows", velocity), golden.float32(run));
        System.out.printf(
                "%s %s %s: %.1e%n", run, backend, transformer.placement().dtype(), off);
        assertThat(off).isLessThan(limit);
    }

    /** Keys and values that are kept in INT8 and put back give what was computed in the first pass. */
    @ParameterizedTest
    @EnumSource
    void guidanceThatStandsAloneIsComputedOnce(Backend backend) {
        AttentionWindow window = new AttentionWindow(4, 16, 1, 3, GuidanceAttention.GLOBAL, false);
        try (Golden golden = Golden.open("scaledit/forward_37x29r4");
                Sequence dense = FluxTransformerTest.sequence(golden, window, Backend.DENSE_RASTER, Gpu.FLOAT32);
                Sequence sequence = FluxTransformerTest.sequence(golden, window, backend, Gpu.BFLOAT16)) {
            Tensors.run(() -> {
                Tensor expected = FluxTransformerTest.ofOnePass(float32, golden, dense, golden.float32("x"));
                Tensor guidance = sequence.layout().arrangeGuidance(golden.float32("x_lr"));
                Tensor latents = sequence.layout().arrangeImage(golden.float32("x"));
                try (Denoiser denoiser = FluxTransformerTest.denoiser(bfloat16, golden, sequence, guidance)) {
                    for (int pass = 1; pass <= 3; pass++) {
                        Tensor velocity = sequence.layout().restoreImage(denoiser.velocity(latents, 0.6, () -> {}));
                        double off = Golden.relativeL2(velocity.cpu(), expected.cpu());
                        System.out.printf("%s, guidance kept, pass %d: %.1e%n", backend, pass, off);
                        assertThat(off).isLessThan(backend.exact() ? BFLOAT16_LIMIT : INT8_LIMIT);
                    }
                }
            });
        }
    }

    @ParameterizedTest
    @EnumSource
    void aPlainPassHasTheVelocityOfTheReference(Backend backend) {
        try (Golden golden = Golden.open("transformer/plain_14x9");
                Sequence sequence = FluxTransformerTest.plain(golden, backend, Gpu.BFLOAT16)) {
            Tensors.run(() -> {
                Tensor velocity = FluxTransformerTest.plainVelocity(bfloat16, golden, sequence, (block, hidden) -> {});
                assertThat(velocity.is_cuda()).isTrue();
                assertThat(Golden.relativeL2(velocity, golden.float32("velocity")))
                        .isLessThan(backend.exact() ? BFLOAT16_LIMIT : INT8_LIMIT);
            });
        }
    }
}
