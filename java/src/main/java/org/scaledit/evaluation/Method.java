package org.scaledit.evaluation;

import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;
import org.scaledit.sampling.Plan;

/** A way to compute a step. */
public enum Method {
    /** Scale-DiT, attention by the native core in INT8. */
    SCALEDIT(true),
    /** The same with the transformer's large products in FP8. */
    SCALEDIT_FP8(true),
    /** Scale-DiT, attention by the native core without quantisation. */
    SCALEDIT_EXACT(true),
    /** A micro-step of training Scale-DiT's LoRA: forward, every block once more, and back. Attention as SCALEDIT_EXACT. */
    TRAINING(true),
    /** Plain FLUX, everyone attends to everyone: torch's SDPA, by FlashAttention-2 on a GPU. */
    DENSE_FLASH(false),
    /** Plain FLUX: torch's SDPA, by cuDNN. */
    DENSE_CUDNN(false),
    /** Plain FLUX with all scores of the heads that are computed together, on a GPU a third of them, in memory at once. */
    NAIVE(false),
    /** Plain FLUX with softmax replaced by SANA's linear attention, at FLUX's head size. */
    LINEAR(false);

    private final boolean guided;

    Method(boolean guided) {
        this.guided = guided;
    }

    /** Whether guidance tokens are part of the sequence. */
    boolean guided() {
        return guided;
    }

    /** Whether whole pictures are painted so. */
    boolean paints() {
        return guided && this != TRAINING;
    }

    /**
     * What computes the attention of a whole picture.
     *
     * @throws IllegalStateException for what is measured as a peer: no picture is painted so
     */
    Plan.Backend backend() {
        return switch (this) {
            case SCALEDIT, SCALEDIT_FP8 -> Plan.Backend.NATIVE_INT8;
            case SCALEDIT_EXACT -> Plan.Backend.NATIVE_EXACT;
            case TRAINING, DENSE_FLASH, DENSE_CUDNN, NAIVE, LINEAR ->
                throw new IllegalStateException(label() + " paints nothing");
        };
    }

    /** Whether the transformer's large products are in FP8. */
    boolean fp8() {
        return this == SCALEDIT_FP8;
    }

    /** As users write it: "dense-flash". */
    public String label() {
        return name().toLowerCase(Locale.ROOT).replace('_', '-');
    }

    /**
     * The method that users write so.
     *
     * @throws IllegalArgumentException naming all that there are
     */
    public static Method of(String label) {
        return Arrays.stream(values())
                .filter(method -> method.label().equals(label))
                .findFirst()
                .orElseThrow(() -> new IllegalArgumentException("'" + label + "' is no method, expected "
                        + Arrays.stream(values()).map(Method::label).collect(Collectors.joining(", "))));
    }
}
