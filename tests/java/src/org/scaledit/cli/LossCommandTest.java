package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.scaledit.cli.Outcome.run;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;

class LossCommandTest {
    private static final String LORA = "lora/lora.safetensors";

    @TempDir
    static Path folder;

    /** Pictures, and a LoRA that is trained on them. */
    @BeforeAll
    static void train() throws IOException {
        DrawnPictures.in(folder.resolve("data"), 5, 128, 128);
        Files.createDirectory(folder.resolve("lora"));
        Outcome training = run(arguments("train lora --model " + Golden.tinyFlux()
                + " --data @data --cache @cache -o @" + LORA
                + " --resolution 64 --text-tokens 8 --accumulate 5 --steps 60 --optimizer adamw --learning-rate 1e-2"
                + " --quiet"));
        assertThat(training.err()).isEmpty();
    }

    private static List<String> arguments(String line) {
        return List.of(line.replace("@", folder + "/").split(" "));
    }

    private static Outcome measured(String more) {
        return run(arguments(
                "loss " + Golden.tinyFlux() + " --data @data --cache @cache --resolution 64 --text-tokens 8 " + more));
    }

    private static JsonNode report(String name) throws IOException {
        return new ObjectMapper().readTree(folder.resolve(name).toFile());
    }

    @Test
    void aLoraThatWasTrainedHelpsAndEveryNoiseLevelHasARow() throws IOException {
        Outcome outcome = measured("--lora @" + LORA + " --noise-levels 2 -o @loss.json");
        assertThat(outcome.err()).contains("loss 10/10, noised pictures\n").doesNotContain("encode");
        assertThat(outcome.status()).isZero();
        assertThat(outcome.out()).hasLineCount(6).contains("0.000 to 0.500 ", "0.500 to 1.000 ", "\nall ");
        JsonNode report = report("loss.json");
        JsonNode all = report.path("all");
        assertThat(all.path("with_lora").asDouble())
                .isLessThan(0.9 * all.path("without_lora").asDouble());
        assertThat(all.path("gain").asDouble())
                .isGreaterThan(3 * all.path("gain_standard_error").asDouble());
        assertThat(report.path("bands")).hasSize(2);
        assertThat(report.path("samples")).hasSize(10);
        assertThat(report.path("loras").toString())
                .isEqualTo("[{\"file\":\"" + folder.resolve(LORA) + "\",\"scale\":1.0}]");
    }

    /** The tiny model's weights are random, so on average it has no gap; of this picture, with this noise, it has one. */
    @Test
    void theShareIsPartOfTheGap() throws IOException {
        Outcome outcome = measured("--lora @" + LORA + " --noise-levels 2 --pictures 1 --quiet -o @share.json");
        JsonNode all = report("share.json").path("all");
        assertThat(all.path("share").asDouble())
                .isPositive()
                .isEqualTo(all.path("gain").asDouble() / all.path("gap").asDouble());
        assertThat(outcome.out()).contains("the LoRA closes ");
    }

    @Test
    void theCacheLiesBesideTheOutput() throws IOException {
        Path beside = Files.createDirectory(folder.resolve("beside"));
        Outcome outcome = run(arguments("loss " + Golden.tinyFlux() + " --data @data --lora @" + LORA
                + " --resolution 64 --text-tokens 8 --pictures 1 --quiet -o @beside/loss.json"));
        assertThat(outcome.err()).isEmpty();
        assertThat(beside.resolve("training-cache")).isNotEmptyDirectory();
    }

