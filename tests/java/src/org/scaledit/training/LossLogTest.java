package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class LossLogTest {
    @TempDir
    Path folder;

    private Path file;

    @BeforeEach
    void threeSteps() {
        file = folder.resolve("loss.csv");
        try (LossLog log = LossLog.begin(file, List.of())) {
            for (int step = 1; step <= 3; step++) {
                log.add(row(step));
            }
        }
    }

    private static LossLog.Row row(long step) {
        return new LossLog.Row(step, 1.0 / 3 / step, 1e-6, 0.25);
    }

    @Test
    void aLineIsAStep() throws IOException {
        assertThat(Files.readString(file))
                .isEqualTo("step,loss,learning_rate,gradient_norm\n"
                        + "1,0.3333333333333333,1.0E-6,0.25\n"
                        + "2,0.16666666666666666,1.0E-6,0.25\n"
                        + "3,0.1111111111111111,1.0E-6,0.25\n");
        assertThat(LossLog.read(file)).containsExactly(row(1), row(2), row(3));
    }

    @Test
    void whatIsLearntBesidesHasColumns() throws IOException {
        List<String> names = List.of("recognition", "layout");
        LossLog.Row both = new LossLog.Row(1, 0.5, 1, 2, List.of(5.25, 3.5));
        LossLog.Row one = new LossLog.Row(2, 0.5, 1, 2, List.of(Double.NaN, 3.0));
        try (LossLog log = LossLog.begin(file, names)) {
            log.add(both);
            log.add(one);
        }
        assertThat(Files.readString(file))
                .isEqualTo("step,loss,learning_rate,gradient_norm,recognition,layout\n"
                        + "1,0.5,1.0,2.0,5.25,3.5\n"
                        + "2,0.5,1.0,2.0,,3.0\n");
        assertThat(LossLog.read(file)).containsExactly(both, one);
        LossLog.resume(file, 1, names).close();
        assertThat(LossLog.read(file)).containsExactly(both);
        assertThatThrownBy(() -> LossLog.resume(file, 1, List.of("layout")))
                .isInstanceOf(TrainingException.class)
                .hasMessage(
                        file + " is not the log of a training, expected step,loss,learning_rate,gradient_norm,layout in"
                                + " its first line, and then a line for each step");
        Files.writeString(file, Files.readString(file) + "2,0.5,1.0,2.0,3.0\n");
        assertThatThrownBy(() -> LossLog.read(file)).isInstanceOf(TrainingException.class);
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "4,0.2", "4,0.2,1.0E-6,0.25\nxyz"})
    void whatComesAfterTheCheckpointIsCutOff(String killed) throws IOException {
        Files.writeString(file, Files.readString(file) + killed);
        try (LossLog log = LossLog.resume(file, 2, List.of())) {
            log.force();
            assertThat(LossLog.read(file)).containsExactly(row(1), row(2));
            log.add(row(3));
        }
        assertThat(LossLog.read(file)).containsExactly(row(1), row(2), row(3));
    }

    @Test
    void aLogThatLacksStepsIsRefused() {
        assertThatThrownBy(() -> LossLog.resume(file, 4, List.of()))
                .isInstanceOf(TrainingException.class)
                .hasMessage(file + " has 3 rows, expected the 4 of the checkpoint beside it");
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                "prompt\n",
                "step,loss,learning_rate,gradient_norm\n2,1.0,1.0,1.0\n",
                "step,loss,learning_rate,gradient_norm\n1,one,1.0,1.0\n",
                "step,loss,learning_rate,gradient_norm\n1,1,1.0,1.0\n",
                "step,loss,learning_rate,gradient_norm\n1,1.0\n"
            })
    void anotherFileIsRefused(String content) throws IOException {
        Files.writeString(file, content);
        assertThatThrownBy(() -> LossLog.resume(file, 1, List.of()))
                .isInstanceOf(TrainingException.class)
                .hasMessageStartingWith(file + " is not the log of a training, expected step,loss,");
    }

    @Test
    void aTrainingRunsOnce() {
        try (LossLog running = LossLog.resume(file, 3, List.of())) {
            assertThatThrownBy(() -> LossLog.resume(file, 1, List.of()))
                    .isInstanceOf(TrainingException.class)
                    .hasMessage(file + " is being written: this training is running already");
            running.add(row(4));
        }
        assertThat(LossLog.read(file)).hasSize(4);
        LossLog.resume(file, 4, List.of()).close();
    }

    @Test
    void aFileThatCannotBeWrittenIsNamed() {
        Path nowhere = folder.resolve("none/loss.csv");
        assertThatThrownBy(() -> LossLog.begin(nowhere, List.of()))
                .isInstanceOf(TrainingException.class)
                .hasMessageContaining(nowhere.toString());
    }
}
