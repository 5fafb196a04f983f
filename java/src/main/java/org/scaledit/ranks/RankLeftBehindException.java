package org.scaledit.ranks;

/** A rank has failed, and another one has not ended since: what it uses must stay, and its GPU is not to be used again. */
public final class RankLeftBehindException extends RuntimeException {
    private static final long serialVersionUID = 1;

    RankLeftBehindException(Throwable first) {
        super(
                first.getMessage() + "; another GPU did not stop then, and this process can paint with GPUs no more",
                first);
    }
}
