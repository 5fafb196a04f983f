package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.HostProcess.Fate;
import org.scaledit.attention.CudaAttention;
import org.scaledit.testing.OtherJvm;

/** A picture that two processes paint together, each on a GPU of its own, is that of one; when one of them fails, both end. */
@Tag("gpus")
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class SharedHostsGpuTest {
    private static final Duration MOST_TO_END = Duration.ofSeconds(30);
    private static final ImageRequest REQUEST = SharedPictureTest.ragged();

    @TempDir
    Path folder;

    private final int port = OtherJvm.freePort();

    @BeforeAll
    static void requireGpus() {
        CudaAttention.requireGpus(2);
    }

    private ScaleDit host(int number) {
        return ScaleDitGpuTest.tiny().host(number, 2, "localhost", port).load();
    }

    private HostProcess other(int number, Fate fate) throws IOException {
        return HostProcess.start(folder, number, port, 0, REQUEST.width(), fate);
    }

    private static void assertEnds(ThrowingCallable request, String sentence) {
        long begun = System.nanoTime();
        assertThatThrownBy(request).isInstanceOf(IllegalStateException.class).hasMessage(sentence);
        Duration taken = Duration.ofNanos(System.nanoTime() - begun);
        System.out.printf("%s: after %.1f s%n", sentence, taken.toMillis() / 1000.0);
        assertThat(taken).isLessThan(MOST_TO_END);
    }

    /** As near as two GPUs of one process are to one. */
    private void assertPaint(ScaleDit first) throws IOException, InterruptedException {
        try (HostProcess second = other(1, Fate.ENDS_WELL);
                ScaleDit one = ScaleDitGpuTest.tiny().gpus(2).load()) {
            double psnr = ScaleDitTest.psnr(first.generate(REQUEST), one.generate(REQUEST));
            second.assertSays("done");
            System.out.printf("two processes beside one, two GPUs: PSNR %.1f dB%n", psnr);
            assertThat(psnr).isGreaterThanOrEqualTo(40);
        }
    }

    @Test
    void twoProcessesPaintThePictureOfOneWithTwoGpus() throws IOException, InterruptedException {
        try (ScaleDit first = host(0)) {
            assertPaint(first);
            assertPaint(first);
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"DIES", "HANGS"})
    void aHostThatIsGoneEndsThePictureAndTheModelLivesOn(Fate fate) throws IOException, InterruptedException {
        try (ScaleDit first = host(0)) {
            try (HostProcess second = other(1, Fate.ENDS_WELL)) {
                Runnable end = fate == Fate.DIES ? second::die : second::hang;
                assertEnds(
                        () -> first.generate(REQUEST, ScaleDitTest.at(Progress.Stage.HIGH_RESOLUTION, end)),
                        "host 1 of 2 has given no sign of life for 8 s");
            }
            assertPaint(first);
        }
    }

    @ParameterizedTest
    @CsvSource({"DIES, host 0 of 2 has ended without a word", "HANGS, host 0 of 2 has given no sign of life for 8 s"})
    void theFirstHostMayBeGone(Fate fate, String sentence) throws IOException {
        try (HostProcess first = other(0, fate);
                ScaleDit second = host(1)) {
            assertEnds(() -> second.follow(REQUEST), sentence);
            assertThat(first).isNotNull();
        }
    }
}
