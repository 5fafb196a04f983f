package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.scaledit.cli.Outcome.run;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.ImageRequest;
import org.scaledit.evaluation.PromptBenchmark;
import org.scaledit.image.ImageFile;
import org.scaledit.image.PngFile;
import org.scaledit.judge.DetectorConfig;
import org.scaledit.judge.Judge;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.Drawings;
import org.scaledit.testing.DrawnJudge;
import org.scaledit.testing.Golden;

/** A judge that has hardly been trained, and what is evaluated with it. */
class EvaluateCommandTest {
    @TempDir
    static Path folder;

    private static Path sprites;
    private static Path config;
    private static Outcome training;

    @BeforeAll
    static void train() throws IOException {
        sprites = Files.createDirectories(folder.resolve("sprites"));
        Drawings.write(sprites);
        config = Files.writeString(
                folder.resolve("judge.json"),
                DrawnJudge.CONFIG
                        .replace("\"batch\": 16, \"steps\": 600", "\"batch\": 2, \"steps\": 4")
                        .replace("\"warmup_steps\": 50", "\"warmup_steps\": 2")
                        .replace("\"exam\": 40", "\"exam\": 1"));
        training = trained("run");
    }

    private static Outcome trained(String output, String... more) {
        List<String> arguments = new ArrayList<>(List.of("train", "judge", "--config", config.toString()));
        arguments.addAll(List.of("-o", folder.resolve(output).toString(), "--sprites", sprites.toString()));
        arguments.addAll(List.of(more));
        return run(arguments.toArray(String[]::new));
    }

    private static Outcome evaluated(String output, String... more) {
        List<String> arguments =
                new ArrayList<>(List.of("evaluate", "-o", folder.resolve(output).toString()));
        arguments.addAll(List.of("--judge", folder.resolve("run/judge").toString(), "--sprites", sprites.toString()));
        arguments.addAll(List.of(more));
        return run(arguments.toArray(String[]::new));
    }

    private static void assertRefused(Outcome outcome, int status, String message) {
        assertThat(outcome.err()).startsWith("scaledit: " + message);
        assertThat(outcome.err().lines()).hasSize(1);
        assertThat(outcome.status()).isEqualTo(status);
    }

    @Test
    void aTrainingSaysWhatTheJudgeKnows() throws IOException {
        assertThat(training.err())
                .containsPattern("judge 4/4, loss \\d+\\.\\d{3}, rate \\S+, norm \\S+, \\S+/s, 0:00 left");
        assertThat(training.out())
                .containsPattern("right, usual combinations: +one \\d\\.\\d{3}, .*overall \\d\\.\\d{3}\n");
        assertThat(training.status()).isZero();
        assertThat(folder.resolve("run/judge.loss.png")).isNotEmptyFile();
        JsonNode written = new ObjectMapper()
                .readTree(folder.resolve("run/judge/config.json").toFile());
        assertThat(written.path("objects").size()).isEqualTo(188);
        assertThat(written.path("accuracy").path("held_out").path("overall").isNumber())
                .isTrue();
        assertRefused(
                trained("run"), 1, folder.resolve("run/judge.checkpoint.safetensors") + " exists, expected a folder");
        assertThat(trained("run", "--resume", "--quiet").status()).isZero();
        assertRefused(
                trained("none", "--resume"), 1, "there is no " + folder.resolve("none/judge.checkpoint.safetensors"));
        assertRefused(trained("none", "--gpus", "2"), 2, "gpus is 2, expected --device cuda beside it");
        assertThat(folder.resolve("none")).doesNotExist();
    }

