package org.scaledit.bindings;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.jspecify.annotations.NullMarked;

/** What the native core answers to a call. */
@NullMarked
public final class Status {
    private Status() {}

    /**
     * Throws what a status other than OK means, with the core's own sentence.
     *
     * @throws IllegalArgumentException naming the argument, what was given and what was expected
     * @throws OutOfMemoryError if the core could not allocate
     * @throws UnsupportedOperationException if this machine or build does not have what was asked for
     */
    public static void check(int status) {
        switch (status) {
            case SCALEDIT_OK -> {}
            case SCALEDIT_INVALID_ARGUMENT -> throw new IllegalArgumentException(message());
            case SCALEDIT_OUT_OF_MEMORY -> throw new OutOfMemoryError(message());
            case SCALEDIT_UNSUPPORTED -> throw new UnsupportedOperationException(message());
            default ->
                throw new IllegalStateException("the native core failed with status " + status + ": " + message());
        }
    }

    private static String message() {
        return scaledit_last_error().getString();
    }
}
