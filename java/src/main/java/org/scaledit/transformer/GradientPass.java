package org.scaledit.transformer;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AutogradAttention;
import org.scaledit.attention.DifferentiableAttention;
import org.scaledit.tensor.Tensors;

/**
 * A pass forward and one back through a transformer with a LoRA in training. Kept on the way is each block's input alone
 * (gradient checkpointing): on the way back a block is computed once more, with its gradients.
 */
public final class GradientPass {

    /** What a pass does, for a profile. */
    public enum Phase {
        /** The blocks without gradients. */
        FORWARD,
        /** The last norm and layer, the loss, and its way back through them. */
        LOSS,
        /** A block once more, with what its gradients need. */
        RECOMPUTE,
        /** From a block's output to its input and to the matrices in training. */
        BACKWARD
    }

    private final Denoiser denoiser;
    private final DifferentiableAttention attention;

    /**
     * @param denoiser of a transformer with a LoRA in training; serves one pass, and stays the caller's
     * @param attention for the denoiser's layout
     */
    public GradientPass(Denoiser denoiser, DifferentiableAttention attention) {
        this.denoiser = denoiser;
        this.attention = attention;
    }

    /**
     * Adds a loss's gradients to those that the matrices in training have.
     *
     * @param latents packed, noised, in the layout's order: {@code [W·H, 64]}
     * @param sigma noise level, 0 … 1
     * @param loss of the velocity {@code [W·H, 64]}, float32: a scalar
     * @return the loss
     */
    public double add(Tensor latents, double sigma, UnaryOperator<Tensor> loss) {
        return add(latents, sigma, loss, phase -> {});
    }

    /**
     * The same for a profile.
     *
     * @param begins told which phase begins: what is queued on a GPU from then on belongs to it
     */
    public double add(Tensor latents, double sigma, UnaryOperator<Tensor> loss, Consumer<Phase> begins) {
        Deque<Tensor> inputs = new ArrayDeque<>(); // of the blocks, the last one first
        try {
            return Tensors.compute(() -> {
                begins.accept(Phase.FORWARD);
                Pass common = denoiser.pass(sigma, part -> {});
                Pass pass = common.with(attention, common.tokenWise());
                List<FluxModel.Block> blocks = denoiser.transformer().model().blocks();
                Tensor embedded = denoiser.embedded(latents);
                Tensor hidden = embedded.detach().clone();
                Tensors.withoutGradients(() -> blocks.forEach(block -> {
                    inputs.push(Tensors.keep(hidden.clone()));
                    Tensors.run(() -> block.forward(hidden, pass));
                }));
                begins.accept(Phase.LOSS);
                Tensor value = Tensors.scoped(() -> loss.apply(velocity(hidden, pass)));
                value.backward();
                Tensor gradient = hidden.grad();
                for (int block = blocks.size() - 1; block >= 0; block--) {
                    try (Tensor input = inputs.pop();
                            Tensor ofOutput = gradient) {
                        gradient = backward(blocks.get(block), pass, input, ofOutput, begins);
                    }
                }
                if (embedded.requires_grad()) {
                    Tape.backward(List.of(embedded), List.of(gradient));
                }
                return value.item_double();
            });
        } finally {
            inputs.forEach(Tensor::close);
        }
    }

    private Tensor velocity(Tensor hidden, Pass pass) {
        hidden.set_requires_grad(true);
        Pass differentiable = pass.with(attention, new AutogradTokenWise());
        return Tensors.toFloat32(denoiser.transformer().model().velocity(hidden, differentiable));
    }

    /** From the gradient of a block's output to that of its input: [text + image + guidance, width] */
    private Tensor backward(FluxModel.Block block, Pass pass, Tensor input, Tensor gradient, Consumer<Phase> begins) {
        return Tensors.scoped(() -> {
            begins.accept(Phase.RECOMPUTE);
            input.set_requires_grad(true);
            try (Attention differentiable = new AutogradAttention(attention)) {
                Tensor hidden = input.clone(); // a leaf is not changed in place
                block.forward(hidden, pass.with(differentiable, new AutogradTokenWise()));
                begins.accept(Phase.BACKWARD);
                Tape.backward(List.of(hidden), List.of(gradient));
            }
            return input.grad();
        });
    }
}
