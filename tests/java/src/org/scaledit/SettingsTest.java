package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.image.ImageException;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;
import org.scaledit.testing.Golden;

class SettingsTest {
    private static final ImageRequest REQUEST = ImageRequest.of("a fox").seed(5);

    @TempDir
    Path folder;

    /** A request from a PNG that carries this one's settings. */
    private ImageRequest read(ImageRequest request) {
        return read(new Settings(ScaleDit.builder(Golden.tinyFlux()), request).texts());
    }

    private ImageRequest read(Map<String, String> texts) {
        return ImageRequest.from(picture(texts));
    }

    private Path picture(Map<String, String> texts) {
        Path file = folder.resolve("picture.png");
        PngFile.write(file, new Pixels(1, 1), texts);
        return file;
    }

    /** 256 pixels are painted plain: at that size under a guidance image of as many. */
    @Test
    void aRatioThatWasChosenIsChosenAnewForAnotherSize() {
        ImageRequest read = read(REQUEST.size(256, 256).plainSize(256));
        assertThat(read.ratio()).isEqualTo(1);
        assertThat(read.steps(5).ratio()).isEqualTo(1);
        assertThat(read.size(1024, 1024).ratio()).isEqualTo(4);
        assertThat(read.width(1024).height(1024).ratio()).isEqualTo(4);
        assertThat(read.plainSize(64).ratio()).isEqualTo(4);
        assertThat(read.levels(0).ratio()).isEqualTo(4);
        assertThat(read.guideImage(folder.resolve("any.png")).ratio()).isEqualTo(4);
        assertThat(read.size(1024, 1024).ratio(2).ratio()).isEqualTo(2);
        assertThat(read.ratio(2).size(1024, 1024).ratio()).isEqualTo(2);
        assertThat(read(read).size(1024, 1024).ratio()).isEqualTo(4); // of the same picture, made again
        assertThat(read(read.ratio(2)).size(1024, 1024).ratio()).isEqualTo(2);
    }

    /** So a picture is the same again, whatever the model would have chosen. */
    @Test
    void aRatioThatWasChosenIsKeptOtherwise() {
        ImageRequest ofModel = ImageRequest.of("").plainSize(64).ratio(2);
        ImageRequest read = read(REQUEST.size(256, 256));
        assertThat(read.over(ofModel).ratio()).isEqualTo(4);
        assertThat(read(read.over(ofModel)).ratio()).isEqualTo(4);
        assertThat(read.size(512, 512).over(ofModel).ratio()).isEqualTo(2);
    }

    @Test
    void aRatioThatWasSetStays() {
        ImageRequest read = read(REQUEST.size(256, 256).plainSize(256).ratio(2));
        assertThat(read.ratio()).isEqualTo(2);
        assertThat(read.size(1024, 1024).plainSize(64).ratio()).isEqualTo(2);
    }

    /** Which did not say whether it was set. */
    @Test
    void theRatioOfAnOlderPictureStays() {
        Map<String, String> texts = new Settings(
                        ScaleDit.builder(Golden.tinyFlux()),
                        REQUEST.size(256, 256).plainSize(256))
                .texts();
        texts.computeIfPresent(Settings.KEYWORD, (keyword, json) -> json.replace(",\"ratioChosen\":true", ""));
        assertThat(texts.get(Settings.KEYWORD)).contains("\"ratio\":1").doesNotContain("ratioChosen");
        assertThat(read(texts).size(1024, 1024).ratio()).isEqualTo(1);
    }

    /** @param change of the settings, {@code from => to} */
    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{'version' => version {           | Unrecognized token",
                "'init':'noise' => 'init':'foo'    | init is 'foo', expected noise or guidance",
                "'init':'noise' => 'init':1        | init is 1, expected noise or guidance",
                "'device':'cpu' => 'device':'tpu'  | device is 'tpu', expected cpu or cuda",
                "'attention':'native' => 'attention':'NATIVE' | attention is 'NATIVE', expected native or native-exact or"
                        + " native-int8 or dense",
                "'seed':5 => 'seed':'zz'           | seed is 'zz', expected an integer of 64 bits",
                "'seed':5 => 'seed':1e30           | seed is 1.0E30, expected an integer of 64 bits",
                "'seed':5 => 'seed':9223372036854775808 | seed is 9223372036854775808, expected an integer of 64 bits",
                "'width':4096 => 'width':256.7     | width is 256.7, expected an integer",
                "'width':4096 => 'width':4294967552 | width is 4294967552, expected an integer",
                "'width':4096 => 'width':null      | width is null, expected an integer",
                "'width':4096, =>                  | field width is missing",
                "'guidance':4.5 => 'guidance':'4'  | guidance is '4', expected a number",
                "'guidanceText':true => 'guidanceText':1 | guidanceText is 1, expected true or false",
                "'ratioChosen':true => 'ratioChosen':'no' | ratioChosen is 'no', expected true or false",
                "'prompt':'a fox' => 'prompt':3    | prompt is 3, expected a string",
                "'device':'cpu' => 'device':'cpu','loras':null | loras is null, expected a list",
            })
    void settingsThatAreDamagedAreNamedWithTheirFile(String change, String reason) {
        String[] fields = change.replace('\'', '"').split(" => ?", 2);
        Map<String, String> texts = new Settings(ScaleDit.builder(Golden.tinyFlux()), REQUEST).texts();
        assertThat(texts.get(Settings.KEYWORD)).contains(fields[0]);
        texts.computeIfPresent(Settings.KEYWORD, (keyword, json) -> json.replace(fields[0], fields[1]));
        Path file = picture(texts);
        for (ThrowingCallable reading :
                List.<ThrowingCallable>of(() -> ImageRequest.from(file), () -> ScaleDit.describe(file))) {
            assertThatThrownBy(reading)
                    .isInstanceOf(ImageException.class)
                    .hasMessageStartingWith(
                            file + " carries settings that cannot be read: " + reason.replace('\'', '"'));
        }
    }

    /** Larger than an integer: 65,536 pixels, eightfold seven times. */
    @Test
    void thePictureOfManyLevelsIsDescribedAtItsSize() {
        ImageRequest request = REQUEST.size(65_536, 32).ratio(8).levels(8);
        Path file = picture(new Settings(ScaleDit.builder(Golden.tinyFlux()), request).texts());
        assertThat(ScaleDit.describe(file)).startsWith("picture " + file + ", 137438953472 × 67108864\n");
    }

    /** Of hosts one may say the ratio that another one chooses. */
    @Test
    void aCommandDoesNotTellWhetherTheRatioWasSet() {
        ScaleDit.Builder model = ScaleDit.builder(Golden.tinyFlux());
        assertThat(Settings.command(model, REQUEST.ratio(4), Map.of()))
                .isEqualTo(Settings.command(model, REQUEST, Map.of()));
    }
}