    @Test
    void rendersAreJudged() throws IOException {
        Outcome outcome = evaluated("renders", "--renders", "--prompts", "7", "--size", "96", "--seed", "5");
        assertThat(outcome.err()).contains("judge 7/7, 0.");
        assertThat(outcome.out()).contains("right: one ", "the judge, about renders: one ");
        assertThat(outcome.status()).isZero();
        List<String> rows = Files.readAllLines(folder.resolve("renders/prompts.csv"));
        assertThat(rows).hasSize(8);
        assertThat(rows.get(0)).isEqualTo("kind,prompt,seen,right");
        assertThat(rows.get(1)).matches("one,\"[^\"]+\",\"[^\"]*\",(true|false)");
        assertThat(rows.get(5)).startsWith("position,");
        assertThat(rows.get(6)).startsWith("one,");
        JsonNode json = new ObjectMapper()
                .readTree(folder.resolve("renders/prompts.json").toFile());
        assertThat(json.path("painter").asText()).isEqualTo("renders");
        assertThat(json.path("right").size()).isEqualTo(6);
        assertThat(json.path("judge_right_about_renders").size()).isEqualTo(6);
        assertThat(json.has("seams")).isFalse(); // one window
        assertThat(ImageFile.size(folder.resolve("renders/prompts.png"))).isEqualTo(new ImageFile.Size(7 * 136, 136));
        evaluated("again", "--renders", "--prompts", "7", "--size", "96", "--seed", "5", "--quiet");
        assertThat(Files.mismatch(folder.resolve("renders/prompts.csv"), folder.resolve("again/prompts.csv")))
                .isEqualTo(-1);
        evaluated("other", "--renders", "--prompts", "7", "--size", "96", "--seed", "6", "--quiet", "--pictures");
        for (int i = 0; i < 7; i++) {
            Path picture = folder.resolve("other/pictures/0000" + i + ".png");
            assertThat(PngFile.isWhole(picture)).isTrue();
            assertThat(ImageFile.size(picture)).isEqualTo(new ImageFile.Size(96, 96));
        }
        assertThat(folder.resolve("renders/pictures")).doesNotExist();
        assertThat(Files.readAllLines(folder.resolve("other/prompts.csv")).get(1))
                .isNotEqualTo(rows.get(1));
    }

    @Test
    void aFileIsNoFolderForPictures() {
        Path file = folder.resolve("run/judge/config.json");
        assertRefused(
                evaluated("run/judge/config.json", "--renders", "--pictures"),
                2,
                "output " + file + " is a file, expected a folder");
        assertThat(file).isNotEmptyFile();
    }

    @Test
    void picturesThatNoArrayHoldsAreRefused() {
        assertThatThrownBy(() -> new PromptBenchmark.Order(1, 26_768, 0))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("size is 26768, expected up to 26752 to be judged");
    }

    @Test
    void aPictureIsAsLargeAsItsLastLevel() {
        ImageRequest request = ImageRequest.of("").size(160, 160).ratio(2);
        assertThat(PromptBenchmark.lastSide(request.levels(0))).isEqualTo(160);
        assertThat(PromptBenchmark.lastSide(request)).isEqualTo(160);
        assertThat(PromptBenchmark.lastSide(request.levels(3))).isEqualTo(640);
        PromptBenchmark.requireSide(26_752, 26_752);
        assertThatThrownBy(() -> PromptBenchmark.requireSide(26_753, 64))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("the pictures to be judged have 26753 × 26753 pixels, expected 64 × 64 to 26752 × 26752");
    }

    /** A model without weights: what it would paint is known by its settings. */
    @ParameterizedTest
    @CsvSource(
            nullValues = "none",
            value = {
                "--size 8192 --levels 2, 64, none, 32768",
                "--size 8192 --levels 2, 64, '{\"ratio\": 8}', 65536",
                "--size 128 --levels 2 --ratio 1, 256, none, 128",
                "--size 128, 256, none, 128"
            })
    void picturesThatNoJudgeCanSeeAreRefusedBeforeTheModelIsLoaded(
            String options, int size, @Nullable String settings, int painted, @TempDir Path own) throws IOException {
        Path model = Golden.copyOfTinyFlux(own.resolve("model"));
        Files.delete(model.resolve("vae/diffusion_pytorch_model.safetensors"));
        if (settings != null) {
            Files.writeString(model.resolve("generation_config.json"), settings);
        }
        Path judge = Files.createDirectory(own.resolve("judge"));
        DrawnJudge.writeUntrained(judge, new DetectorConfig(size, List.of(8), 1, 4, Vocabulary.standard()));
        List<String> arguments = new ArrayList<>(List.of("evaluate", model.toString(), "--judge", judge.toString()));
        arguments.addAll(List.of("-o", own.resolve("out").toString(), "--sprites", sprites.toString()));
        arguments.addAll(List.of(options.split(" ")));
        assertRefused(
                run(arguments.toArray(String[]::new)),
                2,
                "the pictures to be judged have " + painted + " × " + painted + " pixels, expected " + size + " × "
                        + size + " to 26752 × 26752");
        assertThat(own.resolve("out")).doesNotExist();
    }

    @Test
    void aJudgeOfOtherObjectsIsRefused() throws IOException {
        Path judge = Files.createDirectory(folder.resolve("four"));
        DrawnJudge.writeUntrained(judge, new DetectorConfig(64, List.of(8), 1, 4, DrawnJudge.VOCABULARY));
        assertRefused(
                run(
                        "evaluate",
                        "--renders",
                        "-o",
                        folder.resolve("never").toString(),
                        "--judge",
                        judge.toString(),
                        "--sprites",
                        sprites.toString()),
                2,
                "judge " + judge + " knows 4 objects, expected the 188 that prompts are about");
        assertThat(folder.resolve("never")).doesNotExist();
    }

