package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.ImageRequest.AttentionKind;
import org.scaledit.ImageRequest.Init;
import org.scaledit.attention.NativeAttention;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.Dtype;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.ProcessMemory;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.VaeConfig;

/** The whole of it, through the door that users take. */
class ScaleDitTest {
    private static final String TWO_STAGE = "two_stage/two_stage_37x29r4";
    private static final float LATENTS = 5e-4f;
    private static final float TEXT = 5e-4f;
    private static final float IMAGE = 5e-4f;

    @TempDir
    static Path folder;

    private static Path noise;

    @BeforeAll
    static void writeNoise() {
        noise = folder.resolve("noise.safetensors");
        try (Golden golden = Golden.open(TWO_STAGE);
                SafetensorsWriter writer = SafetensorsWriter.create(
                        noise,
                        ordered(
                                "guidance_noise", Declaration.of(Dtype.F32, 1, 80, 64),
                                "noise", Declaration.of(Dtype.F32, 1, 37 * 29, 64)),
                        Map.of())) {
            writer.write("guidance_noise", golden.float32("guidance_noise").unsqueeze(0));
            writer.write("noise", golden.float32("noise").unsqueeze(0));
            writer.commit();
        }
    }

    private static Map<String, Declaration> ordered(String a, Declaration first, String b, Declaration second) {
        Map<String, Declaration> contents = new java.util.LinkedHashMap<>();
        contents.put(a, first);
        contents.put(b, second);
        return contents;
    }

    /** Exact, as the goldens are, on every processor. */
    static ScaleDit.Builder tinyWithLora() {
        return ScaleDit.builder(Golden.tinyFlux())
                .precision(ScaleDit.Precision.FLOAT32)
                .lora(Golden.path("golden/lora/scaledit_lora.safetensors"), 1);
    }

    private static ImageRequest twoStage() {
        return ImageRequest.of(Golden.json(TWO_STAGE).get("prompt").asText())
                .size(37 * 16, 29 * 16)
                .steps(4)
                .guideSteps(4)
                .noise(noise);
    }

    static ImageRequest small(String prompt) {
        return ImageRequest.of(prompt).size(112, 80).steps(2).guideSteps(2).seed(7);
    }

    @ParameterizedTest
    @CsvSource({"NATIVE", "DENSE"})
    void startingFromNoiseGivesTheReferencesStatesAndPicture(AttentionKind attention) {
        Path trace = folder.resolve("noise-" + attention + ".safetensors");
        try (ScaleDit model = tinyWithLora().load()) {
            GeneratedImage image =
                    model.generate(twoStage().attention(attention).trace(trace));
            assertThat(image.width()).isEqualTo(592);
            assertThat(image.height()).isEqualTo(464);
        }
        try (PointerScope scope = new PointerScope();
                Golden golden = Golden.open(TWO_STAGE);
                Safetensors traced = Safetensors.open(trace)) {
            assertClose(
                    traced.tensor("text_states").squeeze(0).narrow(0, 0, 64), golden.float32("prompt_embeds"), TEXT);
            assertClose(traced.tensor("text_pooled").squeeze(0), golden.float32("pooled"), 2e-5f);
            assertClose(traced.tensor("sigmas"), golden.float32("sigmas"), 1e-6f);
            Tensor guidance = golden.float32("guidance_latents");
            assertClose(traced.tensor("guidance_latents").squeeze(0), guidance.get(3), LATENTS);
            assertClose(traced.tensor("latents_000").squeeze(0), golden.float32("noise"), 0);
            for (int step = 1; step <= 4; step++) {
                Tensor latents = traced.tensor("latents_00" + step).squeeze(0);
                Tensor expected = golden.float32("init_noise_steps").get(step - 1);
                assertClose(latents.index_select(0, golden.tensor("rows")), expected, LATENTS);
            }
            assertClose(traced.tensor("latents_004").squeeze(0), golden.float32("init_noise_final"), LATENTS);
            assertClose(every8th(traced.tensor("image")), golden.float32("init_noise_image_every_8th"), IMAGE);
        }
    }

    @ParameterizedTest
    @CsvSource({"NATIVE", "DENSE"})
    void startingFromTheGuidanceImageGivesTheReferencesStates(AttentionKind attention) {
        Path trace = folder.resolve("guidance-" + attention + ".safetensors");
        try (ScaleDit model = tinyWithLora().load()) {
            model.generate(twoStage()
                    .attention(attention)
                    .init(Init.GUIDANCE)
                    .strength(0.5)
                    .trace(trace));
        }
        try (PointerScope scope = new PointerScope();
                Golden golden = Golden.open(TWO_STAGE);
                Safetensors traced = Safetensors.open(trace)) {
            float sigma = (float) golden.json().get("sigma_of_init_guidance").asDouble();
            Tensor rows = golden.tensor("rows");
            Tensor start = golden.float32("init_guidance_clean")
                    .mul(scalar(1 - sigma))
                    .add(golden.float32("noise").index_select(0, rows).mul(scalar(sigma)));
            assertClose(traced.tensor("latents_000").squeeze(0).index_select(0, rows), start, LATENTS);
            for (int step = 1; step <= 2; step++) {
                Tensor latents = traced.tensor("latents_00" + step).squeeze(0);
                Tensor expected = golden.float32("init_guidance_steps").get(step - 1);
                assertClose(latents.index_select(0, rows), expected, LATENTS);
            }
            assertThat(traced.names()).doesNotContain("latents_003");
        }
    }

