package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.scaledit.ImageRequest.AttentionKind;
import org.scaledit.ImageRequest.GuidanceAttention;
import org.scaledit.ImageRequest.Init;
import org.scaledit.testing.Golden;

/** A picture that several ranks paint together, here all on the CPU, is that of one. */
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class SharedPictureTest {
    private static final int[] RANKS = {2, 3, 5, 7};

    @TempDir
    Path folder;

    /** 37 x 61 tokens are 3 x 4 windows. */
    private static ImageRequest ragged() {
        return ImageRequest.of("a red fox")
                .size(592, 976)
                .steps(3)
                .guideSteps(2)
                .seed(5);
    }

    private static ScaleDit ranks(int count) {
        return ScaleDitTest.tinyWithLora().ranksOnCpu(count).load();
    }

    static Stream<ImageRequest> requests() {
        return Stream.of(
                ragged(),
                ragged().init(Init.GUIDANCE).strength(0.7).reach(2),
                ragged().guidanceText(false).guidanceAttention(GuidanceAttention.LOCAL),
                ragged().negative("a blue bird").trueGuidance(2),
                ImageRequest.of("a red fox")
                        .size(400, 304)
                        .ratio(2)
                        .levels(2)
                        .steps(2)
                        .guideSteps(1)
                        .seed(5));
    }

    @ParameterizedTest
    @MethodSource("requests")
    void ranksPaintThePictureOfOne(ImageRequest request) {
        GeneratedImage expected;
        try (ScaleDit one = ranks(1)) {
            expected = one.generate(request);
        }
        for (int count : RANKS) {
            if (request.levels() == 2 && count > 4) { // 2 x 2 windows on the first level
                continue;
            }
            try (ScaleDit model = ranks(count)) {
                assertNear(model.generate(request), expected);
            }
        }
    }

    /** Float32 rounds otherwise, so that few bytes are rounded to their neighbours. */
    private static void assertNear(GeneratedImage image, GeneratedImage expected) {
        assertThat(image.width()).isEqualTo(expected.width());
        assertThat(image.height()).isEqualTo(expected.height());
        long others = 0;
        for (int y = 0; y < image.height(); y++) {
            byte[] row = image.row(y);
            byte[] expectedRow = expected.row(y);
            for (int x = 0; x < row.length; x++) {
                int difference = Math.abs((row[x] & 0xff) - (expectedRow[x] & 0xff));
                assertThat(difference).isLessThanOrEqualTo(1);
                others += difference;
            }
        }
        assertThat(others).isLessThan(3L * image.width() * image.height() / 100);
    }

    @Test
    void theModelLivesOnAfterAPictureThatWasStopped() {
        try (ScaleDit model = ranks(3)) {
            assertThatThrownBy(() -> model.generate(ragged(), progress -> {
                        if (progress.stage() == Progress.Stage.HIGH_RESOLUTION && progress.step() == 1) {
                            throw new IllegalStateException("enough");
                        }
                    }))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("enough");
            assertThatThrownBy(() -> model.generate(ragged(), progress -> {
                        if (progress.stage() == Progress.Stage.HIGH_RESOLUTION && progress.step() == 1) {
                            Thread.currentThread().interrupt();
                        }
                    }))
                    .isInstanceOf(CancellationException.class);
            assertThat(Thread.interrupted()).isFalse();
            GeneratedImage image = model.generate(ragged());
            try (ScaleDit one = ranks(1)) {
                assertNear(image, one.generate(ragged()));
            }
        }
    }

    @Test
    void whatRanksCannotDoTogetherIsRefused() {
        assertThatThrownBy(() -> ScaleDitTest.tinyWithLora().gpus(0)).hasMessage("gpus is 0, expected 1 or more");
        assertThatThrownBy(() -> ScaleDitTest.tinyWithLora().gpus(2).load())
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("gpus is 2, expected device cuda beside it");
        assertThatThrownBy(() -> ScaleDitTest.tinyWithLora().allGpus().load())
                .hasMessage("gpus is all, expected device cuda beside it");
        try (ScaleDit model = ScaleDit.builder(Golden.tinyFlux()).ranksOnCpu(2).load()) {
            assertThatThrownBy(() -> model.generate(ragged().levels(0)))
                    .hasMessage("0 levels are asked for on 2 GPUs, expected one: in a picture of plain FLUX everything"
                            + " attends to everything");
            assertThatThrownBy(() -> model.generate(ragged().attention(AttentionKind.DENSE)))
                    .hasMessage("attention dense is asked for on 2 GPUs, expected one: it does not know of windows");
            assertThatThrownBy(() -> model.generate(ragged().trace(folder.resolve("trace.safetensors"))))
                    .hasMessage("a trace is asked for on 2 GPUs, expected one: none of several has all latents");
            assertThatThrownBy(() -> model.generate(ragged().size(256, 240)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("gpus is 2, expected no more than 1, the windows of 256 x 256 pixels in 256 x 240");
        }
    }
}