    @Test
    void anInterruptEndsIt() {
        Sprites opened = Sprites.open(sprites);
        Composer composer = new Composer(Vocabulary.standard(), opened, true);
        int[] painted = new int[1];
        PromptBenchmark.Painter painter = scene -> {
            if (++painted[0] == 3) {
                Thread.currentThread().interrupt();
            }
            return new PromptBenchmark.Picture(new SceneRenderer(opened).render(scene, 64), 16);
        };
        try (Judge judge = Judge.open(folder.resolve("run/judge"), Placement.FLOAT32_CPU)) {
            PromptBenchmark.Order order = new PromptBenchmark.Order(10, 64, 0);
            assertThatThrownBy(() -> PromptBenchmark.run(judge, composer, order, painter, (done, all, right) -> {}))
                    .isInstanceOf(CancellationException.class);
            assertThat(painted[0]).isEqualTo(3);
        }
    }

    /** Plain ones at the judge's size, guided ones at another. */
    @Test
    void aModelsPicturesAreJudged() throws IOException {
        String tiny = Golden.tinyFlux().toString();
        for (String size : List.of("64", "128", "160 --levels 2 --ratio 2")) {
            List<String> options = new ArrayList<>(List.of(tiny));
            options.addAll(List.of(("--prompts 2 --guide-steps 1 --quiet --size " + size).split(" ")));
            if (!size.equals("64")) {
                options.addAll(List.of("--steps", "1"));
            }
            Outcome outcome = evaluated("model" + size, options.toArray(String[]::new));
            assertThat(outcome.err()).isEmpty();
            assertThat(outcome.status()).isZero();
            JsonNode json = new ObjectMapper()
                    .readTree(folder.resolve("model" + size + "/prompts.json").toFile());
            assertThat(json.path("painter").asText()).isEqualTo(tiny);
            assertThat(json.path("right").path("one").asDouble()).isZero(); // coloured texture
            assertThat(json.has("seams")).isEqualTo(size.endsWith("--ratio 2")); // 320 pixels, 2 x 2 windows
        }
    }

    /** 320 pixels are one window of 32 tokens, where the model's own settings say so, and 2 × 2 of the usual 16. */
    @Test
    void seamsAreThoseOfTheWindowsThatTheModelPaintsIn() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("wide"));
        String options = "--prompts 4 --guide-steps 1 --steps 1 --quiet --size 160 --levels 2 --ratio 2";
        for (int window : new int[] {16, 32}) {
            Files.writeString(model.resolve("generation_config.json"), "{\"window\": " + window + "}");
            List<String> arguments = new ArrayList<>(List.of(model.toString()));
            arguments.addAll(List.of(options.split(" ")));
            assertThat(evaluated("wide" + window, arguments.toArray(String[]::new))
                            .status())
                    .isZero();
            JsonNode json = new ObjectMapper()
                    .readTree(folder.resolve("wide" + window + "/prompts.json").toFile());
            assertThat(json.has("seams")).isEqualTo(window == 16);
            assertThat(json.has("seams_error")).isEqualTo(window == 16);
            assertThat(json.has("token_borders")).isEqualTo(window == 16);
            assertThat(json.has("token_borders_error")).isEqualTo(window == 16);
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "--quiet | 2 | No model given, expected MODEL or --renders",
                "tools --renders | 2 | Both MODEL and --renders given, expected one of them",
                "nowhere | 2 | model nowhere does not exist",
                "--renders --steps 3 | 2 | --steps is given beside --renders, expected a model",
                "--renders --prompts 0 | 2 | prompts is 0, expected 1 or more",
                "--renders --size 32 | 2 | the pictures to be judged have 32 × 32 pixels, expected 64 × 64 to",
                "--renders --size 8208 | 2 | size is 8208 pixels, expected 64 to 8192",
                "--renders --sprites nowhere | 2 | sprites nowhere does not exist",
                "--renders --judge nowhere | 2 | judge nowhere does not exist"
            })
    void whatIsWrongIsOneSentence(String options, int status, String message) {
        List<String> arguments = new ArrayList<>(
                List.of("evaluate", "-o", folder.resolve("wrong").toString()));
        arguments.addAll(List.of(options.split(" ")));
        if (!options.contains("--judge")) {
            arguments.addAll(List.of("--judge", folder.resolve("run/judge").toString()));
        }
        if (!options.contains("--sprites")) {
            arguments.addAll(List.of("--sprites", sprites.toString()));
        }
        assertRefused(run(arguments.toArray(String[]::new)), status, message);
        assertThat(folder.resolve("wrong")).doesNotExist();
    }
}
