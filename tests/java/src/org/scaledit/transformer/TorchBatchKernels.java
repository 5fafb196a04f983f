package org.scaledit.transformer;

import java.util.List;
import org.bytedeco.pytorch.AutoGradMode;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Preparation;
import org.scaledit.tensor.Tensors;

/** What the kernels are for, by torch and its autograd, wherever torch computes: the tape is tested with them. */
final class TorchBatchKernels implements BatchKernels {

    /** Of copies that autograd sees, the gradients of what {@code forward} makes of them. */
    private interface Forward {
        Tensor of(Tensor[] inputs);
    }

    @SuppressWarnings("try") // the guard works by being open
    private static Tensor[] gradients(Forward forward, Tensor gradient, Tensor... inputs) {
        try (AutoGradMode mode = new AutoGradMode(true)) {
            Tensor[] leaves = new Tensor[inputs.length];
            for (int i = 0; i < inputs.length; i++) {
                leaves[i] = inputs[i].detach();
                leaves[i].set_requires_grad(true);
            }
            Tensor output = forward.of(leaves);
            Tape.backward(List.of(output), List.of(gradient));
            Tensor[] gradients = new Tensor[inputs.length];
            for (int i = 0; i < inputs.length; i++) {
                gradients[i] = new Tensor(leaves[i].grad());
            }
            return gradients;
        }
    }

    @Override
    public long gradientParts(long batch, long rows) {
        return Math.min(3, rows);
    }

    private static Tensor modulate(Tensor hidden, Tensor shift, Tensor scale) {
        Tensor normed = torch.layer_norm(
                hidden, new long[] {hidden.size(2)}, Tensors.none(), Tensors.none(), TokenWise.EPSILON, true);
        return normed.mul(scale.unsqueeze(1).add(new Scalar(1))).add(shift.unsqueeze(1));
    }

    @Override
    public Tensor modulated(Tensor hidden, Tensor shift, Tensor scale) {
        requireEven(hidden);
        return Tensors.scoped(() -> modulate(hidden, shift, scale));
    }

    @Override
    public void modulatedGradient(
            Tensor hidden,
            Tensor scale,
            Tensor gradient,
            Tensor hiddenGradient,
            boolean adds,
            Tensor shiftGradient,
            Tensor scaleGradient) {
        requireEven(hidden, gradient, hiddenGradient);
        Tensors.run(() -> {
            Tensor[] made = gradients(
                    inputs -> modulate(inputs[0], inputs[1], inputs[2]),
                    gradient,
                    hidden,
                    torch.zeros_like(scale),
                    scale);
            if (adds) {
                hiddenGradient.add_(made[0]);
            } else {
                hiddenGradient.copy_(made[0]);
            }
            inParts(made[1], shiftGradient);
            inParts(made[2], scaleGradient);
        });
    }

    /** Parts that add up to a gradient and differ. */
    private static void inParts(Tensor gradient, Tensor parts) {
        long batch = gradient.size(0);
        long count = parts.size(0) / batch;
        for (long part = 0; part < count; part++) {
            parts.narrow(0, part * batch, batch)
                    .copy_(gradient.mul(new Scalar(2.0 * (part + 1) / (count * (count + 1)))));
        }
    }

    @Override
    public Tensor gated(Tensor hidden, Tensor update, Tensor gate) {
        requireEven(hidden, update);
        return Tensors.scoped(() -> torch.addcmul(hidden, update, gate.unsqueeze(1)));
    }

    @Override
    public Tensor gatedGradient(Tensor update, Tensor gate, Tensor gradient, Tensor gateGradient) {
        requireEven(update, gradient);
        return Tensors.scoped(() -> {
            Tensor[] made = gradients(inputs -> inputs[0].mul(inputs[1].unsqueeze(1)), gradient, update, gate);
            inParts(made[1], gateGradient);
            return made[0];
        });
    }

    private static Tensor prepare(Tensor stream, Tensor norm, Tensor turns) {
        Tensor heads = stream.unflatten(2, -1, norm.size(0));
        return Preparation.rotated(Preparation.normed(heads, norm), turns).flatten(2, 3);
    }

    @Override
    public void prepared(Tensor stream, Tensor norm, Tensor turns, long first, Tensor sequence) {
        requireEven(stream, sequence);
        Preparation.requireTurns(turns, sequence.size(1), norm.size(0));
        Tensors.run(() -> sequence.narrow(1, first, stream.size(1))
                .copy_(prepare(stream, norm, turns.narrow(0, first, stream.size(1)))));
    }

    @Override
    public Tensor preparedGradient(
            Tensor stream, Tensor norm, Tensor turns, long first, Tensor gradient, Tensor streamGradient) {
        requireEven(stream, gradient, streamGradient);
        Preparation.requireTurns(turns, gradient.size(1), norm.size(0));
        return Tensors.scoped(() -> {
            long rows = stream.size(1);
            Tensor[] made = gradients(
                    inputs -> prepare(inputs[0], inputs[1], turns.narrow(0, first, rows)),
                    gradient.narrow(1, first, rows),
                    stream,
                    norm);
            streamGradient.copy_(made[0]);
            return made[1];
        });
    }

    @Override
    public Tensor besideGelu(Tensor input, Tensor wide) {
        requireEven(input, wide);
        return Tensors.concatenate(2, input, torch.gelu(wide, "tanh"));
    }

    @Override
    public void geluGradient(Tensor wide, Tensor gradient, Tensor wideGradient) {
        requireEven(wide, gradient, wideGradient);
        Tensors.run(() -> wideGradient.copy_(gradients(inputs -> torch.gelu(inputs[0], "tanh"), gradient, wide)[0]));
    }

    /** As the core wants it. */
    private static void requireEven(Tensor... tokens) {
        for (Tensor each : tokens) {
            CudaBatchKernels.requireEven(each, torch.ScalarType.Float);
        }
    }
}
