package org.scaledit.transformer;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.GradMode;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * The way back through operators that torch's autograd knows nothing of. The presets have no way to give torch a node of its
 * own, so such an operator ends torch's graph: its output is a leaf, to which torch adds the gradient. Then its step finds
 * the gradients of its inputs, and has torch take those further that have a graph. Where torch notes no gradients, nothing
 * is noted here.
 */
final class Tape implements AutoCloseable {
    private final Deque<Step> steps = new ArrayDeque<>(); // the last one first
    private List<Tensor> kept = new ArrayList<>(); // for the step that comes next

    private record Step(Runnable back, List<Tensor> kept) implements AutoCloseable {
        @Override
        public void close() {
            kept.forEach(Tensor::close);
        }
    }

    private static boolean recording() {
        return GradMode.is_enabled();
    }

    /** What goes on from an operator, in the caller's scope. */
    static Tensor leaf(Tensor values) {
        Tensor leaf = values.detach();
        leaf.set_requires_grad(recording());
        return leaf;
    }

    /** A handle for the step that comes next, which frees it; the tensor itself where nothing is noted. */
    Tensor keep(Tensor tensor) {
        if (!recording()) {
            return tensor;
        }
        Tensor handle = Tensors.keep(tensor);
        kept.add(handle);
        return handle;
    }

    /** Adds an operator's step, which uses what was kept for it. */
    void add(Runnable back) {
        if (recording()) {
            steps.push(new Step(back, kept));
            kept = new ArrayList<>();
        }
    }

    /** Adds gradients to those of all that the outputs come from. */
    void walk(List<Tensor> outputs, List<Tensor> gradients) {
        List<Tensor> graphs = new ArrayList<>();
        List<Tensor> ofGraphs = new ArrayList<>();
        for (int i = 0; i < outputs.size(); i++) {
            if (outputs.get(i).is_leaf()) {
                flow(outputs.get(i), gradients.get(i));
            } else {
                graphs.add(outputs.get(i));
                ofGraphs.add(gradients.get(i));
            }
        }
        if (!graphs.isEmpty()) {
            backward(graphs, ofGraphs);
        }
        Tensors.withoutGradients(() -> {
            while (!steps.isEmpty()) {
                try (Step step = steps.pop()) {
                    Tensors.run(step.back);
                }
            }
        });
    }

    /**
     * Gives a tensor its gradient: torch takes it further where there is a graph. A leaf that has none yet keeps the one that is
     * given, to which others are then added in place.
     */
    static void flow(Tensor to, Tensor gradient) {
        if (!to.requires_grad()) {
            return;
        }
        if (!to.is_leaf()) {
            backward(List.of(to), List.of(gradient));
        } else if (to.grad().defined()) {
            to.mutable_grad().add_(gradient);
        } else {
            to.mutable_grad().put(gradient);
        }
    }

    /** By torch's autograd alone, through what the graphs share once. */
    static void backward(List<Tensor> outputs, List<Tensor> gradients) {
        torch.backward(vector(outputs), vector(gradients), new BoolOptional(), false, new TensorVector());
    }

    private static TensorVector vector(List<Tensor> tensors) {
        return new TensorVector(tensors.toArray(Tensor[]::new));
    }

    /** What has come to a leaf, borrowed from it; zeros if no loss depends on it. */
    static Tensor gradient(Tensor leaf) {
        Tensor gradient = leaf.grad();
        return gradient.defined() ? gradient : torch.zeros_like(leaf);
    }

    @Override
    public void close() {
        kept.forEach(Tensor::close);
        kept.clear();
        steps.forEach(Step::close);
        steps.clear();
    }
}
