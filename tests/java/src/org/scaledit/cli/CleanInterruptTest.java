package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.testing.OtherJvm;

class CleanInterruptTest {
    private static final int MORE_STEPS_THAN_ANYBODY_WAITS_FOR = 1000;

    @TempDir
    Path folder;

    /** A signal that asks the process to end, as Ctrl-C does. */
    @Test
    void aSignalInTheMiddleEndsTheProgramAndLeavesNothing() throws IOException, InterruptedException {
        Process program = OtherJvm.of(
                        Main.class,
                        "generate",
                        "a lighthouse at dusk",
                        "--model",
                        Golden.tinyFlux().toString(),
                        "--width",
                        "64",
                        "--height",
                        "64",
                        "--guide-steps",
                        "1",
                        "--steps",
                        Integer.toString(MORE_STEPS_THAN_ANYBODY_WAITS_FOR),
                        "--trace",
                        folder.resolve("trace.safetensors").toString(),
                        "-o",
                        folder.resolve("out.png").toString())
                .start();
        try (BufferedReader lines = program.inputReader()) {
            assertThat(lines.lines().anyMatch(line -> line.startsWith("high resolution")))
                    .as("reached the high-resolution steps")
                    .isTrue();

            program.destroy();

            assertThat(program.waitFor(60, TimeUnit.SECONDS)).isTrue();
            assertThat(program.exitValue()).isNotZero();
        } finally {
            program.destroyForcibly();
        }
        try (Stream<Path> left = Files.list(folder)) {
            assertThat(left).isEmpty();
        }
    }

    @Test
    void aTrainingSaysThatItIsFinishingAndWritesItsLastStep() throws IOException, InterruptedException {
        Path data = DrawnPictures.in(folder.resolve("data"), 2, 64, 64);
        Path lora = folder.resolve("lora.safetensors");
        String steps = Integer.toString(MORE_STEPS_THAN_ANYBODY_WAITS_FOR);
        List<String> arguments = new ArrayList<>(
                List.of("train", "lora", "--model", Golden.tinyFlux().toString()));
        arguments.addAll(List.of("--data", data.toString(), "-o", lora.toString()));
        arguments.addAll(List.of("--resolution 64 --ratio 2 --text-tokens 8 --rank 4 --alpha 4".split(" ")));
        arguments.addAll(List.of("--steps", steps, "--save-every", steps));
        Process program =
                OtherJvm.of(Main.class, arguments.toArray(String[]::new)).start();
        try (BufferedReader lines = program.inputReader()) {
            String line = lines.readLine();
            while (line != null && !line.startsWith("train ")) { // one a percent
                line = lines.readLine();
            }
            assertThat(line).as("reached a step").isNotNull();

            program.toHandle().destroy(); // which leaves its output open

            assertThat(lines.lines())
                    .contains("scaledit: the training is finishing what it is at, and writes a checkpoint");
            assertThat(program.waitFor(60, TimeUnit.SECONDS)).isTrue();
            assertThat(program.exitValue()).isNotZero();
        } finally {
            program.destroyForcibly();
        }
        int rows = Files.readAllLines(folder.resolve("loss.csv")).size() - 1;
        assertThat(rows).isBetween(10, MORE_STEPS_THAN_ANYBODY_WAITS_FOR - 1);
        try (Safetensors checkpoint = Safetensors.open(folder.resolve("lora.checkpoint.safetensors"))) {
            assertThat(checkpoint.metadata()).containsEntry("steps", Integer.toString(rows));
        }
        assertThat(lora).isNotEmptyFile();
    }
}
