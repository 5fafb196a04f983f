package org.scaledit.scenes;

import static org.scaledit.bindings.ScaleDitCore.*;

/** What an object is made of: a texture over its own colours. */
public enum Material {
    /** As it was drawn. */
    NONE("", SCALEDIT_AS_DRAWN),
    FELT("felt", SCALEDIT_FELT),
    KNITTED("knitted", SCALEDIT_KNITTED),
    WOODEN("wooden", SCALEDIT_WOODEN),
    STONE("stone", SCALEDIT_STONE),
    CLAY("clay", SCALEDIT_CLAY);

    private final String word;
    private final int number;

    Material(String word, int number) {
        this.word = word;
        this.number = number;
    }

    /** "felt", as in "a felt owl" */
    public String word() {
        return word;
    }

    /** A {@code scaledit_material}. */
    int number() {
        return number;
    }
}
