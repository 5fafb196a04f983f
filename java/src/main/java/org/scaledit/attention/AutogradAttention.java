package org.scaledit.attention;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorBase;
import org.bytedeco.pytorch.TensorTensorHook;
import org.jspecify.annotations.Nullable;
import org.scaledit.attention.DifferentiableAttention.Attended;
import org.scaledit.attention.DifferentiableAttention.Gradients;
import org.scaledit.tensor.Tensors;

/**
 * Takes torch's autograd through an attention that torch knows nothing of. Made for one forward and backward pass through
 * a block: what it keeps for the backward pass is freed when it is closed. The attention stays the caller's.
 */
public final class AutogradAttention implements Attention {
    private final DifferentiableAttention attention;
    private final List<Operation> operations = new ArrayList<>();

    public AutogradAttention(DifferentiableAttention attention) {
        this.attention = attention;
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return Tensors.scoped(() -> {
            Tensor joined = Tensors.concatenate(1, query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2));
            return attend(joined, query.size(2), Optional.empty());
        });
    }

    /** Where the attention does not norm and rotate by itself, torch does, and its autograd finds the gradients. */
    @Override
    public Tensor attend(Tensor projected, Preparation preparation) {
        return attention.prepares()
                ? Tensors.scoped(() -> attend(projected.flatten(1, 3), projected.size(3), Optional.of(preparation)))
                : Attention.super.attend(projected, preparation);
    }

    /**
     * The presets have no way to give torch a node of its own. So the output hangs on the joined operands by a term that
     * is zero, and whose gradient, the output's, a hook on the operands replaces by theirs.
     *
     * @param joined [tokens, 3 * heads * head_dim]
     */
    private Tensor attend(Tensor joined, long headDim, Optional<Preparation> preparation) {
        Operation operation = new Operation(attention, preparation, joined, headDim);
        operations.add(operation);
        joined.register_hook(operation.hook);
        long width = operation.width();
        Tensor zero = joined.narrow(1, 0, width).sub(operation.joined.narrow(1, 0, width));
        return zero.add_(operation.attended.output().flatten(1, 2));
    }

    @Override
    public void close() {
        operations.forEach(Operation::close);
        operations.clear();
    }

    /** One call, as its gradients need it. */
    private static final class Operation implements AutoCloseable {
        private final DifferentiableAttention attention;
        private final Optional<Preparation> preparation;
        private final Tensor joined; // [tokens, 3 * heads * head_dim], without a graph
        private final long headDim;
        private final Attended attended;
        private final TensorTensorHook hook;
        private @Nullable Tensor gradient; // of the operands

        Operation(DifferentiableAttention attention, Optional<Preparation> preparation, Tensor joined, long headDim) {
            this.attention = attention;
            this.preparation = preparation;
            this.joined = Tensors.keep(joined.detach());
            this.headDim = headDim;
            try {
                Attended made = preparation
                        .map(lacking -> attention.attendForGradients(query(), key(), value(), lacking))
                        .orElseGet(() -> attention.attendForGradients(query(), key(), value()));
                this.attended = new Attended(Tensors.keep(made.output()), Tensors.keep(made.logSumExp()));
            } catch (RuntimeException | Error e) {
                this.joined.close(); // nobody knows of this operation yet
                throw e;
            }
            this.hook = Tensors.outlive(() -> new TensorTensorHook() {
                @Override
                public TensorBase call(TensorBase ofOutput) {
                    return gradient(ofOutput);
                }
            });
        }

        /**
         * Called by torch, on a GPU from a thread of its own that has no scope: what is handed back is freed with the
         * operation, and what came at once.
         */
        private Tensor gradient(TensorBase ofOutput) {
            Tensor made = Tensors.outlive(() -> gradientOfOperands(new Tensor(ofOutput)));
            ofOutput.close();
            this.gradient = made;
            return made;
        }

        long width() {
            return joined.size(1) / 3;
        }

        private Tensor query() {
            return heads(joined, 0);
        }

        private Tensor key() {
            return heads(joined, 1);
        }

        private Tensor value() {
            return heads(joined, 2);
        }

        /** One of three parts that lie side by side: [tokens, heads, head_dim] */
        private Tensor heads(Tensor parts, int part) {
            return parts.narrow(1, part * width(), width()).unflatten(1, -1, headDim);
        }

        /** @param gradient the output's in the first third: [tokens, 3 * heads * head_dim] */
        private Tensor gradientOfOperands(Tensor gradient) {
            Tensor ofOutput = heads(gradient, 0).contiguous();
            Gradients gradients = preparation
                    .map(lacking -> attention.gradients(query(), key(), value(), lacking, attended, ofOutput))
                    .orElseGet(() -> attention.gradients(query(), key(), value(), attended, ofOutput));
            return Tensors.concatenate(
                    1,
                    gradients.query().flatten(1, 2),
                    gradients.key().flatten(1, 2),
                    gradients.value().flatten(1, 2));
        }

        @Override
        public void close() {
            hook.close();
            joined.close();
            attended.output().close();
            attended.logSumExp().close();
            if (gradient != null) {
                gradient.close();
            }
        }
    }
}
