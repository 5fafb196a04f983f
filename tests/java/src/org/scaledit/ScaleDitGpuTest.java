package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CancellationException;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.ImageRequest.AttentionKind;
import org.scaledit.ImageRequest.Init;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Memory;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.testing.Gpu;

/** Pictures made on a GPU, against those that the CPU makes of the same request in float32. */
@Tag("gpu")
class ScaleDitGpuTest {
    @TempDir
    static Path folder;

    @BeforeAll
    static void requireGpu() {
        CudaAttention.requireGpu();
    }

    static ScaleDit.Builder tiny() {
        return ScaleDitTest.tinyWithLora().device(Device.CUDA).precision(Precision.BFLOAT16);
    }

    static ImageRequest request() {
        return ImageRequest.of("a lighthouse at dusk")
                .size(592, 464)
                .steps(4)
                .guideSteps(4)
                .seed(42);
    }

    @ParameterizedTest
    @CsvSource({
        "FLOAT32, DENSE, NOISE, 60",
        "FLOAT32, DENSE, GUIDANCE, 60",
        "BFLOAT16, DENSE, NOISE, 42",
        "BFLOAT16, NATIVE_EXACT, NOISE, 42",
        "BFLOAT16, NATIVE_EXACT, GUIDANCE, 42",
        "BFLOAT16, NATIVE, NOISE, 38",
        "BFLOAT16, NATIVE_INT8, GUIDANCE, 38",
        "FP8, NATIVE_EXACT, NOISE, 28",
        "FP8, NATIVE, NOISE, 28"
    })
    void thePictureIsTheCpus(Precision precision, AttentionKind attention, Init init, double limit) {
        ImageRequest request = request().init(init);
        try (ScaleDit onCpu = ScaleDitTest.tinyWithLora().load();
                ScaleDit onGpu = tiny().precision(precision).load()) {
            double psnr = ScaleDitTest.psnr(onCpu.generate(request), onGpu.generate(request.attention(attention)));
            System.out.printf("%s %s from %s on a GPU: PSNR %.1f dB%n", precision, attention, init, psnr);
            assertThat(psnr).isGreaterThanOrEqualTo(limit).isLessThan(200);
        }
    }

    @Test
    void thePngMakesTheSamePictureAgain() {
        Path file = folder.resolve("gpu.png");
        GeneratedImage first;
        try (ScaleDit model = tiny().load()) {
            first = model.generate(request());
            first.writePng(file);
        }
        try (ScaleDit model = ScaleDit.builderFrom(file).load()) {
            assertThat(ScaleDitTest.psnr(first, model.generate(ImageRequest.from(file))))
                    .isInfinite();
        }
    }

    /** Of the same kernels on the same numbers: every pixel, in the next picture, too. */
    @ParameterizedTest
    @EnumSource(names = {"BFLOAT16", "FP8"})
    void lowMemoryMakesTheSamePicture(Precision precision) {
        try (ScaleDit normal = tiny().precision(precision).load();
                ScaleDit low = tiny().precision(precision).memory(Memory.LOW).load()) {
            for (long seed = 1; seed <= 2; seed++) {
                ImageRequest request = request().seed(seed);
                assertThat(ScaleDitTest.psnr(normal.generate(request), low.generate(request)))
                        .isInfinite();
            }
        }
    }

    @Test
    void aTraceAndASecondLevelComeFromTheGpu() {
        Path trace = folder.resolve("trace.safetensors");
        try (ScaleDit model = tiny().load()) {
            GeneratedImage image = model.generate(
                    ScaleDitTest.small("levels").ratio(2).levels(2).trace(trace));
            assertThat(image.width()).isEqualTo(224);
        }
        try (PointerScope scope = new PointerScope();
                Safetensors traced = Safetensors.open(trace)) {
            assertThat(traced.names()).contains("guidance_latents", "latents_002", "level_2.latents_002", "image");
            for (String name : traced.names()) {
                assertThat(traced.tensor(name).isfinite().all().item_bool())
                        .as(name)
                        .isTrue();
            }
        }
    }

    @Test
    void float32IsForDenseAttentionAlone() {
        try (ScaleDit model = tiny().precision(Precision.FLOAT32).load()) {
            assertThatThrownBy(() -> model.generate(request()))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("attention native on a GPU takes bfloat16 alone, expected precision bfloat16, or"
                            + " attention dense");
        }
    }

