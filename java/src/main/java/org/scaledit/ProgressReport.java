package org.scaledit;

import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/** Sends progress to the caller, keeps each stage's time, and notices that the thread was interrupted. */
final class ProgressReport {
    private final int levels;
    private final Consumer<Progress> receiver;
    private Progress.@Nullable Stage stage;
    private int level;
    private long begun;

    ProgressReport(int levels, Consumer<Progress> receiver) {
        this.levels = levels;
        this.receiver = receiver;
    }

    /** @param step finished steps of the stage; 0 when it begins */
    void send(Progress.Stage stage, int level, int step, int steps) {
        throwIfInterrupted();
        if (stage != this.stage || level != this.level) {
            this.stage = stage;
            this.level = level;
            this.begun = System.nanoTime();
        }
        Duration elapsed = Duration.ofNanos(System.nanoTime() - begun);
        receiver.accept(new Progress(stage, level, levels, step, steps, elapsed));
    }

    static void throwIfInterrupted() {
        if (Thread.interrupted()) {
            throw new CancellationException("the generation was cancelled");
        }
    }

    /** @param failure that may have come of it */
    static void throwIfInterrupted(RuntimeException failure) {
        try {
            throwIfInterrupted();
        } catch (CancellationException e) {
            e.addSuppressed(failure);
            throw e;
        }
    }
}
