package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.channels.ClosedByInterruptException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Safetensors;

/** Of steps whose rows become known three at a time. */
class TrainingLoopTest {
    @TempDir
    private Path folder;

    private final List<LossLog.Row> unread = new ArrayList<>();
    private final List<String> events = new ArrayList<>();
    private final TrainingListener listener = new TrainingListener() {
        @Override
        public void encoded(int done, int all) {}

        @Override
        public void stepped(LossLog.Row row, long steps, Pace pace) {
            events.add(String.valueOf(row.step()));
        }

        @Override
        public void saved(List<LossLog.Row> rows) {
            events.add("saved " + rows.size());
        }
    };

    private long closedStep; // in which an interrupt closes the file that is being read
    private boolean closesCheckpoint; // likewise the first one that is written
    private long painted; // after so many steps pictures are, and that fails

    private List<LossLog.Row> read() {
        List<LossLog.Row> rows = List.copyOf(unread);
        unread.clear();
        return rows;
    }

    /** @param stopped the step in which the thread is interrupted */
    private void run(long steps, long saveEvery, long stopped) {
        TrainingLoop.run(
                new TrainingLoop.Length(folder.resolve("loss.csv"), steps, saveEvery),
                0,
                new TrainingLoop.Steps() {
                    @Override
                    public List<LossLog.Row> step(long step) {
                        if (step == stopped) {
                            throw TrainingLoop.stopped(TrainingLoop.after(step - 1));
                        }
                        if (step == closedStep) {
                            Thread.currentThread().interrupt();
                            Safetensors.open(folder.resolve("loss.csv"));
                        }
                        unread.add(new LossLog.Row(step, 0.5, 1e-3, 2));
                        return unread.size() == 3 ? read() : List.of();
                    }

                    @Override
                    public List<LossLog.Row> rest() {
                        return read();
                    }

                    @Override
                    public void write(long step) {
                        if (closesCheckpoint && step > 0) {
                            closesCheckpoint = false;
                            closed();
                        }
                        events.add("write " + step);
                    }

                    @Override
                    public void between(long made) {
                        if (made == painted) {
                            events.add("between " + made);
                            throw new IllegalStateException("no memory");
                        }
                    }

                    @Override
                    public long samples(long steps) {
                        return steps;
                    }
                },
                listener);
    }

    private static void closed() {
        Thread.currentThread().interrupt();
        throw new CheckpointException("cannot write the checkpoint", new ClosedByInterruptException());
    }

    @Test
    void anInterruptThatClosesAFileStopsItLikeAnyOther() {
        closedStep = 6;
        assertThatThrownBy(() -> run(10, 100, 0))
                .isInstanceOf(CancellationException.class)
                .hasMessage("the training was stopped after 5 steps; --resume goes on from there");
        assertThat(events).containsExactly("write 0", "1", "2", "3", "4", "5", "write 5", "saved 5");
        assertThat(Thread.interrupted()).isFalse();
    }

    @Test
    void aCheckpointThatAnInterruptBreaksOffIsWrittenAgain() {
        closesCheckpoint = true;
        assertThatThrownBy(() -> run(10, 4, 0)).isInstanceOf(CancellationException.class);
        assertThat(events).containsExactly("write 0", "1", "2", "3", "4", "write 4", "saved 4");
    }

    /** The last steps are not lost with pictures of them. */
    @Test
    void whatIsMadeIsWrittenBeforeItIsPaintedWith() {
        painted = 7;
        assertThatThrownBy(() -> run(7, 5, 0)).hasMessage("no memory");
        assertThat(events).endsWith("7", "write 7", "saved 7", "between 7");
        assertThat(events).filteredOn("write 7"::equals).hasSize(1);
    }

    @Test
    void nothingIsWrittenBeforeItIsRead() throws IOException {
        run(10, 5, 0);
        assertThat(events)
                .containsExactly(
                        "write 0",
                        "1",
                        "2",
                        "3",
                        "4",
                        "5",
                        "write 5",
                        "saved 5",
                        "6",
                        "7",
                        "8",
                        "9",
                        "10",
                        "write 10",
                        "saved 10");
        assertThat(Files.readAllLines(folder.resolve("loss.csv"))).hasSize(11);
    }

    @Test
    void whatIsStoppedIsReadAndWritten() throws IOException {
        assertThatThrownBy(() -> run(10, 100, 6))
                .isInstanceOf(CancellationException.class)
                .hasMessage("the training was stopped after 5 steps; --resume goes on from there");
        assertThat(events).containsExactly("write 0", "1", "2", "3", "4", "5", "write 5", "saved 5");
        assertThat(Files.readAllLines(folder.resolve("loss.csv"))).hasSize(6);
    }

    /** One that got past all looks before the other had begun. */
    @Test
    void besideATrainingThatRunsNothingIsWritten() {
        Path file = folder.resolve("loss.csv");
        try (LossLog running = LossLog.begin(file, List.of())) {
            assertThatThrownBy(() -> run(10, 5, 0))
                    .isInstanceOf(TrainingException.class)
                    .hasMessage(file + " is being written: this training is running already");
            assertThat(running.rows()).isEmpty();
        }
        assertThat(events).isEmpty();
    }

    @Test
    void whatHasJustBeenWrittenIsNotWrittenAgain() {
        assertThatThrownBy(() -> run(10, 3, 7)).isInstanceOf(CancellationException.class);
        assertThat(events)
                .containsExactly("write 0", "1", "2", "3", "write 3", "saved 3", "4", "5", "6", "write 6", "saved 6");
    }
}
