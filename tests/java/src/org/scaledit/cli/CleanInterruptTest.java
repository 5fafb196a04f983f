package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
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
}
