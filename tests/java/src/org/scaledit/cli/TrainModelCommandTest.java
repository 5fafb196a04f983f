package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.scaledit.cli.Outcome.run;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.TinyModel;

/** Training a whole model by the command line. */
class TrainModelCommandTest {
    @TempDir
    static Path folder;

    private static Path config;

    @BeforeAll
    static void draw() throws IOException {
        DrawnPictures.in(folder.resolve("data"), 3, 64, 64);
        config = Files.writeString(folder.resolve("model.json"), TinyModel.CONFIG);
    }

    private static Outcome train(Path config, Path output, String... more) {
        String[] arguments = {"train", "model", "--config", config.toString(), "-o", output.toString()};
        String[] all = java.util.Arrays.copyOf(arguments, arguments.length + more.length);
        System.arraycopy(more, 0, all, arguments.length, more.length);
        return run(all);
    }

    private static void assertRefused(Outcome outcome, int status, String message) {
        assertThat(outcome.err()).startsWith("scaledit: " + message);
        assertThat(outcome.err().lines()).hasSize(1);
        assertThat(outcome.status()).isEqualTo(status);
    }

    @Test
    void whatItLeavesIsGeneratedWith() throws IOException {
        Path output = folder.resolve("run");
        Outcome outcome = train(config, output);
        assertThat(outcome.err())
                .containsPattern("vae +6/6, loss \\d\\.\\d{3}, rate \\S+, norm \\S+, \\S+/s, 0:00 left\n")
                .contains("encode ")
                .containsPattern("transformer +8/8, loss \\d\\.\\d{3}");
        assertThat(outcome.status()).isZero();
        assertThat(output.resolve("transformer.loss.png")).isNotEmptyFile();
        Path picture = folder.resolve("out.png");
        Outcome generated = run(
                "generate",
                "a disc",
                "--model",
                output.resolve("model").toString(),
                "--width",
                "64",
                "--height",
                "64",
                "--steps",
                "1",
                "--guide-steps",
                "1",
                "--quiet",
                "-o",
                picture.toString());
        assertThat(generated.err()).isEmpty();
        assertThat(picture).isNotEmptyFile();

        assertRefused(
                train(config, output), 1, output.resolve("vae.checkpoint.safetensors") + " exists, expected a folder");
        assertThat(train(config, output, "--resume", "--quiet").status()).isZero();
        Path changed = Files.writeString(
                folder.resolve("changed.json"), TinyModel.CONFIG.replace("\"seed\": 3", "\"seed\": 4"));
        assertRefused(
                train(changed, output, "--resume", "--quiet"),
                1,
                output.resolve("vae.checkpoint.safetensors") + " was made with seed 3, expected the same instead of 4");
    }

    @Test
    void whatIsWrongIsOneSentence() throws IOException {
        Path output = folder.resolve("wrong");
        assertRefused(train(folder.resolve("none.json"), output), 1, folder.resolve("none.json") + " does not exist");
        Path unknown =
                Files.writeString(folder.resolve("unknown.json"), TinyModel.CONFIG.replace("\"tile\"", "\"tiles\""));
        assertRefused(train(unknown, output), 1, unknown + " has no field vae.tile, expected a non-negative integer");
        Path scenes = Files.writeString(
                folder.resolve("scenes.json"),
                TinyModel.CONFIG
                        .replace("\"folder\": \"data\"", "\"scenes\": 5")
                        .replace("\"size\": 32, \"batch\": 3", "\"size\": 64, \"batch\": 3"));
        assertRefused(
                train(scenes, output, "--sprites", folder.resolve("none").toString()),
                2,
                "sprites " + folder.resolve("none") + " does not exist");
        assertRefused(
                train(config, output, "--sprites", folder.toString()), 2, "sprites are given, expected data.scenes in");
        assertRefused(train(config, output, "--precision", "fp8"), 2, "precision fp8 has no gradients");
        assertRefused(train(config, output, "--gpus", "2"), 2, "gpus is 2, expected --device cuda beside it");
        assertRefused(
                train(config, output, "--cache", config.toString()),
                2,
                "cache " + config + " is a file, expected a folder");
        assertRefused(train(config, output, "--gpus", "0"), 2, "gpus is 0, expected 1 or more");
        assertRefused(
                train(config, output, "--resume"),
                1,
                "there is no " + output.resolve("vae.checkpoint.safetensors") + " to resume from");
        assertThat(output).doesNotExist();
        assertRefused(run("train", "model", "-o", output.toString()), 2, "Missing required option: '--config=FILE'");
    }
}
