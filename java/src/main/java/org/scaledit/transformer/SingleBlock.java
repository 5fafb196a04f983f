package org.scaledit.transformer;

import java.util.List;
import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Tensors;

/** A block in which all streams share their weights, attention and MLP side by side. */
record SingleBlock(Linear modulation, HeadProjections heads, Norms norms, Linear mlp, Linear output)
        implements FluxModel.Block {

    static SingleBlock load(Layers layers, FluxConfig config) {
        long width = config.width();
        return new SingleBlock(
                layers.linear("norm.linear", width, 3 * width),
                layers.heads("attn.to_q", "attn.to_k", "attn.to_v", config),
                layers.norms("attn.norm_q", "attn.norm_k", config),
                layers.product("proj_mlp", width, config.mlpWidth()),
                layers.product("proj_out", width + config.mlpWidth(), width));
    }

    @Override
    public List<Tensor> forward(List<Tensor> streams, BatchPass pass) {
        return List.of(Tensors.scoped(() -> {
            Tensor hidden = pass.operators().joined(streams);
            BatchOperators.BatchModulation shared = pass.modulation(modulation);
            Tensor projected = heads.batched(shared.modulated(hidden, 0, 1), mlp);
            Tensor wide = pass.attendedBesideGelu(new BatchOperators.Stream(norms, projected));
            return shared.gated(hidden, output.batched(wide), 2);
        }));
    }

    /** Adds the block's output to the hidden state: [text + image + guidance, width] */
    @Override
    public void forward(Tensor hidden, Pass pass) {
        Modulation shared = pass.modulation(modulation);
        Matrix x = pass.modulated(hidden, shared, 0, 1);
        Tensor attended =
                pass.attend(norms, Optional.empty(), List.of(new Pass.Stream(x, pass.guidanceTokens(), heads)));
        GatedLayer gated = GatedLayer.of(output, shared, 2, pass);
        Chunk.forEach(hidden.size(0), shared, chunk -> {
            pass.begins(Part.MLP);
            List<Matrix> joined = // [rows, width + mlp width]
                    pass.tokenWise().joined(chunk.of(attended), mlp, chunk.of(x), chunk.guidanceRows());
            gated.addTo(chunk.of(hidden), joined, chunk);
        });
    }
}
