package org.scaledit.evaluation;

import org.bytedeco.pytorch.Context;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Attention;
import org.scaledit.tensor.Tensors;

/** Attention of every token to every token as others compute it, by torch alone. */
final class PeerAttention {
    private PeerAttention() {}

    /** Torch's SDPA through FlashAttention-2 on a GPU; on a CPU through torch's own kernel of that name. */
    static Attention flash() {
        return (query, key, value) -> {
            allowOnly(true, false);
            return scaledDotProduct(query, key, value);
        };
    }

    /** Torch's SDPA through cuDNN. */
    static Attention cudnn() {
        return (query, key, value) -> {
            allowOnly(false, true);
            return scaledDotProduct(query, key, value);
        };
    }

    /** Torch throws where it is left with no kernel: nothing falls back to another. */
    private static void allowOnly(boolean flash, boolean cudnn) {
        Context context = torch.globalContext();
        context.setSDPUseFlash(flash);
        context.setSDPUseCuDNN(cudnn);
        context.setSDPUseMemEfficient(false);
        context.setSDPUseMath(false);
    }

    /** As torch chooses when a program starts. */
    static void allowAll() {
        Context context = torch.globalContext();
        context.setSDPUseFlash(true);
        context.setSDPUseCuDNN(true);
        context.setSDPUseMemEfficient(true);
        context.setSDPUseMath(true);
    }

    private static Tensor scaledDotProduct(Tensor query, Tensor key, Tensor value) {
        return Tensors.scoped(() -> joined(torch.scaled_dot_product_attention(
                        headsFirst(query).unsqueeze(0),
                        headsFirst(key).unsqueeze(0),
                        headsFirst(value).unsqueeze(0),
                        Tensors.none(),
                        0,
                        false,
                        new DoubleOptional(),
                        false)
                .squeeze(0)));
    }

    /** All scores at once: [heads, tokens, tokens], for the heads that are computed together. */
    static Attention naive() {
        return (query, key, value) -> Tensors.scoped(() -> {
            Tensor scaled = headsFirst(query).mul(new Scalar(1 / Math.sqrt(query.size(2))));
            Tensor scores = scaled.matmul(headsFirst(key).transpose(1, 2));
            return joined(torch.softmax(scores, -1).matmul(headsFirst(value)));
        });
    }

    /**
     * {@code relu(q) (relu(k)ᵀ v) / (relu(q) Σ relu(k))}: the linear attention of SANA (arXiv 2410.10629, section 2.2).
     */
    static Attention linear() {
        return (query, key, value) -> Tensors.scoped(() -> {
            Tensor q = torch.relu(headsFirst(query)); // [heads, tokens, head_dim]
            Tensor k = torch.relu(headsFirst(key));
            Tensor states = k.transpose(1, 2).matmul(headsFirst(value)); // [heads, head_dim, head_dim]
            Tensor sums = k.sum(1).unsqueeze(2); // [heads, head_dim, 1]
            Tensor weights = q.matmul(sums).add_(new Scalar(1e-6)); // [heads, tokens, 1]
            return joined(q.matmul(states).div_(weights));
        });
    }

    /** [tokens, heads, head_dim] → [heads, tokens, head_dim] */
    private static Tensor headsFirst(Tensor tokens) {
        return tokens.transpose(0, 1);
    }

    /** [heads, tokens, head_dim] → [tokens, heads * head_dim] */
    private static Tensor joined(Tensor heads) {
        return heads.transpose(0, 1).flatten(1, 2).contiguous();
    }
}
