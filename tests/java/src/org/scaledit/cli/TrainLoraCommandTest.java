package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.scaledit.cli.Outcome.run;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.image.ImageFile;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.testing.OtherJvm;

/** Training by the command line, also in a process of its own that is killed. */
class TrainLoraCommandTest {
    private static final int STEPS = 40;

    @TempDir
    static Path folder;

    private static Path data;

    @BeforeAll
    static void draw() {
        data = DrawnPictures.in(folder.resolve("data"), 5, 64, 64);
    }

    private static List<String> training(Path output, String... more) {
        List<String> arguments = new ArrayList<>(List.of("train", "lora"));
        arguments.addAll(List.of("--model", Golden.tinyFlux().toString(), "--data", data.toString()));
        arguments.addAll(List.of("--cache", folder.resolve("cache").toString(), "-o", output.toString()));
        arguments.addAll(List.of(more));
        return arguments;
    }

    private static Path output(String name) throws IOException {
        return Files.createDirectories(folder.resolve(name)).resolve("lora.safetensors");
    }

    private static final String[] SMALL =
            ("--resolution 64 --ratio 2 --text-tokens 8 --accumulate 2 --rank 4 --alpha 4 --save-every 7"
                            + " --clip-norm 1 --steps " + STEPS)
                    .split(" ");

    /** At a moment that nobody has chosen, twice; then to the end. */
    @Test
    void aRunThatIsKilledAndResumedGivesTheSameFiles() throws IOException, InterruptedException {
        Path whole = output("whole");
        Outcome outcome = run(training(whole, SMALL));
        assertThat(outcome.err())
                .contains("encode 10/10, pictures and captions\n")
                .containsPattern("train 40/40, loss \\d\\.\\d{3}, rate \\S+, norm \\S+, \\S+/s, 0:00 left\n");
        assertThat(outcome.status()).isZero();
        assertThat(Files.readAllLines(whole.resolveSibling("loss.csv"))).hasSize(1 + STEPS);
        assertCurve(whole.resolveSibling("loss.png"));

        Path killed = output("killed");
        List<String> arguments = training(killed, SMALL);
        for (int kill = 1; kill <= 2; kill++) {
            Process process = started(arguments, killed.resolveSibling("log" + kill));
            try {
                int rows = ThreadLocalRandom.current().nextInt(1 + 15 * (kill - 1), 15 * kill);
                waitFor(killed.resolveSibling("loss.csv"), rows, process);
                List<String> second = training(killed, SMALL);
                second.add("--resume");
                assertThat(run(second).err())
                        .startsWith("scaledit: " + killed.resolveSibling("loss.csv") + " is being written: ");
            } finally {
                process.destroyForcibly().waitFor();
            }
            arguments = training(killed, SMALL);
            arguments.add("--resume");
        }
        Process process = started(arguments, killed.resolveSibling("log"));
        assertThat(process.waitFor(100, TimeUnit.SECONDS)).isTrue();
        assertThat(killed.resolveSibling("log")).content().doesNotContain("scaledit:");
        assertThat(process.exitValue()).isZero();
        for (String name : List.of("lora.safetensors", "lora.checkpoint.safetensors", "loss.csv", "loss.png")) {
            assertThat(Files.mismatch(killed.resolveSibling(name), whole.resolveSibling(name)))
                    .as(name)
                    .isEqualTo(-1);
        }
    }

    private static Process started(List<String> arguments, Path log) throws IOException {
        return OtherJvm.of(Main.class, arguments.toArray(String[]::new))
                .redirectOutput(log.toFile())
                .start();
    }

    private static void waitFor(Path log, int rows, Process process) throws IOException, InterruptedException {
        while (process.isAlive()
                && (!Files.exists(log) || Files.readAllLines(log).size() < 1 + rows)) {
            Thread.sleep(5);
        }
        assertThat(process.isAlive()).as("is still training").isTrue();
    }

