package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
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
    static ImageRequest ragged() {
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
                ragged().ratio(0),
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

    @ParameterizedTest
    @EnumSource(names = {"HIGH_RESOLUTION", "DECODE"})
    void theModelLivesOnAfterAPictureThatWasStopped(Progress.Stage stage) {
        try (ScaleDit model = ranks(3)) {
            assertThatThrownBy(() -> model.generate(ragged(), ScaleDitTest.at(stage, () -> {
                        throw new IllegalStateException("enough");
                    })))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("enough");
            assertThatThrownBy(() -> model.generate(
                            ragged(),
                            ScaleDitTest.at(stage, () -> Thread.currentThread().interrupt())))
                    .isInstanceOf(CancellationException.class);
            assertThat(Thread.interrupted()).isFalse();
            GeneratedImage image = model.generate(ragged());
            try (ScaleDit one = ranks(1)) {
                assertNear(image, one.generate(ragged()));
            }
        }
    }

    private List<Path> files(int count) {
        return IntStream.range(0, count)
                .mapToObj(number -> folder.resolve(number + ".png"))
                .toList();
    }

    /** The first four apart, of any kind, the last one together. */
    @Test
    void ofSeveralPicturesEachRankPaintsSomeByItself() throws IOException {
        List<ImageRequest> requests = List.of(
                ragged(),
                ragged().seed(6),
                ragged().attention(AttentionKind.DENSE),
                ragged().size(256, 240),
                ragged().prompt("an owl"));
        List<Progress.Stage> heard = new ArrayList<>();
        List<Path> files = files(requests.size());
        try (ScaleDit model = ranks(2)) {
            List<ImageRequest> made = model.generatePngs(requests, files, progress -> {
                if (progress.step() == 0) {
                    heard.add(progress.stage());
                }
            });
            assertThat(made).extracting(ImageRequest::seed).containsOnlyOnce(OptionalLong.of(6));
        }
        assertThat(heard)
                .filteredOn(stage -> stage == Progress.Stage.LOAD)
                .hasSize(3); // the first rank's, and the last
        try (ScaleDit one = ranks(1)) {
            Path expected = folder.resolve("expected.png");
            for (int picture = 0; picture < 4; picture++) {
                one.generatePng(requests.get(picture), expected, progress -> {});
                assertThat(Files.mismatch(files.get(picture), expected)).isEqualTo(-1);
            }
            assertThat(files.get(4)).exists();
        }
    }

    /** The others stop at their next step; what was finished stays. */
    @Test
    void aPictureThatFailsEndsThoseThatArePaintedBesideIt() {
        List<ImageRequest> requests =
                List.of(ragged(), ragged().guideImage(folder.resolve("none.png")), ragged(), ragged());
        List<Path> files = files(4);
        try (ScaleDit model = ranks(2)) {
            assertThatThrownBy(() -> model.generatePngs(requests, files, progress -> {}))
                    .hasMessageContaining("none.png");
            assertThat(files.get(1)).doesNotExist();
            assertThat(files.get(2)).doesNotExist();
            assertThat(files.get(3)).doesNotExist();
            assertThatThrownBy(() -> model.generatePngs(
                            List.of(ragged(), ragged()),
                            files.subList(0, 2),
                            progress -> Thread.currentThread().interrupt()))
                    .isInstanceOf(CancellationException.class);
            assertThat(Thread.interrupted()).isFalse();
            assertThatThrownBy(() -> model.generatePngs(List.of(ragged()), files, progress -> {}))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("4 files are given, expected 1, one for each request");
            model.generatePngs(List.of(ragged()), files.subList(3, 4), progress -> {});
            assertThat(files.get(3)).exists();
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
                    .hasMessage(
                            "gpus is 2, expected no more than 1, the windows of 256 x 256 pixels in the first picture of 256 x 240");
        }
    }
}
