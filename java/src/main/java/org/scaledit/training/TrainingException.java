package org.scaledit.training;

/** Training cannot begin or go on. The message is one sentence that names the file, or the sample and the step. */
public final class TrainingException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public TrainingException(String message) {
        super(message);
    }

    public TrainingException(String message, Throwable cause) {
        super(message, cause);
    }
}
