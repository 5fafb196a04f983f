package org.scaledit.transformer;

import org.bytedeco.pytorch.Tensor;

/**
 * Adaptive layer norm: shifts, scales and gates from the conditioning. Guidance tokens, the last {@code guidanceRows},
 * have their own, because they are clean at every step.
 *
 * @param parts [1, parts * width], or [2, parts * width] with those of guidance tokens in the second row
 */
record Modulation(Tensor parts, long width, long guidanceRows) {

    /** 2 if guidance tokens have parts of their own. */
    int streams() {
        return (int) parts.size(0);
    }

    /** The rows of the current tokens (stream 0) or of the guidance tokens (stream 1). */
    Tensor rows(Tensor x, int stream) {
        long current = x.size(0) - guidanceRows;
        return stream == 0 ? x.narrow(0, 0, current) : x.narrow(0, current, guidanceRows);
    }

    /** Of each stream: [streams, width] */
    Tensor parts(int part) {
        return parts.narrow(1, part * width, width);
    }

    /** [width] */
    Tensor part(int part, int stream) {
        return parts.select(0, stream).narrow(0, part * width, width);
    }
}
