package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.HostProcess.Fate;
import org.scaledit.testing.OtherJvm;

/** A picture that two processes paint together is that of one; when one of them fails, both end. */
@Timeout(value = 3, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class SharedHostsTest {
    private static final Duration MOST_TO_END = Duration.ofSeconds(30);
    private static final int WIDTH = SharedPictureTest.ragged().width();

    @TempDir
    Path folder;

    private final int port = OtherJvm.freePort();

    private ScaleDit host(int number, int ranks) {
        return ScaleDitTest.tinyWithLora()
                .ranksOnCpu(ranks)
                .host(number, 2, "localhost", port)
                .load();
    }

    private HostProcess other(int number, int ranks, Fate fate) throws IOException {
        return HostProcess.start(folder, number, port, ranks, WIDTH, fate);
    }

    private static void assertEnds(ThrowingCallable request, String sentence) {
        long begun = System.nanoTime();
        assertThatThrownBy(request).isInstanceOf(IllegalStateException.class).hasMessage(sentence);
        assertThat(Duration.ofNanos(System.nanoTime() - begun)).isLessThan(MOST_TO_END);
        assertThat(Thread.interrupted()).isFalse();
    }

    private static void assertSame(GeneratedImage image, GeneratedImage expected) {
        assertThat(image.width()).isEqualTo(expected.width());
        assertThat(image.height()).isEqualTo(expected.height());
        for (int y = 0; y < image.height(); y++) {
            assertThat(image.row(y)).isEqualTo(expected.row(y));
        }
    }

    @ParameterizedTest
    @CsvSource({"1, 1", "2, 1", "1, 2"})
    void twoProcessesPaintThePictureOfOneWithAsManyRanks(int own, int others) throws IOException, InterruptedException {
        GeneratedImage expected;
        try (ScaleDit one = ScaleDitTest.tinyWithLora().ranksOnCpu(own + others).load()) {
            expected = one.generate(SharedPictureTest.ragged());
        }
        try (HostProcess second = other(1, others, Fate.ENDS_WELL);
                ScaleDit first = host(0, own)) {
            assertSame(first.generate(SharedPictureTest.ragged()), expected);
            second.assertSays("done");
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"DIES", "HANGS"})
    void aHostThatIsGoneEndsThePictureAndTheModelLivesOn(Fate fate) throws IOException, InterruptedException {
        GeneratedImage expected;
        try (ScaleDit first = host(0, 1)) {
            try (HostProcess second = other(1, 1, Fate.ENDS_WELL)) {
                Runnable end = fate == Fate.DIES ? second::die : second::hang;
                assertEnds(
                        () -> first.generate(
                                SharedPictureTest.ragged(), ScaleDitTest.at(Progress.Stage.HIGH_RESOLUTION, end)),
                        "host 1 of 2 has given no sign of life for 8 s");
            }
            try (HostProcess second = other(1, 1, Fate.ENDS_WELL)) {
                expected = first.generate(SharedPictureTest.ragged());
                second.assertSays("done");
            }
        }
        try (ScaleDit one = ScaleDitTest.tinyWithLora().ranksOnCpu(2).load()) {
            assertSame(one.generate(SharedPictureTest.ragged()), expected);
        }
    }

    @Test
    void whatOneIsToldEndsBoth() throws IOException, InterruptedException {
        try (ScaleDit first = host(0, 1)) {
            try (HostProcess second = other(1, 1, Fate.ENDS_WELL)) {
                assertThatThrownBy(() -> first.generate(
                                SharedPictureTest.ragged(),
                                ScaleDitTest.at(
                                        Progress.Stage.HIGH_RESOLUTION,
                                        () -> Thread.currentThread().interrupt())))
                        .isInstanceOf(CancellationException.class);
                second.assertSays("host 0 of 2 was cancelled");
            }
            try (HostProcess second = HostProcess.start(folder, 1, port, 1, 256, Fate.ENDS_WELL)) {
                String sentence = "width is 256 on host 1 and 592 on host 0, expected the same on all hosts";
                assertEnds(() -> first.generate(SharedPictureTest.ragged()), sentence);
                second.assertSays(sentence);
            }
        }
    }

    @Test
    void theFirstHostMayDie() throws IOException {
        try (HostProcess first = other(0, 1, Fate.DIES);
                ScaleDit second = host(1, 1)) {
            assertEnds(() -> second.follow(SharedPictureTest.ragged()), "host 0 of 2 has ended without a word");
        }
    }

    @Test
    void theFirstHostMayHang() throws IOException {
        try (HostProcess first = other(0, 1, Fate.HANGS);
                ScaleDit second = host(1, 1)) {
            assertEnds(
                    () -> second.follow(SharedPictureTest.ragged()), "host 0 of 2 has given no sign of life for 8 s");
        }
    }

    @Test
    void whatHostsCannotDoIsRefused() {
        try (ScaleDit second = host(1, 1)) {
            assertThatThrownBy(() -> second.generate(SharedPictureTest.ragged()))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("host 1 of 2 is asked for a picture, expected host 0, or to follow");
        }
        try (ScaleDit first = host(0, 1)) {
            assertThatThrownBy(() -> first.follow(SharedPictureTest.ragged()))
                    .hasMessage("host 0 of 2 is asked to follow, expected another host than the first");
            assertThatThrownBy(() ->
                            first.generate(SharedPictureTest.ragged().attention(ImageRequest.AttentionKind.DENSE)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("attention dense is asked for on 2 hosts, expected one: it does not know of windows");
        }
        try (ScaleDit one =
                ScaleDitTest.tinyWithLora().host(0, 1, "localhost", port).load()) {
            assertThatThrownBy(() -> one.follow(SharedPictureTest.ragged()))
                    .hasMessage("a host of its own is asked to follow, expected another host than the first");
        }
    }
}