    @ParameterizedTest
    @EnumSource
    void picturesLeaveNothingOnTheGpu(Memory memory) {
        ImageRequest small = ScaleDitTest.small("memory").size(320, 320);
        try (ScaleDit model = tiny().memory(memory).load()) {
            model.generate(small); // cuBLAS keeps memory of its own from now on
        }
        long atFirst = Gpu.allocatedBytes();
        try (ScaleDit model = tiny().memory(memory).load()) {
            model.generate(small);
            long before = Gpu.allocatedBytes();
            for (int i = 0; i < 5; i++) {
                model.generate(small.seed(i));
                assertThatThrownBy(() -> model.generate(small, progress -> {
                            if (progress.stage() == Progress.Stage.HIGH_RESOLUTION && progress.step() == 1) {
                                throw new CancellationException("enough");
                            }
                        }))
                        .isInstanceOf(CancellationException.class);
            }
            assertThat(Gpu.allocatedBytes()).isEqualTo(before);
        }
        assertThat(Gpu.allocatedBytes()).isEqualTo(atFirst);
    }

    @ParameterizedTest
    @EnumSource
    void whatEndsAStepInItsMiddleLeavesNothingOnTheGpu(Memory memory) {
        ImageRequest small = ScaleDitTest.small("stopped").size(320, 320);
        try (ScaleDit model = tiny().memory(memory).load()) {
            GeneratedImage expected = model.generate(small);
            long before = Gpu.allocatedBytes();
            for (Progress.Stage stage : List.of(Progress.Stage.GUIDANCE_IMAGE, Progress.Stage.HIGH_RESOLUTION)) {
                assertThatThrownBy(() -> model.generate(
                                small,
                                ScaleDitTest.at(
                                        stage, () -> Thread.currentThread().interrupt())))
                        .isInstanceOf(CancellationException.class);
                assertThat(Gpu.allocatedBytes()).isEqualTo(before);
            }
            assertThat(ScaleDitTest.psnr(expected, model.generate(small))).isInfinite();
        }
    }

    @Test
    void wantOfMemoryIsOneSentenceAndTheNextRequestWorks() {
        ImageRequest request = request().size(2048, 2048).steps(1).guideSteps(1);
        try (ScaleDit model = tiny().load()) {
            GeneratedImage expected = model.generate(request);
            long before = Gpu.allocatedBytes();
            Tensor others = Gpu.takeAllBut(16 << 20);
            try {
                assertOutOfMemory(model, request, "2048 × 2048");
            } finally {
                Gpu.giveBack(others);
            }
            assertThat(Gpu.allocatedBytes()).isEqualTo(before);
            assertThat(ScaleDitTest.psnr(expected, model.generate(request))).isInfinite();
        }
    }

    @Test
    void aModelThatDoesNotFitLeavesNothingBehindAndIsLoadedWhenThereIsRoom() {
        ImageRequest small = ScaleDitTest.small("loading");
        try (ScaleDit model = tiny().load()) {
            model.generate(small); // cuBLAS keeps memory of its own from now on
        }
        long before = Gpu.allocatedBytes();
        try (ScaleDit model = tiny().load()) {
            Tensor others = Gpu.takeAllBut(4 << 20);
            try {
                assertOutOfMemory(model, small, "112 × 80");
            } finally {
                Gpu.giveBack(others);
            }
            assertThat(Gpu.allocatedBytes()).isEqualTo(before);
            assertThat(model.generate(small).width()).isEqualTo(112);
        }
        assertThat(Gpu.allocatedBytes()).isEqualTo(before);
    }

    private static void assertOutOfMemory(ScaleDit model, ImageRequest request, String size) {
        assertThatThrownBy(() -> model.generate(request))
                .isInstanceOfSatisfying(GpuException.class, failure -> {
                    System.out.println(failure.getMessage());
                    assertThat(failure.lost()).isFalse();
                })
                .hasMessageMatching("out of GPU memory: " + size
                        + " pixels in bfloat16 take about [0-9.]+ GiB, and of the GPU's [0-9.]+ GiB [0-9.]+ are free for them;"
                        + " (no smaller size would fit either|what would fit: .+)");
    }
}