    @Test
    void densePicturesBeyondItsMaskAreRefusedBeforeTheFirstStep() {
        ImageRequest request =
                ImageRequest.of("a red fox").attention(AttentionKind.DENSE).steps(2);
        try (ScaleDit model = tinyWithLora().load()) {
            List<Progress> heard = new ArrayList<>();
            assertThatThrownBy(() -> model.generate(request.size(65_536, 12_288), heard::add))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "attention dense is asked for a picture that has, with guidance image and text, 52225 cells of"
                                    + " 8 × 8 tokens, expected at most 46340, or attention native");
            assertThat(heard).isEmpty();
        }
    }

    /** As its dense twin has it; what acts on guidance tokens alone does nothing. */
    @Test
    void withRatio0ThereIsNoGuidanceImage() {
        ImageRequest request =
                ImageRequest.of("a red fox").size(592, 464).steps(2).seed(7);
        Path trace = folder.resolve("unguided.safetensors");
        GeneratedImage guided;
        GeneratedImage unguided;
        try (ScaleDit model = tinyWithLora().load()) {
            guided = model.generate(request);
            List<Progress.Stage> stages = new ArrayList<>();
            unguided = model.generate(request.ratio(0).trace(trace), progress -> stages.add(progress.stage()));
            assertThat(stages).contains(Progress.Stage.HIGH_RESOLUTION).doesNotContain(Progress.Stage.GUIDANCE_IMAGE);
            GeneratedImage dense = model.generate(request.ratio(0).attention(AttentionKind.DENSE));
            assertThat(mostOff(unguided, dense)).isLessThanOrEqualTo(1);
            assertThat(mostOff(unguided, guided)).isGreaterThan(10);
            for (ImageRequest wrong : List.of(
                    request.ratio(0).levels(2),
                    request.ratio(0).init(Init.GUIDANCE),
                    request.ratio(0).guideImage(trace))) {
                assertThatThrownBy(() -> model.generate(wrong))
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageStartingWith("ratio is 0, which is a picture without a guidance image, expected ");
            }
        }
        try (Safetensors traced = Safetensors.open(trace)) {
            assertThat(traced.names()).contains("latents_002").doesNotContain("guidance_latents");
        }
        try (ScaleDit model = ScaleDit.builder(Golden.tinyFlux())
                .precision(ScaleDit.Precision.FLOAT32)
                .load()) {
            assertThat(mostOff(model.generate(request.ratio(0)), unguided)).isZero();
        }
    }

    private static int mostOff(GeneratedImage one, GeneratedImage other) {
        int most = 0;
        for (int y = 0; y < one.height(); y++) {
            for (int x = 0; x < 3 * one.width(); x++) {
                most = Math.max(most, Math.abs((one.row(y)[x] & 255) - (other.row(y)[x] & 255)));
            }
        }
        return most;
    }

    @Test
    void int8AttentionGivesNearlyTheSamePicture() {
        try (ScaleDit model = tinyWithLora().load()) {
            GeneratedImage exact = model.generate(twoStage());
            GeneratedImage quantised = model.generate(twoStage().attention(AttentionKind.NATIVE_INT8));
            double psnr = psnr(exact, quantised);
            System.out.printf("INT8 against float32: PSNR %.1f dB%n", psnr);
            assertThat(psnr).isGreaterThanOrEqualTo(35).isLessThan(200);
        }
    }

    @Test
    void bfloat16GivesASimilarPicture() {
        try (ScaleDit exact = tinyWithLora().load();
                ScaleDit half =
                        tinyWithLora().precision(ScaleDit.Precision.BFLOAT16).load()) {
            GeneratedImage expected = exact.generate(twoStage());
            GeneratedImage int8 = half.generate(twoStage());
            GeneratedImage unquantised = half.generate(twoStage().attention(AttentionKind.NATIVE_EXACT));
            for (GeneratedImage image : List.of(int8, unquantised)) {
                double psnr = psnr(expected, image);
                System.out.printf("bfloat16 against float32: PSNR %.1f dB%n", psnr);
                assertThat(psnr).isGreaterThanOrEqualTo(20).isLessThan(200);
            }
            assertThat(psnr(int8, unquantised)).isLessThan(200);
        }
    }

    /** Which precision is the default is the processor's, and what a picture carries. */
    @Test
    void thePrecisionIsTheProcessors() {
        ScaleDit.Precision expected =
                NativeAttention.multipliesBfloat16() ? ScaleDit.Precision.BFLOAT16 : ScaleDit.Precision.FLOAT32;
        assertThat(ScaleDit.Precision.defaultOn(ScaleDit.Device.CPU)).isEqualTo(expected);
        assertThat(ScaleDit.Precision.defaultOn(ScaleDit.Device.CUDA)).isEqualTo(ScaleDit.Precision.BFLOAT16);
        for (ScaleDit.Precision asked : List.of(ScaleDit.Precision.FLOAT32, ScaleDit.Precision.BFLOAT16)) {
            try (ScaleDit model = ScaleDit.load(Golden.tinyFlux());
                    ScaleDit other =
                            ScaleDit.builder(Golden.tinyFlux()).precision(asked).load()) {
                int off = mostOff(model.generate(small("a heron")), other.generate(small("a heron")));
                assertThat(off == 0).isEqualTo(asked == expected);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"112, 80", "16, 16", "592, 464", "640, 368", "128, 384", "16, 400"})
    void picturesOfAnyShapeComeOutWhole(int width, int height) throws IOException {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            GeneratedImage image = model.generate(ImageRequest.of("a heron")
                    .size(width, height)
                    .steps(1)
                    .guideSteps(1)
                    .seed(3));
            Path file = folder.resolve("shape.png");
            image.writePng(file);
            java.awt.image.BufferedImage read = javax.imageio.ImageIO.read(file.toFile());
            assertThat(read.getWidth()).isEqualTo(width);
            assertThat(read.getHeight()).isEqualTo(height);
            for (int y = 0; y < height; y++) {
                assertThat(bytes(read.getRGB(0, y, width, 1, null, 0, width))).isEqualTo(image.row(y));
            }
        }
    }

    @Test
    void aPngThatIsWrittenWhileItIsDecodedIsTheSameFile() {
        Path whole = folder.resolve("whole.png");
        Path streamed = folder.resolve("streamed.png");
        ImageRequest request =
                ImageRequest.of("a heron").size(592, 464).steps(1).guideSteps(1);
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            ImageRequest seeded = model.generatePng(request, streamed, progress -> {});
            model.generate(seeded).writePng(whole);
            assertThat(streamed).hasSameBinaryContentAs(whole);

            ImageRequest levels = small("two levels").ratio(2).levels(2);
            model.generatePng(levels, streamed, progress -> {});
            model.generate(levels).writePng(whole);
            assertThat(streamed).hasSameBinaryContentAs(whole);
        }
    }

    @Test
    void aGuidanceImageThatIsTooLargeForPlainFluxIsGuidedItself() {
        ImageRequest larger = small("two levels").ratio(2).size(224, 160); // 112 x 80 guide it
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            GeneratedImage levels = model.generate(larger.size(112, 80).levels(2));
            AtomicInteger all = new AtomicInteger();
            GeneratedImage asked =
                    model.generate(larger.plainSize(40), progress -> all.set(progress.levels())); // twice 40 are 80
            assertThat(all).hasValue(2);
            assertThat(asked.width()).isEqualTo(224);
            assertThat(psnr(asked, levels)).isInfinite();
            assertThat(psnr(model.generate(larger.plainSize(56)), levels)).isFinite();
        }
    }

    @Test
    void aPngIsNotLeftHalfWritten() throws IOException {
        Path alone = Files.createDirectory(folder.resolve("alone"));
        Path file = Files.writeString(alone.resolve("out.png"), "old");
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            assertThatThrownBy(() -> model.generatePng(small("x").size(320, 320), file, progress -> {
                        if (progress.stage() == Progress.Stage.DECODE && progress.step() == progress.steps() - 1) {
                            throw new CancellationException("enough");
                        }
                    }))
                    .isInstanceOf(CancellationException.class)
                    .hasMessage("enough");
            // The first row of four tiles is done: its rows are written by a thread that is interrupted already.
            assertThatThrownBy(() -> model.generatePng(small("x").size(320, 320), file, progress -> {
                        if (progress.stage() == Progress.Stage.DECODE && progress.step() == 4) {
                            Thread.currentThread().interrupt();
                        }
                    }))
                    .isInstanceOf(CancellationException.class)
                    .hasMessage("the generation was cancelled");
            assertThat(file).hasContent("old");
            assertThat(alone.toFile().list()).containsExactly("out.png");
            model.generatePng(small("x"), file, progress -> {});
        }
        assertThat(ImageRequest.from(file).prompt()).isEqualTo("x");
    }

    /** 0xRRGGBB → red, green, blue */
    private static byte[] bytes(int[] rgb) {
        byte[] bytes = new byte[3 * rgb.length];
        for (int x = 0; x < rgb.length; x++) {
            bytes[3 * x] = (byte) (rgb[x] >> 16);
            bytes[3 * x + 1] = (byte) (rgb[x] >> 8);
            bytes[3 * x + 2] = (byte) rgb[x];
        }
        return bytes;
    }

    @Test
    void twoThousandPixelsAreNoObstacle() {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            GeneratedImage image = model.generate(ImageRequest.of("dunes")
                    .size(2048, 2048)
                    .steps(1)
                    .guideSteps(1)
                    .seed(1));
            assertThat(image.width()).isEqualTo(2048);
            assertThat(distinctBytes(image.row(0))).isGreaterThan(20);
            assertThat(distinctBytes(image.row(2047))).isGreaterThan(20);
        }
    }

    @Test
    void aLevelMoreMakesAPictureLargerByTheRatio() {
        Path trace = folder.resolve("levels.safetensors");
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            ImageRequest request = small("two levels").ratio(2).levels(2).trace(trace);
            GeneratedImage image = model.generate(request);
            assertThat(image.width()).isEqualTo(224);
            assertThat(image.height()).isEqualTo(160);
            // The first level is the picture that one gets without the second.
            Path single = folder.resolve("level.safetensors");
            model.generate(request.levels(1).trace(single));
            try (PointerScope scope = new PointerScope();
                    Safetensors two = Safetensors.open(trace);
                    Safetensors one = Safetensors.open(single)) {
                assertClose(two.tensor("latents_002"), one.tensor("latents_002"), 0);
                assertThat(two.tensor("level_2.latents_002").shape()).containsExactly(1, 14 * 10, 64);
            }
        }
    }

    @Test
    void withoutLevelsThePictureIsWhatWouldHaveBeenAGuidanceImage() {
        Path trace = folder.resolve("guided.safetensors");
        Path plainTrace = folder.resolve("plain.safetensors");
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            ImageRequest request = small("plain").ratio(2);
            model.generate(request.size(128, 96).trace(trace));
            ImageRequest plain = request.size(64, 48).levels(0);
            GeneratedImage image = model.generate(plain.trace(plainTrace));
            assertThat(image.width()).isEqualTo(64);
            assertThat(image.height()).isEqualTo(48);
            assertThat(distinctBytes(image.row(20))).isGreaterThan(20);
            try (PointerScope scope = new PointerScope();
                    Safetensors guided = Safetensors.open(trace);
                    Safetensors alone = Safetensors.open(plainTrace)) {
                assertClose(alone.tensor("guidance_latents"), guided.tensor("guidance_latents"), 0);
                assertThat(alone.names()).doesNotContain("latents_000");
            }
            assertThatThrownBy(() -> model.generate(plain.guideImage(folder.resolve("any.png"))))
                    .hasMessage(
                            "a guidance image is given with 0 levels, expected 1 or more: a picture of plain FLUX has"
                                    + " none");
        }
    }

    @Test
    void aPngCarriesAllThatIsNeededToMakeItAgain() {
        Path file = folder.resolve("again.png");
        ImageRequest request = small("Ein Schloß, 雪 \"quoted\"\nline")
                .ratio(2)
                .reach(2)
                .guidanceMargin(1)
                .guidanceText(false)
                .guidance(2.5)
                .init(Init.GUIDANCE)
                .strength(0.9)
                .textTokens(64);
        GeneratedImage first;
        try (ScaleDit model = tinyWithLora().loraScope(ScaleDit.LoraScope.ALL).load()) {
            first = model.generate(request);
            first.writePng(file);
        }
        assertThat(ImageRequest.from(file).prompt()).isEqualTo(request.prompt());
        try (ScaleDit model = ScaleDit.builderFrom(file).load()) {
            assertThat(psnr(first, model.generate(ImageRequest.from(file)))).isInfinite();
        }
    }

    /** On every level, whether or not guidance tokens are kept; at 1 there is none, and the PNG says what it was. */
    @ParameterizedTest
    @CsvSource({"true", "false"})
    void trueGuidanceLeadsAwayFromTheNegativePrompt(boolean guidanceText) {
        ImageRequest request =
                small("a red house").guidanceText(guidanceText).levels(2).ratio(2);
        try (ScaleDit model = tinyWithLora().load()) {
            GeneratedImage plain = model.generate(request);
            ImageRequest guided = request.negative("blurry").trueGuidance(3);
            GeneratedImage strong = model.generate(guided);
            assertThat(psnr(plain, strong)).isFinite();
            assertThat(psnr(plain, model.generate(guided.trueGuidance(1)))).isInfinite();
            // Away from itself is no way: only rounding is left of negative + S * (positive - negative).
            assertThat(psnr(
                            plain,
                            model.generate(request.negative("a red house").trueGuidance(3))))
                    .isGreaterThan(60);

            Path file = folder.resolve("guided.png");
            strong.writePng(file);
            assertThat(ImageRequest.from(file).negative()).hasValue("blurry");
            assertThat(ImageRequest.from(file).trueGuidance()).hasValue(3);
            assertThat(psnr(strong, model.generate(ImageRequest.from(file)))).isInfinite();
        }
    }

    @Test
    void eachEncoderMayBeToldSomethingElse() {
        ImageRequest request = small("a red house").guideSteps(1).steps(1);
        try (ScaleDit model = tinyWithLora().load();
                PointerScope scope = new PointerScope()) {
            Tensor[] house = text(model, request);
            Tensor[] fox = text(model, request.prompt("a fox"));
            assertThat(house[0].equal(fox[0]) || house[1].equal(fox[1])).isFalse();
            Tensor[] foxByClip = text(model, request.clipPrompt("a fox"));
            assertThat(foxByClip[0].equal(house[0]) && foxByClip[1].equal(fox[1]))
                    .isTrue();
            Tensor[] foxByT5 = text(model, request.t5Prompt("a fox"));
            assertThat(foxByT5[0].equal(fox[0]) && foxByT5[1].equal(house[1])).isTrue();
            Tensor[] nothing = text(model, request.clipPrompt(""));
            assertThat(nothing[1].equal(house[1])).isFalse();

            ImageRequest both = request.clipPrompt("a fox").t5Prompt("");
            GeneratedImage made = model.generate(both);
            Path file = folder.resolve("told.png");
            made.writePng(file);
            ImageRequest again = ImageRequest.from(file);
            assertThat(again.prompt()).isEqualTo("a red house");
            assertThat(again.clipPrompt()).hasValue("a fox");
            assertThat(again.t5Prompt()).hasValue("");
            assertThat(psnr(made, model.generate(again))).isInfinite();
        }
        assertThatThrownBy(() -> request.t5Prompt("a\0b"))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("character 1 of the T5 prompt is NUL, expected text");
    }

    /** T5's states and CLIP's summary. */
    private static Tensor[] text(ScaleDit model, ImageRequest request) {
        Path trace = folder.resolve("told.safetensors");
        model.generate(request.trace(trace));
        try (Safetensors traced = Safetensors.open(trace)) {
            return new Tensor[] {
                traced.tensor("text_states").clone(),
                traced.tensor("text_pooled").clone()
            };
        }
    }

    /** With one step from the same noise the guidance image is the noise less the velocity, so images combine as velocities do. */
    @Test
    void trueGuidanceCombinesWhatThePromptsGiveAlone() {
        ImageRequest request = small("a red house").guideSteps(1).steps(1);
        try (ScaleDit model = tinyWithLora().load();
                PointerScope scope = new PointerScope()) {
            Tensor positive = guidanceLatents(model, request);
            Tensor negative = guidanceLatents(model, request.prompt("blurry"));
            Tensor guided = guidanceLatents(model, request.negative("blurry").trueGuidance(2.5));
            assertClose(guided, negative.add(positive.sub(negative).mul(scalar(2.5f))), 5e-5f);
            assertThat(Golden.maxAbsoluteDifference(guided, positive)).isGreaterThan(1e-3f);
        }
    }

    /** [1, w·h, 64] */
    private static Tensor guidanceLatents(ScaleDit model, ImageRequest request) {
        Path trace = folder.resolve("alone.safetensors");
        model.generate(request.trace(trace));
        try (Safetensors traced = Safetensors.open(trace)) {
            assertThat(traced.names().contains("negative_text_states"))
                    .isEqualTo(request.negative().isPresent());
            return traced.tensor("guidance_latents").clone();
        }
    }

    @Test
    void aLoneNegativePromptAndLoneTrueGuidanceAreRefused() {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            assertThatThrownBy(() -> model.generate(small("x").negative("y")))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("a negative prompt is given without true guidance, expected both or neither");
            assertThatThrownBy(() -> model.generate(small("x").trueGuidance(4)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("true guidance is given without a negative prompt, expected both or neither");
        }
    }

    @Test
    void anInterruptCancelsTheOpening() {
        Thread.currentThread().interrupt();
        assertThatThrownBy(() -> ScaleDit.load(Golden.tinyFlux()))
                .isInstanceOf(CancellationException.class)
                .hasMessageStartingWith("reading " + Golden.tinyFlux())
                .hasMessageEndingWith(".safetensors was cancelled");
        assertThat(Thread.interrupted()).isFalse();
        ScaleDit.load(Golden.tinyFlux()).close();
    }

    @Test
    void aSeedIsChosenAndRecordedWhenNoneIsGiven() {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            ImageRequest request = ImageRequest.of("x").size(32, 32).steps(1).guideSteps(1);
            GeneratedImage first = model.generate(request);
            GeneratedImage again = model.generate(first.request());
            assertThat(psnr(first, again)).isInfinite();
            assertThat(psnr(first, model.generate(request))).isFinite();
        }
    }

    @Test
    void progressGoesThroughEveryStage() {
        List<Progress> seen = new ArrayList<>();
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            model.generate(small("stages").init(Init.GUIDANCE).strength(1), seen::add);
        }
        assertThat(seen.stream().map(Progress::stage).distinct())
                .containsExactly(
                        Progress.Stage.LOAD,
                        Progress.Stage.GUIDANCE_IMAGE,
                        Progress.Stage.ENLARGE,
                        Progress.Stage.HIGH_RESOLUTION,
                        Progress.Stage.DECODE);
        for (Progress.Stage stage : Progress.Stage.values()) {
            List<Progress> steps = seen.stream().filter(p -> p.stage() == stage).toList();
            assertThat(steps.get(0).step()).isZero();
            Progress last = steps.get(steps.size() - 1);
            assertThat(last.step()).isEqualTo(last.steps());
        }
    }

    @Test
    void aPlainPictureIsOneOfOne() {
        List<Progress> seen = new ArrayList<>();
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            model.generate(small("stages").levels(0), seen::add);
        }
        assertThat(seen).extracting(Progress::stage).contains(Progress.Stage.DECODE);
        assertThat(seen).allMatch(progress -> progress.level() == 1 && progress.levels() == 1);
    }

    @Test
    void interruptingTheThreadCancelsWithinAStepAndTheModelLivesOn() throws Exception {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            CountDownLatch begun = new CountDownLatch(1);
            List<Integer> steps = new CopyOnWriteArrayList<>();
            CompletableFuture<Throwable> outcome = new CompletableFuture<>();
            Thread worker = new Thread(() -> {
                try {
                    model.generate(small("a long one").size(512, 512).steps(500), progress -> {
                        if (progress.stage() == Progress.Stage.HIGH_RESOLUTION) {
                            steps.add(progress.step());
                            begun.countDown();
                        }
                    });
                    outcome.complete(new AssertionError("it ran to its end"));
                } catch (Throwable e) {
                    outcome.complete(e);
                }
            });
            worker.start();
            begun.await();
            worker.interrupt();
            int atInterrupt = steps.size();
            assertThat(outcome.get()).isInstanceOf(CancellationException.class);
            assertThat(steps.size()).isLessThanOrEqualTo(atInterrupt + 2);
            assertThat(model.generate(small("after")).width()).isEqualTo(112);
        }
    }

    @Test
    void tenPicturesInARowLeaveMemoryWhereOneLeftIt() {
        try (ScaleDit model = tinyWithLora().load()) {
            ImageRequest request = small("memory").size(320, 320).steps(1).guideSteps(1);
            for (int i = 0; i < 3; i++) {
                model.generate(request.seed(i));
            }
            long before = ProcessMemory.residentBytes();
            for (int i = 0; i < 10; i++) {
                model.generate(request.seed(i));
            }
            // A leak of one [912, 256] float tensor a block and picture would be 36 MiB.
            assertThat(ProcessMemory.residentBytes() - before).isLessThan(24 << 20);
        }
    }

    @Test
    void cancelledPicturesLeaveNothingBehind() {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            ImageRequest request = small("stopped").size(320, 320);
            model.generate(request);
            long before = ProcessMemory.residentBytes();
            for (int i = 0; i < 10; i++) {
                assertThatThrownBy(() -> model.generate(request, progress -> {
                            if (progress.stage() == Progress.Stage.HIGH_RESOLUTION && progress.step() == 1) {
                                throw new CancellationException("enough");
                            }
                        }))
                        .isInstanceOf(CancellationException.class);
            }
            assertThat(ProcessMemory.residentBytes() - before).isLessThan(24 << 20);
        }
    }

    /** JavaCPP counts what Java owns of native memory: tensors, geometries and all other handles. */
    @Test
    void whatEndsAStepInItsMiddleLeavesNoHandleAndTheModelLivesOn() {
        leavesNoHandle(small("stopped").size(320, 320));
    }

    @Test
    void whatEndsAStepOfTwoPassesLeavesNoHandleEither() {
        leavesNoHandle(small("stopped")
                .size(320, 320)
                .guidanceText(false)
                .negative("going on")
                .trueGuidance(2));
    }

    private static void leavesNoHandle(ImageRequest request) {
        try (ScaleDit model = tinyWithLora().load()) {
            GeneratedImage expected = model.generate(request);
            long before = settledHandles();
            for (Progress.Stage stage : List.of(Progress.Stage.GUIDANCE_IMAGE, Progress.Stage.HIGH_RESOLUTION)) {
                // The interrupt is noticed after the next step's first block.
                assertThatThrownBy(() -> model.generate(
                                request, at(stage, () -> Thread.currentThread().interrupt())))
                        .isInstanceOf(CancellationException.class)
                        .hasMessage("the generation was cancelled");
                assertThat(Thread.interrupted()).isFalse();
                RuntimeException fault = new RuntimeException("CUDA out of memory. Tried to allocate 2.00 GiB.");
                assertThatThrownBy(() -> model.generate(request, at(stage, () -> {
                            throw fault;
                        })))
                        .as("on a CPU it is none of the model's business")
                        .isSameAs(fault);
            }
            assertThat(Pointer.totalCount()).isEqualTo(before);
            assertThat(psnr(expected, model.generate(request))).isInfinite();
        }
    }

    /** Once other tests' garbage has gone, which comes to be freed some time after it is collected, and would while this one counts. */
    private static long settledHandles() {
        long handles = -1;
        for (int unchanged = 0; unchanged < 5; ) {
            System.gc();
            LockSupport.parkNanos(20_000_000);
            Pointer.deallocateReferences();
            long now = Pointer.totalCount();
            unchanged = now == handles ? unchanged + 1 : 0;
            handles = now;
        }
        return handles;
    }

    /** Runs the action when the first step of the stage is done. */
    static Consumer<Progress> at(Progress.Stage stage, Runnable action) {
        return progress -> {
            if (progress.stage() == stage && progress.step() == 1) {
                action.run();
            }
        };
    }

    @Test
    void aGuideImageOfTheUsersIsTaken() throws IOException {
        Path guide = folder.resolve("guide.png");
        java.awt.image.BufferedImage drawn =
                new java.awt.image.BufferedImage(50, 30, java.awt.image.BufferedImage.TYPE_INT_RGB);
        javax.imageio.ImageIO.write(drawn, "png", guide.toFile());
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            GeneratedImage own = model.generate(small("x").guideImage(guide));
            assertThat(psnr(own, model.generate(small("x")))).isFinite();
        }
    }

    @Test
    void aTraceIsNotLeftHalfWritten() {
        Path trace = folder.resolve("half.safetensors");
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            assertThatThrownBy(() -> model.generate(small("x").trace(trace), progress -> {
                        if (progress.stage() == Progress.Stage.DECODE) {
                            throw new IllegalStateException("stop");
                        }
                    }))
                    .hasMessage("stop");
        }
        assertThat(folder.toFile().list((dir, name) -> name.startsWith("half") || name.startsWith(".scaledit-")))
                .isEmpty();
    }

    @Test
    void aVaeOfOtherLatentsThanTheTransformersIsRefusedAtOnce() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("eight"));
        Path vae = model.resolve("vae");
        Path config = vae.resolve("config.json");
        Files.writeString(
                config, Files.readString(config).replace("\"latent_channels\": 16", "\"latent_channels\": 8"));
        Tensors.run(() -> {
            Map<String, Tensor> weights = new LinkedHashMap<>();
            AutoencoderKl.expectedTensors(VaeConfig.of(Config.read(config)))
                    .forEach((name, shape) -> weights.put(name, torch.zeros(shape)));
            SafetensorsWriter.write(vae.resolve("diffusion_pytorch_model.safetensors"), weights, Map.of());
        });
        String sentence =
                "the VAE in " + vae + " has 8 latent channels, expected 16, which the transformer in %s paints";
        assertThatThrownBy(() -> ScaleDit.builder(Golden.tinyFlux()).vae(vae).load())
                .isInstanceOf(CheckpointException.class)
                .hasMessage(sentence.formatted(Golden.tinyFlux().resolve("transformer")));
        assertThatThrownBy(() -> ScaleDit.describe(model))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(sentence.formatted(model.resolve("transformer")));
    }

    @Test
    void aModelWithoutItsSchedulersConfigIsRefusedAtOnce() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("unscheduled"));
        Path config = model.resolve("scheduler/scheduler_config.json");
        Files.delete(config);
        assertThatThrownBy(() -> ScaleDit.load(model))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(config + " does not exist");
        assertThatThrownBy(() -> ScaleDit.describe(model)).hasMessage(config + " does not exist");
    }

    /** Weights of 24 GB would be read first otherwise. */
    @Test
    void wrongFilesOfARequestAreNamedBeforeAnyWeightIsRead() throws IOException {
        Path text = Files.writeString(folder.resolve("text.png"), "no picture");
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            for (ImageRequest wrong : List.of(
                    small("x").guideImage(text),
                    small("x").noise(text),
                    small("x").noise(noise),
                    small("x").trace(Path.of("/nowhere/trace.safetensors")))) {
                assertThatThrownBy(() -> model.generate(wrong, progress -> {
                            throw new AssertionError("a stage has begun");
                        }))
                        .hasMessageFindingMatch("text.png|guidance_noise in .* has shape|/nowhere of trace");
            }
        }
    }

    @Test
    void whoeverWaitsForAnotherGenerationCanBeCancelled() throws Exception {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            CountDownLatch waits = new CountDownLatch(1);
            CompletableFuture<Throwable> waited = new CompletableFuture<>();
            Thread second = new Thread(() -> {
                waits.countDown();
                try {
                    model.generate(small("x"));
                    waited.complete(null);
                } catch (CancellationException e) {
                    waited.complete(e);
                }
            });
            model.generate(small("x"), at(Progress.Stage.HIGH_RESOLUTION, () -> {
                second.start();
                try {
                    waits.await();
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
                second.interrupt();
                assertThat(waited.join()).hasMessage("the generation was cancelled");
            }));
        }
    }

    @Test
    void aGenerationDoesNotCloseItsOwnModel() {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            assertThatThrownBy(() -> model.generate(small("x"), at(Progress.Stage.HIGH_RESOLUTION, model::close)))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("the model is closed by the progress of a generation, expected after its end");
            assertThat(model.generate(small("x")).width()).isEqualTo(112);
        }
    }

    @Test
    void twoPicturesDoNotBecomeOneFile() {
        Path file = folder.resolve("twice.png");
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            assertThatThrownBy(() -> model.generatePngs(
                            List.of(small("x"), small("y")),
                            List.of(file, folder.resolve("./twice.png")),
                            progress -> {}))
                    .hasMessageEndingWith("twice.png is given twice, expected one for each request");
            assertThat(file).doesNotExist();
        }
    }

    /** Above all a model: the embedded one is another one. */
    @Test
    @SuppressWarnings("NullAway")
    void nullIsRefusedByName() {
        assertThatThrownBy(() -> ScaleDit.load(null)).hasMessage("model");
        assertThatThrownBy(() -> ScaleDit.builderEmbedded().model(null)).hasMessage("model");
        assertThatThrownBy(() -> ScaleDit.builderEmbedded().device(null)).hasMessage("device");
        assertThatThrownBy(() -> ImageRequest.of(null)).hasMessage("prompt");
        assertThatThrownBy(() -> ImageRequest.of("x").init(null)).hasMessage("init");
    }

    @Test
    void aRequestSaysWhatItAsksFor() {
        assertThat(small("a red fox"))
                .asString()
                .startsWith("{\"prompt\":\"a red fox\",\"width\":112,\"height\":80,\"seed\":7,\"ratio\":4");
        assertThat(ImageRequest.of("x")).asString().doesNotContain("seed");
    }

    @Test
    void noiseOfTheWrongShapeIsNamed() {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            assertThatThrownBy(() -> model.generate(twoStage().size(592, 480)))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage("noise in " + noise + " has shape [1, 1073, 64], expected [1, 1110, 64]");
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "100 | 64 | width is 100 pixels, expected a multiple of 16 from 16 to 65536",
                "64 | 0 | height is 0 pixels, expected a multiple of 16 from 16 to 65536",
                "65552 | 64 | width is 65552 pixels, expected a multiple of 16 from 16 to 65536",
            })
    void sizesThatNoGridHasAreRefused(int width, int height, String sentence) {
        assertThatThrownBy(() -> ImageRequest.of("x").size(width, height))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(sentence);
    }

    @Test
    void argumentsOutOfRangeAreRefused() {
        ImageRequest request = ImageRequest.of("x");
        assertThatThrownBy(() -> request.ratio(3))
                .hasMessage("ratio is 3, expected 1, 2, 4 or 8, or 0 for no guidance image");
        assertThatThrownBy(() -> request.window(8)).hasMessage("window is 8, expected 16, 32 or 64");
        assertThatThrownBy(() -> request.reach(-1)).hasMessage("reach is -1, expected 0 to 512");
        assertThatThrownBy(() -> request.steps(0)).hasMessage("steps is 0, expected 1 to 1000");
        assertThatThrownBy(() -> request.strength(0)).hasMessage("strength is 0.0, expected more than 0 and at most 1");
        assertThatThrownBy(() -> request.guidance(Double.NaN))
                .hasMessage("guidance is NaN, expected a number of 0 or more");
        assertThatThrownBy(() -> ImageRequest.of("a\0b")).hasMessage("character 1 of the prompt is NUL, expected text");
        assertThatThrownBy(() -> ImageRequest.of("\ud800"))
                .hasMessage("prompt is half a surrogate pair, expected valid Unicode");
        assertThatThrownBy(() -> request.negative("a\0b"))
                .hasMessage("character 1 of the negative prompt is NUL, expected text");
        assertThatThrownBy(() -> request.trueGuidance(0.5))
                .hasMessage("true guidance is 0.5, expected a number of 1 or more");
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            assertThatThrownBy(() -> model.generate(request.levels(4)))
                    .hasMessage("width is 262144 pixels, expected a multiple of 16 from 16 to 65536");
            assertThatThrownBy(() -> model.generate(
                            request.size(64, 64).steps(2).init(Init.GUIDANCE).strength(0.1)))
                    .hasMessage("strength 0.1 of 2 steps runs none, expected more than 0.25");
        }
    }

    @Test
    void aVeryLongPromptIsCutLikeTheReferenceCutsIt() {
        try (ScaleDit model = ScaleDit.load(Golden.tinyFlux())) {
            String prompt = "word ".repeat(20_000);
            assertThat(model.generate(ImageRequest.of(prompt)
                                    .size(32, 32)
                                    .steps(1)
                                    .guideSteps(1))
                            .width())
                    .isEqualTo(32);
        }
    }

    @Test
    void aClosedModelSaysSo() {
        ScaleDit model = ScaleDit.load(Golden.tinyFlux());
        model.close();
        model.close();
        assertThatThrownBy(() -> model.generate(small("x")))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("the model is closed");
    }

    private static void assertClose(Tensor actual, Tensor expected, float limit) {
        assertThat(Golden.maxAbsoluteDifference(actual, expected)).isLessThanOrEqualTo(limit);
    }

    /** [3, h, w] → every 8th row and column. */
    private static Tensor every8th(Tensor image) {
        return stepped(stepped(image, 1), 2);
    }

    private static Tensor stepped(Tensor image, int dimension) {
        int count = (int) ((image.size(dimension) + 7) / 8);
        long[] index = new long[count];
        for (int i = 0; i < count; i++) {
            index[i] = 8L * i;
        }
        return image.index_select(dimension, Tensors.of(index, count));
    }

    private static org.bytedeco.pytorch.Scalar scalar(float value) {
        return new org.bytedeco.pytorch.Scalar(value);
    }

    static double psnr(GeneratedImage a, GeneratedImage b) {
        double squares = 0;
        for (int y = 0; y < a.height(); y++) {
            byte[] first = a.row(y);
            byte[] second = b.row(y);
            for (int i = 0; i < first.length; i++) {
                double difference = (first[i] & 255) - (second[i] & 255);
                squares += difference * difference;
            }
        }
        return 10 * Math.log10(255.0 * 255 * 3 * a.width() * a.height() / squares);
    }

    private static long distinctBytes(byte[] row) {
        boolean[] seen = new boolean[256];
        long count = 0;
        for (byte b : row) {
            count += seen[b & 255] ? 0 : 1;
            seen[b & 255] = true;
        }
        return count;
    }
}
