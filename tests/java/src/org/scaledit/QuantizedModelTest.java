package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.checkpoint.Quantization;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** A checkpoint in INT8, through the door that users take. */
class QuantizedModelTest {
    @TempDir
    static Path folder;

    private static Path quantised;

    @BeforeAll
    static void quantise() {
        quantised = folder.resolve("int8");
        Quantization.write(List.of(Golden.tinyFlux()), quantised, part -> {});
    }

    private static Path traced(Path model, ScaleDit.Precision precision) {
        Path trace = folder.resolve(model.getFileName() + "-" + precision + ".safetensors");
        try (ScaleDit scaleDit = ScaleDit.builder(model).precision(precision).load()) {
            scaleDit.generate(ScaleDitTest.small("a lighthouse at dusk").trace(trace));
        }
        return trace;
    }

    /** Of weights that are off by 0.006 of their norm, through two encoders, two times two steps and the decoder. */
    @ParameterizedTest
    @EnumSource(names = {"FLOAT32", "BFLOAT16"})
    void paintsNearlyTheSamePicture(ScaleDit.Precision precision) {
        try (Safetensors one = Safetensors.open(traced(quantised, precision));
                Safetensors other = Safetensors.open(traced(Golden.tinyFlux(), precision))) {
            for (String tensor : List.of("text_states", "text_pooled", "guidance_latents", "latents_002", "image")) {
                Tensors.run(() -> assertThat(Golden.relativeL2(one.tensor(tensor), other.tensor(tensor)))
                        .as(tensor)
                        .isBetween(0.005, 0.05));
            }
        }
    }

    @Test
    void isDescribedAsWhatItIs() {
        assertThat(ScaleDit.describe(Golden.tinyFlux())).contains("\nweights: 9.00 M in BF16\n");
        assertThat(ScaleDit.describe(quantised))
                .contains("\nweights: 0.03 M in F16, 8.97 M in INT8 with a scale for each row\n");
    }
}
