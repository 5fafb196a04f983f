package org.scaledit.scenes;

import java.util.Locale;

/** What a scene asks of whoever paints it from its caption, one thing alone; the kinds of GenEval (arXiv 2310.11513). */
public enum Probe {
    /** An object. */
    ONE,
    /** Two objects whose pair is held out or not. */
    TWO,
    /** Two to four of an object. */
    COUNT,
    /** An object and its colour; this pair is held out or not. */
    COLOUR,
    /** How one object stands to another; that, or their pair, is held out or not. */
    POSITION;

    public String word() {
        return name().toLowerCase(Locale.ROOT);
    }
}
