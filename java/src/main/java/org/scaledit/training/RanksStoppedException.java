package org.scaledit.training;

/** Another rank has failed: this one has nothing to say of it. */
final class RanksStoppedException extends RuntimeException {
    private static final long serialVersionUID = 1;

    RanksStoppedException() {
        super("another rank of the training has failed");
    }
}
