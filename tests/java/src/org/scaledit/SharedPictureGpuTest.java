package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.ImageRequest.AttentionKind;
import org.scaledit.ImageRequest.Init;
import org.scaledit.ScaleDit.Memory;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Cuda;

/** A picture that two GPUs paint together is that of one. */
@Tag("gpus")
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class SharedPictureGpuTest {
    private static final int GPUS = 2;

    @BeforeAll
    static void requireGpus() {
        CudaAttention.requireGpus(GPUS);
    }

    private static ImageRequest request() {
        return ImageRequest.of("a lighthouse at dusk")
                .size(784, 976)
                .steps(4)
                .guideSteps(4)
                .seed(42);
    }

    /** Limits as those of a GPU beside the CPU, whose arithmetic is another one: INT8 and FP8 round close numbers apart. */
    @ParameterizedTest
    @CsvSource({
        "BFLOAT16, NATIVE_EXACT, NOISE, 40",
        "BFLOAT16, NATIVE_EXACT, GUIDANCE, 40",
        "BFLOAT16, NATIVE, NOISE, 40",
        "FP8, NATIVE, NOISE, 28"
    })
    void twoGpusPaintThePictureOfOne(Precision precision, AttentionKind attention, Init init, double limit) {
        ImageRequest request = request().attention(attention).init(init);
        try (ScaleDit one = ScaleDitGpuTest.tiny().precision(precision).load();
                ScaleDit two =
                        ScaleDitGpuTest.tiny().precision(precision).gpus(GPUS).load()) {
            for (long seed = 1; seed <= 2; seed++) { // the second picture finds the weights loaded
                double psnr = ScaleDitTest.psnr(one.generate(request.seed(seed)), two.generate(request.seed(seed)));
                System.out.printf(
                        "%s %s from %s on two GPUs beside one: PSNR %.1f dB%n", precision, attention, init, psnr);
                assertThat(psnr).isGreaterThanOrEqualTo(limit);
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"HIGH_RESOLUTION", "DECODE"})
    void aPictureThatIsStoppedEndsOnBothAndTheModelLivesOn(Progress.Stage stage) {
        try (ScaleDit model = ScaleDitGpuTest.tiny().gpus(GPUS).load()) {
            GeneratedImage expected = model.generate(request());
            long begun = System.nanoTime();
            assertThatThrownBy(() -> model.generate(request(), ScaleDitTest.at(stage, () -> {
                        throw new IllegalStateException("enough");
                    })))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("enough");
            assertThat(Duration.ofNanos(System.nanoTime() - begun)).isLessThan(Duration.ofSeconds(30));
            assertThat(ScaleDitTest.psnr(model.generate(request()), expected)).isGreaterThanOrEqualTo(40);
        }
    }

    @Test
    void moreGpusThanThereAreAreRefused() {
        int there = Cuda.count();
        assertThatThrownBy(() -> ScaleDitGpuTest.tiny().gpus(there + 1).load())
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("gpus is " + (there + 1) + ", expected no more than the " + there + " that CUDA finds");
        assertThatThrownBy(() ->
                        ScaleDitGpuTest.tiny().gpus(GPUS).memory(Memory.LOW).load())
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("memory low is for one GPU, expected gpus 1, or memory normal");
    }
}
