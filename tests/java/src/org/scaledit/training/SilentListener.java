package org.scaledit.training;

import java.util.List;

/** Hears nothing but what a test wants to. */
interface SilentListener extends TrainingListener {
    SilentListener NONE = new SilentListener() {};

    @Override
    default void encoded(int done, int all) {}

    @Override
    default void stepped(LossLog.Row row, long steps, Pace pace) {}

    @Override
    default void saved(List<LossLog.Row> rows) {}
}
