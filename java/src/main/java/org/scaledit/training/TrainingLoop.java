package org.scaledit.training;

import java.nio.channels.ClosedByInterruptException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.stream.Stream;

/** Makes steps one after the other, with their log, and a checkpoint so often, at the end and when it is interrupted. */
final class TrainingLoop {
    private final Length length;
    private final Steps steps;
    private final TrainingListener listener;
    private final LossLog log;
    private final long first; // steps that were made before
    private long made;
    private long saved; // so many had been made when last a checkpoint was written
    private long nanoseconds; // of steps alone

    private TrainingLoop(Length length, long first, Steps steps, TrainingListener listener, LossLog log) {
        this.length = length;
        this.steps = steps;
        this.listener = listener;
        this.log = log;
        this.first = first;
        this.made = first;
        this.saved = first;
    }

    /**
     * @param steps in all
     * @param saveEvery so many steps a checkpoint is written
     */
    record Length(Path lossLog, long steps, long saveEvery) {}

    /** What is trained. */
    interface Steps {
        /**
         * Makes a step.
         *
         * @param step from 1
         * @return what has become known: of this step, of earlier ones, or of none yet
         */
        List<LossLog.Row> step(long step);

        /** Of all steps that were made and that nothing has been said of. */
        default List<LossLog.Row> rest() {
            return List.of();
        }

        /** Names of {@link LossLog.Row#others}. */
        default List<String> otherLosses() {
            return List.of();
        }

        /** Writes the state after so many steps. */
        void write(long step);

        /** Samples of the first steps. */
        long samples(long steps);

        /** After so many steps and before the next one, written if they are to be. */
        default void between(long made) {}
    }

    /**
     * @param first steps that were made before
     * @throws CancellationException if the thread is interrupted, once the steps that were made are written
     */
    static void run(Length length, long first, Steps steps, TrainingListener listener) {
        List<String> others = steps.otherLosses();
        try (LossLog log =
                first == 0 ? LossLog.begin(length.lossLog, others) : LossLog.resume(length.lossLog, first, others)) {
            if (first == 0) { // so that whatever comes can be resumed; the log is no other training's now
                steps.write(0);
            }
            new TrainingLoop(length, first, steps, listener, log).run();
        }
    }

    private void run() {
        try {
            makeSteps();
        } catch (CancellationException e) {
            if (made != saved) {
                write();
            }
            throw e;
        }
        if (first == made) { // there was nothing to do
            write();
        }
    }

    private void makeSteps() {
        try {
            while (made < length.steps) {
                long begun = System.nanoTime();
                List<LossLog.Row> known = steps.step(made + 1);
                nanoseconds += System.nanoTime() - begun;
                made++;
                hear(known);
                if (made % length.saveEvery == 0 || made == length.steps) {
                    write();
                }
                steps.between(made);
            }
        } catch (RuntimeException e) {
            if (isOfInterrupt(e)) {
                Thread.interrupted(); // whoever read the file may have taken note of it, or not
                throw stopped(after(made));
            }
            throw e;
        }
    }

    /** A file that is being read or written is closed by an interrupt. */
    private static boolean isOfInterrupt(Throwable thrown) {
        return Stream.iterate(thrown, cause -> cause != null, Throwable::getCause)
                .anyMatch(ClosedByInterruptException.class::isInstance);
    }

    /** Nothing is written that nobody has looked at. */
    private void write() {
        long begun = System.nanoTime();
        List<LossLog.Row> rest = steps.rest();
        nanoseconds += System.nanoTime() - begun;
        hear(rest);
        log.force();
        steps.write(made);
        listener.saved(log.rows());
        saved = made;
    }

    private void hear(List<LossLog.Row> rows) {
        for (LossLog.Row row : rows) {
            log.add(row);
            listener.stepped(row, length.steps, pace());
        }
    }

    private TrainingListener.Pace pace() {
        double seconds = nanoseconds * 1e-9;
        long left = length.steps - made;
        return new TrainingListener.Pace(
                (steps.samples(made) - steps.samples(first)) / seconds,
                Duration.ofMillis((long) (1000 * seconds / (made - first) * left)));
    }

    static void throwIfInterruptedAfter(long step) {
        throwIfInterrupted(after(step));
    }

    static String after(long step) {
        return "after " + step + " steps; --resume goes on from there";
    }

    static void throwIfInterrupted(String when) {
        if (Thread.interrupted()) {
            throw stopped(when);
        }
    }

    static CancellationException stopped(String when) {
        return new CancellationException("the training was stopped " + when);
    }
}
