package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.Optional;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.bindings.CudaNormAndRotateArguments;
import org.scaledit.bindings.MatrixView;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.CoreViews;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Tensors;

/**
 * RMSNorm and rotation of the queries, or of the keys, by the native core on an NVIDIA GPU, in one pass over them. Takes
 * bfloat16 and is queued on torch's current stream.
 *
 * @param norm {@code [head_dim]}
 * @param textNorm of the first {@code textTokens} tokens, if these have their own
 * @param turns cosine and sine of each pair of channels: {@code [tokens, 1, head_dim / 2]}, complex64
 */
record HeadPreparation(Tensor norm, Optional<Tensor> textNorm, long textTokens, Tensor turns) {

    static HeadPreparation ofQueries(Preparation preparation) {
        return new HeadPreparation(
                preparation.norms().query(),
                preparation.textNorms().map(Norms::query),
                preparation.textTokens(),
                preparation.turns());
    }

    static HeadPreparation ofKeys(Preparation preparation) {
        return new HeadPreparation(
                preparation.norms().key(),
                preparation.textNorms().map(Norms::key),
                preparation.textTokens(),
                preparation.turns());
    }

    /** {@code [tokens, heads, head_dim]} → the same, in the caller's scope. */
    Tensor prepared(Tensor heads) {
        return compute(heads, null);
    }

    /**
     * The gradient of what {@link #prepared} takes.
     *
     * @param gradient of what it gives, {@code [tokens, heads, head_dim]}
     * @return likewise, in the caller's scope
     */
    Tensor gradient(Tensor heads, Tensor gradient) {
        return compute(heads, gradient);
    }

    /** The core knows the sizes of what is given alone: the others' are looked at here. */
    private void requireFor(Tensor given) {
        Preparation.requireTurns(turns, given.size(0), given.size(2));
        Preparation.requireNorm(norm, given.size(2));
        textNorm.ifPresent(ofText -> Preparation.requireNorm(ofText, given.size(2)));
    }

    private Tensor compute(Tensor given, @Nullable Tensor gradient) {
        requireFor(given);
        Tensor output = torch.empty(given.shape(), given.options(), null);
        Tensors.run(() -> {
            CudaNormAndRotateArguments arguments = new CudaNormAndRotateArguments()
                            .rows(given.size(0))
                            .text_rows(textTokens)
                            .heads((int) given.size(1))
                            .head_dim((int) given.size(2))
                            .epsilon((float) Preparation.EPSILON)
                            .norm(norm.data_ptr())
                            .rotation(new FloatPointer(turns.data_ptr()))
                            .stream(Cuda.currentStream());
            textNorm.ifPresent(ofText -> arguments.text_norm(ofText.data_ptr()));
            describe(sideBySide(given), arguments.input());
            if (gradient != null) {
                describe(sideBySide(gradient), arguments.output_gradient());
            }
            describe(output, arguments.output());
            Status.check(scaledit_cuda_norm_and_rotate(arguments));
        });
        return output;
    }

    /** With the heads of a token one after the other, as projections leave them. */
    private static Tensor sideBySide(Tensor heads) {
        return areSideBySide(heads) ? heads : heads.contiguous();
    }

    static boolean areSideBySide(Tensor heads) {
        return heads.stride(2) == 1 && (heads.size(1) == 1 || heads.stride(1) == heads.size(2));
    }

    static void describe(Tensor heads, MatrixView view) {
        CoreViews.describe(heads, heads.stride(0), view);
    }
}
