package org.scaledit.checkpoint;

import java.io.IOException;
import java.nio.file.Path;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Reasons;

/** A LoRA and how strongly it acts: 1 as trained. */
public record LoraFile(Path file, double scale) {
    public LoraFile {
        if (!Double.isFinite(scale)) {
            throw new IllegalArgumentException("scale of LoRA " + file + " is " + scale + ", expected a finite number");
        }
    }

    /** Tells it apart from others, whatever its file is called. */
    public String contentHash() {
        try {
            return new ContentHash().file(file).text(String.valueOf(scale)).hex();
        } catch (IOException e) {
            throw new CheckpointException(file + " cannot be read: " + Reasons.of(e), e);
        }
    }
}
