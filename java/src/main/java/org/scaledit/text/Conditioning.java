package org.scaledit.text;

import org.bytedeco.pytorch.Tensor;

/**
 * What the model knows of a prompt.
 *
 * @param states T5's output for each text token, [text tokens, joint width]
 * @param pooled CLIP's summary, [pooled width]
 */
public record Conditioning(Tensor states, Tensor pooled) implements AutoCloseable {
    @Override
    public void close() {
        states.close();
        pooled.close();
    }
}
