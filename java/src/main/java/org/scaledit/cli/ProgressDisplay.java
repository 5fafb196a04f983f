package org.scaledit.cli;

import java.io.PrintWriter;
import java.time.Duration;
import java.util.Locale;
import java.util.function.Consumer;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;
import org.scaledit.Progress;

/** Shows progress on standard error: a bar for each stage on a terminal; elsewhere a line a step, at most one a percent. */
interface ProgressDisplay extends Consumer<Progress>, AutoCloseable {

    /**
     * Shows where a stage stands.
     *
     * @param step finished steps; 0 when the stage begins
     */
    void show(String stage, long step, long steps, String message);

    @Override
    default void accept(Progress progress) {
        show(label(progress), progress.step(), progress.steps(), pace(progress));
    }

    @Override
    void close();

    /** @param stageColumns on a terminal, of the longest stage's name: the rest of the line is for what is said of it */
    static ProgressDisplay of(boolean quiet, int stageColumns, PrintWriter err) {
        if (quiet) {
            return new Silent();
        }
        // The launcher knows whether standard error is a terminal; Java 17 cannot ask.
        return Boolean.getBoolean("scaledit.terminal") ? new Bars(stageColumns) : new Lines(err);
    }

    private static String label(Progress progress) {
        String stage = switch (progress.stage()) {
            case LOAD -> "load";
            case GUIDANCE_IMAGE -> "guidance image";
            case ENLARGE -> "enlarge guidance";
            case HIGH_RESOLUTION -> "high resolution";
            case DECODE -> "decode";
        };
        return progress.levels() <= 1 ? stage : stage + " " + progress.level() + "/" + progress.levels();
    }

    private static String pace(Progress progress) {
        double seconds = progress.step() == 0 ? 0 : progress.elapsed().toMillis() / 1000.0 / progress.step();
        return String.format(Locale.ROOT, "%.2f s/step, %s left", seconds, clock(progress.remaining()));
    }

    static String clock(Duration time) {
        long seconds = (time.toMillis() + 500) / 1000;
        return seconds < 3600
                ? String.format(Locale.ROOT, "%d:%02d", seconds / 60, seconds % 60)
                : String.format(Locale.ROOT, "%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }

    final class Silent implements ProgressDisplay {
        @Override
        public void show(String stage, long step, long steps, String message) {}

        @Override
        public void close() {}
    }

    final class Lines implements ProgressDisplay {
        private final PrintWriter err;
        private String shown = "";
        private long shownSteps;
        private long shownPercent;

        Lines(PrintWriter err) {
            this.err = err;
        }

        @Override
        public void show(String stage, long step, long steps, String message) {
            long percent = 100 * step / steps;
            if (!stage.equals(shown) || steps != shownSteps || percent < shownPercent) {
                shown = stage;
                shownSteps = steps;
                shownPercent = step == 0 ? 0 : 100 * (step - 1) / steps; // one that goes on says no old percents
            }
            if (percent > shownPercent) {
                shownPercent = percent;
                err.println(stage + " " + step + "/" + steps + ", " + message);
                err.flush();
            }
        }

        @Override
        public void close() {}
    }

    final class Bars implements ProgressDisplay {
        private static final int COLUMNS = 100;

        private final int stageColumns;
        private String shown = "";
        private long shownSteps;
        private @Nullable ProgressBar bar;

        Bars(int stageColumns) {
            this.stageColumns = stageColumns;
        }

        @Override
        public void show(String stage, long step, long steps, String message) {
            if (bar == null || !stage.equals(shown) || steps != shownSteps) {
                close();
                shown = stage;
                shownSteps = steps;
                bar = new ProgressBarBuilder()
                        .setTaskName(stage + " ".repeat(Math.max(0, stageColumns - stage.length())))
                        .setInitialMax(steps)
                        .setStyle(ProgressBarStyle.UNICODE_BLOCK)
                        .setUpdateIntervalMillis(200)
                        .hideEta()
                        .setConsumer(new ConsoleProgressBarConsumer(System.err, COLUMNS))
                        .build();
            }
            if (step > 0) {
                bar.stepTo(step);
                bar.setExtraMessage(" " + message);
            }
        }

        @Override
        public void close() {
            if (bar != null) {
                bar.close();
                bar = null;
            }
        }
    }
}
