package org.scaledit.checkpoint;

/** A file of a model is missing, damaged or not what was expected. The message is one sentence that names the file. */
public final class CheckpointException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public CheckpointException(String message) {
        super(message);
    }

    public CheckpointException(String message, Throwable cause) {
        super(message, cause);
    }
}
