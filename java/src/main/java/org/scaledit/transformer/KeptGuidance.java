package org.scaledit.transformer;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * Keys and values of the guidance tokens, of all blocks, as their layers give them: kept in a first pass, put back in all
 * later ones, which have no guidance tokens in their hidden state. On a GPU in INT8, with a scale for each token and head;
 * on a CPU as they are.
 */
final class KeptGuidance implements AutoCloseable {
    private static final double LARGEST = 127;

    /** Of one group of heads of one block: [guidance, 2 * heads, head_dim] */
    private record Part(Tensor values, Optional<Tensor> scales) {
        void close() {
            values.close();
            scales.ifPresent(Tensor::close);
        }
    }

    private final long tokens;
    private final long headDim;
    private final List<Part> parts = new ArrayList<>();
    private boolean complete;
    private int next;

    KeptGuidance(long tokens, long headDim) {
        this.tokens = tokens;
        this.headDim = headDim;
    }

    /** Whether a pass has gone to its end. */
    boolean complete() {
        return complete;
    }

    /** Tokens of the sequence that the hidden state of the current pass does not have. */
    long missing() {
        return complete ? tokens : 0;
    }

    /** Begins a pass. What one left that did not end is dropped. */
    void begin() {
        next = 0;
        if (!complete) {
            drop();
        }
    }

    /** Ends a pass. */
    void end() {
        complete = true;
    }

    /**
     * Keeps what the first pass has next, or puts it back in a later one; then with zeros for queries, as nobody asks.
     *
     * @param projected queries, keys and values of a group of heads, guidance tokens last: [tokens, 3 * heads * head_dim]
     */
    void keepOrPutBack(Tensor projected) {
        Tensors.run(() -> {
            Tensor rows = projected.narrow(0, projected.size(0) - tokens, tokens);
            long columns = projected.size(1) / 3;
            Tensor heads = rows.narrow(1, columns, 2 * columns).unflatten(1, -1, headDim);
            if (complete) {
                rows.narrow(1, 0, columns).zero_();
                putBack(parts.get(next++), heads);
            } else {
                keep(heads);
            }
        });
    }

    private static void putBack(Part part, Tensor heads) {
        if (part.scales.isPresent()) {
            torch.mul_out(heads, part.values, part.scales.get());
        } else {
            heads.copy_(part.values);
        }
    }

    private void keep(Tensor heads) {
        if (!heads.is_cuda()) {
            parts.add(new Part(Tensors.outlive(() -> heads.clone()), Optional.empty()));
            return;
        }
        Tensor wide = Tensors.toFloat32(heads);
        Tensor scales = Tensors.outlive(() -> torch.linalg_vector_norm(
                        wide,
                        new Scalar(Double.POSITIVE_INFINITY),
                        new long[] {2},
                        true,
                        new ScalarTypeOptional(torch.ScalarType.Float))
                .clamp_min_(new Scalar(1e-30)) // zeros stay zeros
                .div_(new Scalar(LARGEST))
                .to(heads.scalar_type()));
        try {
            parts.add(new Part(
                    Tensors.outlive(() -> wide.div(scales).round_().to(torch.ScalarType.Char)), Optional.of(scales)));
        } catch (RuntimeException | Error e) {
            scales.close();
            throw e;
        }
    }

    private void drop() {
        parts.forEach(Part::close);
        parts.clear();
    }

    @Override
    public void close() {
        drop();
        complete = false;
    }
}
