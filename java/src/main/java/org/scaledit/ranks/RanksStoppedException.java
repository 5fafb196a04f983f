package org.scaledit.ranks;

/** Another rank has failed: this one has nothing to say of it. */
public final class RanksStoppedException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public RanksStoppedException() {
        super("another rank has failed");
    }
}
