package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
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
        Path file = folder.resolve("picture.png");
        PngFile.write(file, new Pixels(1, 1), texts);
        return ImageRequest.from(file);
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

    /** Of hosts one may say the ratio that another one chooses. */
    @Test
    void aCommandDoesNotTellWhetherTheRatioWasSet() {
        ScaleDit.Builder model = ScaleDit.builder(Golden.tinyFlux());
        assertThat(Settings.command(model, REQUEST.ratio(4), Map.of()))
                .isEqualTo(Settings.command(model, REQUEST, Map.of()));
    }
}
