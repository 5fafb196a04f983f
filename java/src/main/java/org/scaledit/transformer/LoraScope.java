package org.scaledit.transformer;

/** Which tokens LoRA layers act on. */
public enum LoraScope {
    /** On guidance tokens alone (the paper). */
    GUIDANCE,
    /** On all tokens that pass through a layer, as if merged into its weight. */
    ALL,
    /** Query, key and value layers as {@link #ALL}, all others as {@link #GUIDANCE} (the released FLUX.1 code). */
    RELEASED;

    boolean guidanceOnly(String module) {
        return switch (this) {
            case GUIDANCE -> true;
            case ALL -> false;
            case RELEASED -> !module.matches(".*\\.attn\\.to_[qkv]");
        };
    }
}
