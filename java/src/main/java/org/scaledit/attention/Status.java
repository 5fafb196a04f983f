package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

/** What the native core answers to a call. */
final class Status {
    private Status() {}

    /** Throws what a status other than OK means, with the core's own sentence. */
    static void check(int status) {
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
