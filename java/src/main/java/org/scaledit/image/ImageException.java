package org.scaledit.image;

/** A picture file that cannot be read or written. The message is one sentence that names the file. */
public final class ImageException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public ImageException(String message) {
        super(message);
    }

    public ImageException(String message, Throwable cause) {
        super(message, cause);
    }
}
