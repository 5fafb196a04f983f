package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.ImageRequest.Init;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.testing.Golden;

class ModelDefaultsTest {
    @TempDir
    Path folder;

    private ModelDefaults read(String json) throws IOException {
        Files.writeString(folder.resolve("generation_config.json"), json.replace('\'', '"'));
        return ModelDefaults.read(folder);
    }

    @Test
    void areEverySettingThatTheFileHas() throws IOException {
        ImageRequest request = read("""
                {'width': 1024, 'height': 512, 'ratio': 2, 'plain_size': 256, 'steps': 20, 'guidance': 1.5, 'negative': 'blurry',
                 'true_guidance': 3, 'guide_steps': 12, 'guide_guidance': 2.5, 'init': 'guidance', 'strength': 0.5,
                 'window': 32, 'reach': 2, 'guidance_attention': 'local', 'guidance_text': false, 'guidance_margin': 5}
                """).request();
        assertThat(request.width()).isEqualTo(1024);
        assertThat(request.height()).isEqualTo(512);
        assertThat(request.ratio()).isEqualTo(2);
        assertThat(request.plainSize()).isEqualTo(256);
        assertThat(request.steps()).isEqualTo(20);
        assertThat(request.guidance()).isEqualTo(1.5);
        assertThat(request.negative()).contains("blurry");
        assertThat(request.trueGuidance()).hasValue(3);
        assertThat(request.guideSteps()).isEqualTo(12);
        assertThat(request.guideGuidance()).isEqualTo(2.5);
        assertThat(request.init()).isEqualTo(ImageRequest.Init.GUIDANCE);
        assertThat(request.strength()).isEqualTo(0.5);
        assertThat(request.window()).isEqualTo(32);
        assertThat(request.reach()).isEqualTo(2);
        assertThat(request.guidanceAttention()).isEqualTo(ImageRequest.GuidanceAttention.LOCAL);
        assertThat(request.guidanceText()).isFalse();
        assertThat(request.guidanceMargin()).isEqualTo(5);
    }

    /** Where neither file nor user says a ratio. */
    @Test
    void aPlainSizeChoosesTheRatio() throws IOException {
        ImageRequest request = read("{'plain_size': 256}").request();
        assertThat(request.size(1024, 1024).ratio()).isEqualTo(4);
        assertThat(request.size(2048, 2048).ratio()).isEqualTo(8);
        assertThat(request.size(2048, 2048).ratio(2).ratio()).isEqualTo(2);
        assertThat(request.size(512, 512).ratio()).isEqualTo(2);
        assertThat(request.size(512, 512).levels(0).ratio()).isEqualTo(4);
        assertThat(request.size(512, 512).guideImage(folder.resolve("any.png")).ratio())
                .isEqualTo(4);
        assertThat(read("{'steps': 20}").request().size(2048, 2048).ratio()).isEqualTo(4);
    }

    @Test
    void areThePapersWhereTheFileSaysNothing() throws IOException {
        ModelDefaults defaults = read("{'steps': 20, 'guide_steps': null}");
        assertThat(defaults.settings()).isEqualTo(Map.of("steps", "20"));
        assertThat(defaults.request().guideSteps()).isEqualTo(28);
        Files.delete(folder.resolve("generation_config.json"));
        ModelDefaults none = ModelDefaults.read(folder);
        assertThat(none.settings()).isEmpty();
        assertThat(none.request().steps()).isEqualTo(28);
    }

