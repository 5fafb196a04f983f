package org.scaledit;

/** The GPU has too little memory for a request, or cannot be used any more. The message is one sentence. */
public final class GpuException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final boolean lost;

    private GpuException(String message, boolean lost, Throwable cause) {
        super(message, cause);
        this.lost = lost;
    }

    static GpuException outOfMemory(String sentence, Throwable cause) {
        return new GpuException(sentence, false, cause);
    }

    /** @param reason what CUDA says */
    static GpuException lost(String reason, Throwable cause) {
        return new GpuException(
                "the GPU cannot be used any more by this process, which has to be started anew: " + reason,
                true,
                cause);
    }

    /** The same for a later request, with the stack of that one. */
    GpuException again() {
        return new GpuException(String.valueOf(getMessage()), lost, this);
    }

    /**
     * Whether every further request of this process will be refused with the same sentence. If not, the GPU's memory was too
     * small for this request alone, and the model can be used on.
     */
    public boolean lost() {
        return lost;
    }
}
