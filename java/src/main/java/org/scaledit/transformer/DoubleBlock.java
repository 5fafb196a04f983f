package org.scaledit.transformer;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/** A block in which text and image have weights of their own and meet in attention; guidance uses the image's. */
record DoubleBlock(Stream text, Stream image) {

    /** The layers of one stream. */
    record Stream(
            Linear modulation,
            Linear query,
            Linear key,
            Linear value,
            Tensor queryNorm,
            Tensor keyNorm,
            Linear output,
            Linear mlpIn,
            Linear mlpOut) {

        /** Adds attention's output and then the MLP's to the stream: [rows, width] */
        void add(Tensor hidden, Tensor attended, Modulation modulation) {
            long guidance = modulation.guidanceRows();
            Tensors.run(() -> modulation.addGated(hidden, 2, output.forward(attended, guidance)));
            Tensors.run(() -> modulation.addGated(hidden, 5, mlp(modulation.modulated(hidden, 3, 4), guidance)));
        }

        /** [rows, width] → [rows, width] */
        private Tensor mlp(Tensor x, long guidance) {
            return mlpOut.forward(torch.gelu_(mlpIn.forward(x, guidance), "tanh"), guidance);
        }
    }

    static DoubleBlock load(Layers layers, FluxConfig config) {
        long width = config.width();
        long mlpWidth = config.mlpWidth();
        Layers text = layers.withoutGuidance();
        return new DoubleBlock(
                new Stream(
                        text.linear("norm1_context.linear", width, 6 * width),
                        text.linear("attn.add_q_proj", width, width),
                        text.linear("attn.add_k_proj", width, width),
                        text.linear("attn.add_v_proj", width, width),
                        text.scale("attn.norm_added_q", config.headDim()),
                        text.scale("attn.norm_added_k", config.headDim()),
                        text.linear("attn.to_add_out", width, width),
                        text.linear("ff_context.net.0.proj", width, mlpWidth),
                        text.linear("ff_context.net.2", mlpWidth, width)),
                new Stream(
                        layers.linear("norm1.linear", width, 6 * width),
                        layers.linear("attn.to_q", width, width),
                        layers.linear("attn.to_k", width, width),
                        layers.linear("attn.to_v", width, width),
                        layers.scale("attn.norm_q", config.headDim()),
                        layers.scale("attn.norm_k", config.headDim()),
                        layers.linear("attn.to_out.0", width, width),
                        layers.linear("ff.net.0.proj", width, mlpWidth),
                        layers.linear("ff.net.2", mlpWidth, width)));
    }

    /** Adds the block's output to the hidden state: [text + image + guidance, width] */
    void forward(Tensor hidden, Pass pass) {
        long textTokens = pass.textTokens();
        Tensor ofText = hidden.narrow(0, 0, textTokens); // [text, width]
        Tensor ofImage = hidden.narrow(0, textTokens, hidden.size(0) - textTokens); // [image + guidance, width]
        Modulation textModulation = pass.modulationWithoutGuidance(text.modulation);
        Modulation imageModulation = pass.modulation(image.modulation);

        Tensor attended = attend(ofText, textModulation, ofImage, imageModulation, pass);
        text.add(ofText, attended.narrow(0, 0, textTokens), textModulation);
        image.add(ofImage, attended.narrow(0, textTokens, ofImage.size(0)), imageModulation);
    }

    /** Joint attention: [text + image + guidance, width] */
    private Tensor attend(
            Tensor ofText, Modulation textModulation, Tensor ofImage, Modulation imageModulation, Pass pass) {
        return Tensors.scoped(() -> {
            Tensor t = textModulation.modulated(ofText, 0, 1);
            Tensor x = imageModulation.modulated(ofImage, 0, 1);
            long guidance = pass.guidanceTokens();
            Tensor query = Tensors.scoped(() -> pass.turned(Tensors.concatenate(
                    0,
                    pass.normed(text.query.forward(t, 0), text.queryNorm),
                    pass.normed(image.query.forward(x, guidance), image.queryNorm))));
            Tensor key = Tensors.scoped(() -> pass.turned(Tensors.concatenate(
                    0,
                    pass.normed(text.key.forward(t, 0), text.keyNorm),
                    pass.normed(image.key.forward(x, guidance), image.keyNorm))));
            Tensor value = Tensors.scoped(() ->
                    pass.heads(Tensors.concatenate(0, text.value.forward(t, 0), image.value.forward(x, guidance))));
            return pass.attention().attend(query, key, value);
        });
    }
}
