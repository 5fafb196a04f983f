package org.scaledit.transformer;

import java.util.List;
import java.util.function.BiConsumer;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/** The layers of a FLUX transformer, in the order in which tokens pass through them. */
record FluxModel(
        Linear textEmbedder,
        Linear latentEmbedder,
        Conditioning conditioning,
        List<Block> doubleBlocks,
        List<Block> singleBlocks,
        Linear finalModulation,
        Linear finalLayer) {
    private static final String DOUBLE_BLOCK = "transformer_blocks.";
    private static final String SINGLE_BLOCK = "single_transformer_blocks.";

    static FluxModel load(Layers layers, FluxConfig config) {
        Layers withoutGuidance = layers.withoutGuidance();
        long width = config.width();
        return new FluxModel(
                withoutGuidance.linear("context_embedder", config.jointWidth(), width),
                layers.linear("x_embedder", config.latentChannels(), width),
                Conditioning.load(layers, config),
                IntStream.range(0, config.doubleBlocks())
                        .mapToObj(block ->
                                layers.block(block, DOUBLE_BLOCK + block, ofBlock -> DoubleBlock.load(ofBlock, config)))
                        .toList(),
                IntStream.range(0, config.singleBlocks())
                        .mapToObj(block -> layers.block(
                                config.doubleBlocks() + block,
                                SINGLE_BLOCK + block,
                                ofBlock -> SingleBlock.load(ofBlock, config)))
                        .toList(),
                withoutGuidance.linear("norm_out.linear", width, 2 * width),
                withoutGuidance.linear("proj_out", width, config.latentChannels()));
    }

    /** Double and single ones alike add their output to the hidden state. */
    interface Block {
        /** @param hidden [text + image + guidance, width], changed */
        void forward(Tensor hidden, Pass pass);

        /**
         * With gradients of all weights.
         *
         * @param streams text and image, or both as one: [batch, rows, width]
         * @return the same, or both as one, in the caller's scope
         */
        List<Tensor> forward(List<Tensor> streams, BatchPass pass);
    }

    /** All blocks, in the order in which tokens pass through them. */
    List<Block> blocks() {
        return Stream.concat(doubleBlocks.stream(), singleBlocks.stream()).toList();
    }

    /**
     * @param hidden [text + image + guidance, width], embedded; used up
     * @param afterBlock sees each block's name and the hidden state after it; what it throws ends the pass
     * @return the velocity of the image tokens: [image, latent channels]
     */
    Tensor forward(Tensor hidden, Pass pass, BiConsumer<String, Tensor> afterBlock) {
        for (int block = 0; block < doubleBlocks.size(); block++) {
            Block current = doubleBlocks.get(block);
            Tensors.run(() -> current.forward(hidden, pass));
            afterBlock.accept(DOUBLE_BLOCK + block, hidden);
        }
        for (int block = 0; block < singleBlocks.size(); block++) {
            Block current = singleBlocks.get(block);
            Tensors.run(() -> current.forward(hidden, pass));
            afterBlock.accept(SINGLE_BLOCK + block, hidden);
        }
        return velocity(hidden, pass);
    }

    /**
     * What comes after the last block.
     *
     * @param hidden [text + image + guidance, width]
     * @return the velocity of the image tokens: [image, latent channels]
     */
    Tensor velocity(Tensor hidden, Pass pass) {
        return Tensors.scoped(() -> {
            long images = hidden.size(0) - pass.textTokens() - pass.guidanceTokens();
            Tensor image = hidden.narrow(0, pass.textTokens(), images);
            Modulation modulation = pass.modulationWithoutGuidance(finalModulation);
            pass.begins(Part.FINAL);
            // The final layer stores its scale before its shift, unlike the blocks, and is never in FP8.
            return finalLayer.forward(new TorchTokenWise().modulated(image, modulation, 1, 0), 0);
        });
    }
}
