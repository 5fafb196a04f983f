package org.scaledit.checkpoint;

import java.nio.file.Path;

/** A LoRA and how strongly it acts: 1 as trained. */
public record LoraFile(Path file, double scale) {
    public LoraFile {
        if (!Double.isFinite(scale)) {
            throw new IllegalArgumentException("scale of LoRA " + file + " is " + scale + ", expected a finite number");
        }
    }
}