    @Test
    void giveWayToWhatTheRequestSets() throws IOException {
        ImageRequest defaults =
                read("{'width': 1024, 'height': 512, 'steps': 20, 'negative': 'blurry', 'true_guidance': 3}")
                        .request();
        ImageRequest request = ImageRequest.of("a fox")
                .steps(28)
                .width(2048)
                .trueGuidance(1)
                .seed(3)
                .over(defaults);
        assertThat(request.prompt()).isEqualTo("a fox");
        assertThat(request.steps()).isEqualTo(28); // set, though it is the paper's
        assertThat(request.width()).isEqualTo(2048);
        assertThat(request.height()).isEqualTo(512);
        assertThat(request.seed()).hasValue(3);
        assertThat(request.negative()).contains("blurry");
        assertThat(request.effectiveNegative()).isEmpty();
        assertThat(request.steps(5).over(ImageRequest.of("")).height()).isEqualTo(512);
        assertThat(ImageRequest.of("").withoutNegative().over(defaults).negative())
                .isEmpty();
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{'stpes': 20}                  | FILE has stpes, expected none but width, height, ratio, plain_size, steps,",
                "{'steps': '20'}                | FILE has steps \"20\", expected a non-negative integer",
                "{'steps': 2.5}                 | FILE has steps 2.5, expected a non-negative integer",
                "{'steps': 0}                   | in FILE the steps is 0, expected 1 to 1000",
                "{'guide_guidance': true}       | FILE has guide_guidance true, expected a number",
                "{'guide_guidance': -1}         | in FILE the guide guidance is -1.0, expected a number of 0 or more",
                "{'negative': 3}                | FILE has negative 3, expected a string",
                "{'init': 'nose'}               | FILE has init nose, expected noise or guidance",
                "{'guidance_attention': 'near'} | FILE has guidance_attention near, expected global or local",
                "{'guidance_text': 'on'}        | FILE has guidance_text \"on\", expected true or false",
                "{'width': 1000}                | in FILE the width is 1000 pixels, expected a multiple of 16",
                "[]                             | FILE is not a JSON object",
            })
    void nameAFieldThatIsWrong(String json, String sentence) {
        assertThatThrownBy(() -> read(json))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(sentence.replace(
                        "FILE", folder.resolve("generation_config.json").toString()));
    }

    @Test
    void areTakenByTheModelAndWrittenIntoItsPictures() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("model"));
        Files.writeString(
                model.resolve("generation_config.json"),
                "{\"steps\": 2, \"guide_steps\": 1, \"negative\": \"dull\", \"true_guidance\": 2}");
        assertThat(ScaleDit.describe(model))
                .endsWith("\nsettings of its own: steps 2, negative dull, true_guidance 2.0, guide_steps 1\n"
                        + "every tensor is there and has its shape");
        Path picture = folder.resolve("picture.png");
        Path plain = folder.resolve("plain.png");
        Path again = folder.resolve("again.png");
        try (ScaleDit scaleDit = ScaleDit.load(model)) {
            ImageRequest made =
                    scaleDit.generatePng(ImageRequest.of("a fox").size(64, 48).seed(5), picture, progress -> {});
            assertThat(made.steps()).isEqualTo(2);
            assertThat(ImageRequest.from(picture).guideSteps()).isEqualTo(1);
            assertThat(ImageRequest.from(picture).negative()).contains("dull");
        }
        try (ScaleDit scaleDit = ScaleDit.load(Golden.tinyFlux())) {
            scaleDit.generatePng(
                    ImageRequest.of("a fox").size(64, 48).seed(5).steps(1).guideSteps(1), plain, progress -> {});
        }
        // A picture without a negative prompt is made again without one, by a model that has one as well.
        try (ScaleDit scaleDit = ScaleDit.load(model)) {
            ImageRequest made = scaleDit.generatePng(ImageRequest.from(plain), again, progress -> {});
            assertThat(made.negative()).isEmpty();
            assertThat(made.steps()).isEqualTo(1);
        }
    }

    /** At a true guidance of 1, which a model may say that it has, a negative prompt would be ignored. */
    @Test
    void areNoTrueGuidanceForANegativePromptOfOnesOwnUnlessItIsMoreThanOne() {
        String sentence = "a negative prompt is given without true guidance, expected both or neither";
        ImageRequest usual = ImageRequest.of("");
        ImageRequest asked = ImageRequest.of("x").negative("dull");
        ImageRequest without = usual.negative("").trueGuidance(1);
        ImageRequest with = usual.negative("blurry").trueGuidance(3);
        assertThatThrownBy(() -> asked.over(without))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(sentence);
        assertThat(asked.over(with).effectiveNegative()).contains("dull");
        assertThat(asked.trueGuidance(1).over(without).trueGuidance()).hasValue(1);
        assertThat(asked.trueGuidance(1).over(with).effectiveNegative()).isEmpty();
        assertThat(usual.trueGuidance(2).over(without).effectiveNegative()).contains("");
        ImageRequest ofPicture = without.recorded();
        assertThat(ofPicture.over(without).trueGuidance()).hasValue(1);
        assertThatThrownBy(() -> ofPicture.negative("dull").over(without)).hasMessage(sentence);
        assertThat(ofPicture.negative("dull").trueGuidance(2).over(without).effectiveNegative())
                .contains("dull");
        assertThat(with.recorded().negative("dull").over(without).effectiveNegative())
                .contains("dull");
    }

    /** A model may say how strong its pictures are, and a request that they begin with noise. */
    @Test
    void areNoReasonToRefuseNoiseButAStrengthOfOnesOwnIs() {
        ImageRequest usual = ImageRequest.of("");
        ImageRequest strong = ImageRequest.of("x").strength(0.5);
        ImageRequest ofModel = usual.init(Init.GUIDANCE).strength(0.3);
        assertThat(strong.over(ofModel).strength()).isEqualTo(0.5);
        assertThat(ImageRequest.of("x").init(Init.NOISE).over(ofModel).init()).isEqualTo(Init.NOISE);
        assertThatThrownBy(() -> strong.over(usual))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("strength is given with init noise, expected init guidance, of whose steps it is a share");
        assertThatThrownBy(() -> strong.init(Init.NOISE).over(ofModel)).hasMessageContaining("with init noise");
        ImageRequest ofPicture =
                ImageRequest.of("x").init(Init.GUIDANCE).strength(0.4).recorded();
        assertThat(ofPicture.over(usual).strength()).isEqualTo(0.4);
        assertThat(ofPicture.init(Init.NOISE).over(usual).init()).isEqualTo(Init.NOISE);
    }

    /** A LoRA in the model's directory is taken unless the user says which ones, or none; a picture knows which of the three it was. */
    @Test
    void bringALora() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("model"));
        Path given = Golden.path("golden/lora/scaledit_lora.safetensors");
        Files.copy(given, model.resolve("guidance.safetensors"));
        Files.writeString(model.resolve("generation_config.json"), "{\"lora\": \"guidance.safetensors\"}");
        byte[] own = pixels(ScaleDit.builder(model), "own");
        byte[] none = pixels(ScaleDit.builder(model).withoutLoras(), "none");
        assertThat(own).isEqualTo(pixels(ScaleDit.builder(Golden.tinyFlux()).lora(given, 1), "given"));
        assertThat(none).isEqualTo(pixels(ScaleDit.builder(Golden.tinyFlux()), "plain"));
        assertThat(own).isNotEqualTo(none);
        assertThat(pixels(ScaleDit.builderFrom(folder.resolve("own.png")), "own-again"))
                .isEqualTo(own);
        assertThat(pixels(ScaleDit.builderFrom(folder.resolve("none.png")), "none-again"))
                .isEqualTo(none);
        Files.delete(model.resolve("guidance.safetensors"));
        assertThatThrownBy(() -> ScaleDit.load(model))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(model.resolve("generation_config.json")
                        + " has lora guidance.safetensors, expected a safetensors file in the model's directory");
        Files.writeString(model.resolve("generation_config.json"), "{\"lora\": \"../model/transformer/config.json\"}");
        assertThatThrownBy(() -> ScaleDit.load(model)).hasMessageEndingWith("file in the model's directory");
    }

    private byte[] pixels(ScaleDit.Builder builder, String name) throws IOException {
        ImageRequest request =
                ImageRequest.of("a fox").size(64, 48).seed(5).steps(1).guideSteps(1);
        try (ScaleDit model = builder.load()) {
            Path picture = folder.resolve(name + ".png");
            model.generatePng(request, picture, progress -> {});
            BufferedImage image = ImageIO.read(picture.toFile());
            int[] rgb = image.getRGB(0, 0, image.getWidth(), image.getHeight(), null, 0, image.getWidth());
            return Arrays.toString(rgb).getBytes(StandardCharsets.UTF_8);
        }
    }
}
