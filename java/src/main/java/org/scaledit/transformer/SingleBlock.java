package org.scaledit.transformer;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/** A block in which all streams share their weights, attention and MLP side by side. */
record SingleBlock(
        Linear modulation,
        Linear query,
        Linear key,
        Linear value,
        Tensor queryNorm,
        Tensor keyNorm,
        Linear mlp,
        Linear output) {

    static SingleBlock load(Layers layers, FluxConfig config) {
        long width = config.width();
        return new SingleBlock(
                layers.linear("norm.linear", width, 3 * width),
                layers.linear("attn.to_q", width, width),
                layers.linear("attn.to_k", width, width),
                layers.linear("attn.to_v", width, width),
                layers.scale("attn.norm_q", config.headDim()),
                layers.scale("attn.norm_k", config.headDim()),
                layers.linear("proj_mlp", width, config.mlpWidth()),
                layers.linear("proj_out", width + config.mlpWidth(), width));
    }

    /** Adds the block's output to the hidden state: [text + image + guidance, width] */
    void forward(Tensor hidden, Pass pass) {
        long guidance = pass.guidanceTokens();
        Modulation shared = pass.modulation(modulation);
        Tensor x = shared.modulated(hidden, 0, 1);
        Tensor both = Tensors.scoped(() -> Tensors.concatenate(
                1, attend(x, pass), torch.gelu_(mlp.forward(x, guidance), "tanh"))); // [tokens, width + mlp width]
        shared.addGated(hidden, 2, output.forward(both, guidance));
    }

    /** [tokens, width] → [tokens, width] */
    private Tensor attend(Tensor x, Pass pass) {
        return Tensors.scoped(() -> {
            long guidance = pass.guidanceTokens();
            Tensor q = Tensors.scoped(() -> pass.turned(pass.normed(query.forward(x, guidance), queryNorm)));
            Tensor k = Tensors.scoped(() -> pass.turned(pass.normed(key.forward(x, guidance), keyNorm)));
            Tensor v = pass.heads(value.forward(x, guidance));
            return pass.attention().attend(q, k, v);
        });
    }
}