    /** As in painting: the model's own LoRA, unless others are given. */
    @Test
    void aModelsOwnLoraIsMeasured() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("model"));
        Files.copy(folder.resolve(LORA), model.resolve("own.safetensors"));
        Files.writeString(model.resolve("generation_config.json"), "{\"lora\": \"own.safetensors\"}");
        String options = " --data @data --cache @cache --resolution 64 --text-tokens 8 --pictures 2 --quiet";
        Outcome own = run(arguments("loss @model" + options));
        Outcome given = measured("--pictures 2 --quiet --lora @" + LORA);
        assertThat(own.err()).isEmpty();
        assertThat(own.out()).isEqualTo(given.out()).contains("pictures: 2, noise levels of each: 4;");
        assertThat(run(arguments("loss @model --lora @" + LORA + ":0.5" + options))
                        .out())
                .isEqualTo(measured("--pictures 2 --quiet --lora @" + LORA + ":0.5")
                        .out())
                .isNotEqualTo(own.out());
    }

    @Test
    void aLoraOfAnotherShapeIsRefused() {
        Torch.load();
        Tensors.run(() -> {
            Tensor down = torch.zeros(4, 24);
            Tensor up = torch.zeros(24, 4);
            SafetensorsWriter.write(
                    folder.resolve("other.safetensors"),
                    new TreeMap<>(Map.of(
                            "transformer.transformer_blocks.0.attn.to_q.lora_A.weight", down,
                            "transformer.transformer_blocks.0.attn.to_q.lora_B.weight", up)),
                    Map.of());
        });
        Outcome outcome = measured("--quiet --lora @other.safetensors");
        assertThat(outcome.err())
                .startsWith("scaledit: ")
                .contains("transformer_blocks.0.attn.to_q", "other.safetensors", "expected")
                .hasLineCount(1);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.status()).isEqualTo(1);
    }

    @Test
    void aPictureThatIsTooSmallIsNamed() {
        Path small = DrawnPictures.in(folder.resolve("small"), 1, 64, 48);
        Outcome outcome = run(arguments("loss " + Golden.tinyFlux()
                + " --data @small --cache @cache --resolution 64 --text-tokens 8 --quiet --lora @" + LORA));
        assertThat(outcome.err())
                .isEqualTo("scaledit: picture " + small
                        + "/picture00.png has 64 × 48 pixels, expected 64 × 64 or more at resolution 64\n");
        assertThat(outcome.status()).isEqualTo(1);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "--data nowhere | 2 | data nowhere does not exist",
                "--data pom.xml | 1 | data pom.xml is not a folder, expected a folder of pictures",
                "--data ../../tools | 1 | data ../../tools has no pictures, expected PNG or JPEG files",
                "--lora nowhere.safetensors | 2 | LoRA nowhere.safetensors does not exist",
                "--lora x.safetensors:much | 2 | Invalid value for option '--lora' (FILE[:scale]): the scale 'much' of",
                "--lora x.safetensors:NaN | 2 | Invalid value for option '--lora' (FILE[:scale]): scale of LoRA x.safetensors is NaN",
                "--lora-scope text | 2 | Invalid value for option '--lora-scope': expected one of [GUIDANCE, ALL, RELEASED]",
                "--resolution 100 | 2 | resolution is 100, expected a multiple of 64 (16 times the ratio) from 64 to 8192",
                "--ratio 3 | 2 | ratio is 3, expected 1, 2, 4 or 8",
                "--pictures 0 | 2 | pictures is 0, expected 1 or more",
                "--pictures 6 | 1 | pictures is 6, expected no more than the 5 in @data",
                "--noise-levels 0 | 2 | noise levels is 0, expected 1 to 1000",
                "--noise-levels few | 2 | Invalid value for option '--noise-levels': 'few' is not an int",
                "--timesteps normal | 2 | Invalid value for option '--timesteps': expected logit-normal or uniform but was 'normal'",
                "--text-tokens 0 | 2 | text tokens is 0, expected 1 to 4096",
                "--seed x | 2 | Invalid value for option '--seed': 'x' is not a long",
                "--attention int8 | 2 | Invalid value for option '--attention': expected one of [NATIVE, DENSE]",
                "--precision half | 2 | Invalid value for option '--precision'",
                "--precision fp8 | 2 | precision fp8 has no gradients, expected float32 or bfloat16",
                "--device tpu | 2 | Invalid value for option '--device': expected one of [CPU, CUDA]",
                "--device cuda --precision float32 | 2 | attention native on a GPU takes bfloat16 alone, expected",
                "--device cuda | 1 | device cuda needs builds for GPUs: add org.bytedeco:pytorch:2",
                "--cache pom.xml | 2 | cache pom.xml is a file, expected a folder",
                "-o /nowhere/loss.json | 2 | folder /nowhere of output loss.json does not exist",
                "--noise-level 3 | 2 | Unknown options: '--noise-level', '3'"
            })
    void aWrongArgumentIsOneSentence(String option, int status, String sentence) {
        List<String> arguments =
                new ArrayList<>(List.of("loss", Golden.tinyFlux().toString(), "--quiet"));
        String[][] usual = {
            {"--data", folder.resolve("data").toString()},
            {"--lora", folder.resolve(LORA).toString()},
            {"--cache", folder.resolve("cache").toString()}
        };
        for (String[] each : usual) {
            if (!option.startsWith(each[0] + " ")) {
                arguments.addAll(List.of(each));
            }
        }
        arguments.addAll(List.of(option.split(" ")));
        Outcome outcome = run(arguments);
        assertThat(outcome.err())
                .startsWith("scaledit: " + sentence.replace("@", folder + "/"))
                .hasLineCount(1);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.status()).isEqualTo(status);
    }

    @Test
    void whatIsMissingIsNamed() {
        assertThat(run("loss", "--data", "x").err()).startsWith("scaledit: Missing required parameter: 'MODEL'");
        assertThat(run("loss", "x").err()).startsWith("scaledit: Missing required option: '--data=DIR'");
        assertThat(run("loss", "nowhere", "--data", "x").err()).isEqualTo("scaledit: model nowhere does not exist\n");
        assertThat(measured("").err())
                .isEqualTo(
                        "scaledit: no LoRA given, and " + Golden.tinyFlux() + " brings none, expected one at least\n");
    }
}
