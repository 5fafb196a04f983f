package org.scaledit.text;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** The reference's text states on a GPU. */
@Tag("gpu")
class TextEncodersGpuTest {
    @BeforeAll
    static void requireGpu() {
        CudaAttention.requireGpu();
    }

    @Test
    void float32IsTheReference() {
        assertNear(Gpu.FLOAT32, 2e-4);
    }

    @Test
    void bfloat16StaysNear() {
        assertNear(Gpu.BFLOAT16, 0.05);
    }

    private static void assertNear(Placement placement, double limit) {
        try (TextEncoders encoders = TextEncoders.load(ModelDirectory.open(Golden.tinyFlux()), placement);
                Golden golden = Golden.open("text_encoders/text")) {
            String prompt = golden.json().get("prompts").get(0).textValue();
            Tensors.run(() -> {
                Conditioning encoded = encoders.encode(prompt, 512);
                assertThat(encoded.states().is_cuda()).isTrue();
                assertThat(Golden.relativeL2(encoded.states(), golden.float32("t5_0")))
                        .isLessThan(limit);
                assertThat(Golden.relativeL2(encoded.pooled(), golden.float32("pooled_0")))
                        .isLessThan(limit);
            });
        }
    }
}
