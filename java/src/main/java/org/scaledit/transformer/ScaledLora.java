package org.scaledit.transformer;

import org.scaledit.checkpoint.Lora;

/**
 * A LoRA and how strongly it acts.
 *
 * @param scale multiplies the LoRA's own scale; 1 as trained
 */
public record ScaledLora(Lora lora, double scale) {}