    /** Some of its pixels have the curve's colour, from the left to the right. */
    private static void assertCurve(Path png) {
        Tensors.run(() -> {
            Tensor image = ImageFile.read(png);
            assertThat(image.shape()).containsExactly(3, 540, 960);
            float[] red = Tensors.floats(image.select(0, 0));
            float[] blue = Tensors.floats(image.select(0, 2));
            boolean[] columns = new boolean[960];
            for (int i = 0; i < red.length; i++) {
                columns[i % 960] |= red[i] < -0.9f && blue[i] > 0.3f;
            }
            for (int x = 90; x < 920; x++) {
                assertThat(columns[x]).as("column %d", x).isTrue();
            }
        });
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "--model nowhere | 2 | model nowhere does not exist",
                "--data nowhere | 2 | data nowhere does not exist",
                "--data pom.xml | 1 | data pom.xml is not a folder, expected a folder of pictures",
                "--data ../../tools | 1 | data ../../tools has no pictures, expected PNG or JPEG files",
                "--resolution 100 | 2 | resolution is 100, expected a multiple of 64 (16 times the ratio) from 64 to 8192",
                "--resolution big | 2 | Invalid value for option '--resolution': 'big' is not an int",
                "--ratio 3 | 2 | ratio is 3, expected 1, 2, 4 or 8",
                "--rank 0 | 2 | rank is 0, expected 1 to 1024",
                "--alpha 0 | 2 | alpha is 0, expected a number above 0",
                "--targets kqv | 2 | Invalid value for option '--targets': expected one of [QKV, RELEASED]",
                "--lora-scope text | 2 | Invalid value for option '--lora-scope': expected one of [GUIDANCE, ALL, RELEASED]",
                "--steps 0 | 2 | steps is 0, expected 1 or more",
                "--accumulate 0 | 2 | accumulate is 0, expected 1 to 4096",
                "--optimizer sgd | 2 | Invalid value for option '--optimizer': expected one of [PRODIGY, ADAMW]",
                "--learning-rate -1 | 2 | learning rate is -1, expected a number above 0",
                "--precision fp8 | 2 | precision fp8 has no gradients, expected float32 or bfloat16",
                "--precision half | 2 | Invalid value for option '--precision'",
                "--timesteps normal | 2 | Invalid value for option '--timesteps': expected logit-normal or uniform but was 'normal'",
                "--clip-norm 0 | 2 | clip norm is 0, expected a number above 0",
                "--average 1 | 2 | average is 1, expected 0 to 0.999999",
                "--text-tokens 0 | 2 | text tokens is 0, expected 1 to 4096",
                "--seed x | 2 | Invalid value for option '--seed': 'x' is not a long",
                "--attention int8 | 2 | Invalid value for option '--attention': expected one of [NATIVE, DENSE]",
                "--gpus 0 | 2 | gpus is 0, expected 1 or more",
                "--gpus 2 | 2 | gpus is 2, expected --device cuda beside it",
                "--gpus 3 --device cuda | 2 | accumulate is 4, expected a multiple of the 3 GPUs",
                "--save-every 0 | 2 | save every is 0 steps, expected 1 or more",
                "--sample-every 5 | 2 | no sample prompt given, expected one at least for samples",
                "--sample-every 0 --sample-prompt x | 2 | sample every is 0 steps, expected 1 or more",
                "--sample-prompt x | 2 | sample prompts are given, expected --sample-every N beside them",
                "--device tpu | 2 | Invalid value for option '--device': expected one of [CPU, CUDA]",
                "--device cuda --precision float32 | 2 | attention native on a GPU takes bfloat16 alone, expected precision bfloat16, or attention dense",
                "--device cuda | 1 | device cuda needs builds for GPUs: add org.bytedeco:pytorch:2",
                "--cache pom.xml | 2 | cache pom.xml is a file, expected a folder",
                "-o lora.bin | 2 | output is lora.bin, expected a name that ends in .safetensors",
                "-o /nowhere/lora.safetensors | 2 | folder /nowhere of output lora.safetensors does not exist",
                "--resume | 1 | there is no lora.checkpoint.safetensors to resume from",
                "--stpes 3 | 2 | Unknown options: '--stpes', '3'"
            })
    void aWrongArgumentIsOneSentence(String option, int status, String sentence) {
        List<String> arguments = new ArrayList<>(List.of("train", "lora"));
        if (!option.startsWith("--model")) {
            arguments.addAll(List.of("--model", Golden.tinyFlux().toString()));
        }
        if (!option.startsWith("--data")) {
            arguments.addAll(List.of("--data", data.toString()));
        }
        arguments.addAll(List.of(option.split(" ")));
        Outcome outcome = run(arguments);
        assertThat(outcome.err()).startsWith("scaledit: " + sentence).hasLineCount(1);
        assertThat(outcome.status()).isEqualTo(status);
        assertThat(Path.of("lora.checkpoint.safetensors")).doesNotExist();
    }

    @Test
    void whatIsMissingIsNamed() {
        assertThat(run(List.of("train")).err())
                .startsWith("scaledit: No kind given, expected one of: lora, model, judge");
        assertThat(run(List.of("train", "lora")).err()).startsWith("scaledit: Missing required options: '--model=DIR'");
        assertThat(run(List.of("train", "lora", "--model", "x")).err())
                .startsWith("scaledit: Missing required option: '--data=DIR'");
    }
}
