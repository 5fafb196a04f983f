package org.scaledit.cli;

import java.nio.file.Path;
import java.util.List;
import org.scaledit.evaluation.LossCurve;
import org.scaledit.training.LossLog;
import org.scaledit.training.TrainingListener;

/** Of a training from scratch: the display, and the curve at every checkpoint. */
record StageListener(Path output, String stage, ProgressDisplay display) implements TrainingListener {
    /** On a terminal, of the longest stage's name. */
    static final int COLUMNS = 11;

    @Override
    public void encoded(int done, int all) {
        display.show("encode", done, all, "pictures");
    }

    @Override
    public void stepped(LossLog.Row row, long steps, Pace pace) {
        display.show(stage, row.step(), steps, TrainLoraCommand.message(row, pace));
    }

    @Override
    public void saved(List<LossLog.Row> rows) {
        LossCurve.write(output.resolve(stage + ".loss.png"), rows);
    }
}
