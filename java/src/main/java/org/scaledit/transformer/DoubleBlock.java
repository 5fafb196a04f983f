package org.scaledit.transformer;

import java.util.List;
import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Tensors;

/** A block in which text and image have weights of their own and meet in attention; guidance uses the image's. */
record DoubleBlock(Stream text, Stream image) implements FluxModel.Block {

    /** The layers of one stream. */
    record Stream(Linear modulation, HeadProjections heads, Norms norms, Linear output, Linear mlpIn, Linear mlpOut) {

        /** What goes into attention. */
        BatchOperators.Stream attending(Tensor hidden, BatchOperators.BatchModulation modulation) {
            return new BatchOperators.Stream(norms, heads.batched(modulation.modulated(hidden, 0, 1)));
        }

        /** The stream with attention's output and then the MLP's: [batch, rows, width] */
        Tensor added(Tensor hidden, Tensor attended, BatchOperators.BatchModulation modulation) {
            Tensor joined = modulation.gated(hidden, output.batched(attended), 2);
            Tensor wide = torch.gelu(mlpIn.batched(modulation.modulated(joined, 3, 4)), "tanh");
            return modulation.gated(joined, mlpOut.batched(wide), 5);
        }

        /** What goes into attention: [rows, width] */
        Pass.Stream attending(Tensor hidden, Modulation modulation, Pass pass) {
            return new Pass.Stream(pass.modulated(hidden, modulation, 0, 1), modulation.guidanceRows(), heads);
        }

        /** Adds attention's output and then the MLP's to the stream: [rows, width] */
        void add(Tensor hidden, Tensor attended, Modulation modulation, Pass pass) {
            GatedLayer gatedOutput = GatedLayer.of(output, modulation, 2, pass);
            GatedLayer gatedMlp = GatedLayer.of(mlpOut, modulation, 5, pass);
            Chunk.forEach(hidden.size(0), modulation, chunk -> {
                Tensor rows = chunk.of(hidden);
                pass.begins(Part.OUTPUT);
                Matrix joined = pass.tokenWise().attended(chunk.of(attended));
                Matrix x = gatedOutput.addToAndModulate(rows, joined, chunk, 3, 4);
                pass.begins(Part.MLP);
                Matrix wide = pass.tokenWise().gelu(mlpIn, x, chunk.guidanceRows()); // [rows, mlp width]
                gatedMlp.addTo(rows, List.of(wide), chunk);
            });
        }
    }

    @Override
    public List<Tensor> forward(List<Tensor> streams, BatchPass pass) {
        return Tensors.scopedAll(() -> {
            Tensor ofText = streams.get(0); // [batch, text, width]
            Tensor ofImage = streams.get(1); // [batch, image, width]
            BatchOperators.BatchModulation textModulation = pass.modulation(text.modulation);
            BatchOperators.BatchModulation imageModulation = pass.modulation(image.modulation);
            List<Tensor> attended =
                    pass.attended(text.attending(ofText, textModulation), image.attending(ofImage, imageModulation));
            return List.of(
                    text.added(ofText, attended.get(0), textModulation),
                    image.added(ofImage, attended.get(1), imageModulation));
        });
    }

    static DoubleBlock load(Layers layers, FluxConfig config) {
        long width = config.width();
        long mlpWidth = config.mlpWidth();
        Layers text = layers.withoutGuidance();
        return new DoubleBlock(
                new Stream(
                        text.linear("norm1_context.linear", width, 6 * width),
                        text.heads("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", config),
                        text.norms("attn.norm_added_q", "attn.norm_added_k", config),
                        text.product("attn.to_add_out", width, width),
                        text.product("ff_context.net.0.proj", width, mlpWidth),
                        text.product("ff_context.net.2", mlpWidth, width)),
                new Stream(
                        layers.linear("norm1.linear", width, 6 * width),
                        layers.heads("attn.to_q", "attn.to_k", "attn.to_v", config),
                        layers.norms("attn.norm_q", "attn.norm_k", config),
                        layers.product("attn.to_out.0", width, width),
                        layers.product("ff.net.0.proj", width, mlpWidth),
                        layers.product("ff.net.2", mlpWidth, width)));
    }

    /** Adds the block's output to the hidden state: [text + image + guidance, width] */
    @Override
    public void forward(Tensor hidden, Pass pass) {
        long textTokens = pass.textTokens();
        Tensor ofText = hidden.narrow(0, 0, textTokens); // [text, width]
        Tensor ofImage = hidden.narrow(0, textTokens, hidden.size(0) - textTokens); // [image + guidance, width]
        Modulation textModulation = pass.modulationWithoutGuidance(text.modulation);
        Modulation imageModulation = pass.modulation(image.modulation);

        Tensor attended = Tensors.scoped(() -> pass.attend(
                image.norms,
                Optional.of(text.norms),
                List.of(
                        text.attending(ofText, textModulation, pass),
                        image.attending(ofImage, imageModulation, pass))));
        text.add(ofText, attended.narrow(0, 0, textTokens), textModulation, pass);
        image.add(ofImage, attended.narrow(0, textTokens, ofImage.size(0)), imageModulation, pass);
    }
}
