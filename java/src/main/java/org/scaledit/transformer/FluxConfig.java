package org.scaledit.transformer;

import java.nio.file.Path;
import java.util.List;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;

/**
 * The sizes of a FLUX.1 transformer (diffusers' {@code FluxTransformer2DModel}).
 *
 * @param latentChannels channels of a packed latent: 64, 16 VAE channels of a 2 × 2 patch
 * @param doubleBlocks blocks in which text and image have weights of their own
 * @param singleBlocks blocks in which they share them
 * @param jointWidth width of a T5 state
 * @param pooledWidth width of CLIP's pooled state
 * @param guidanceEmbedder whether the guidance scale is an input (dev), or not (schnell)
 * @param axes channels of a head that carry each of a token's three coordinates
 */
public record FluxConfig(
        int latentChannels,
        int doubleBlocks,
        int singleBlocks,
        int heads,
        int headDim,
        int jointWidth,
        int pooledWidth,
        boolean guidanceEmbedder,
        List<Integer> axes) {
    private static final int LATENT_CHANNELS = 64;

    /** FLUX.1-dev's. */
    public static final FluxConfig DEV =
            new FluxConfig(LATENT_CHANNELS, 19, 38, 24, 128, 4096, 768, true, List.of(16, 56, 56));

    /**
     * Reads the transformer's {@code config.json}.
     *
     * @throws CheckpointException naming the value that this program does not support
     */
    public static FluxConfig of(Config config) {
        config.require("_class_name", "FluxTransformer2DModel");
        int inChannels = config.integer("in_channels");
        require(inChannels == LATENT_CHANNELS, config, "in_channels", inChannels + kindOf(inChannels), "64");
        int outChannels = config.integer("out_channels", LATENT_CHANNELS);
        require(outChannels == LATENT_CHANNELS, config, "out_channels", outChannels, "64");
        int patchSize = config.integer("patch_size", 1);
        require(patchSize == 1, config, "patch_size", patchSize, "1");
        int headDim = config.integer("attention_head_dim", 1, Config.MOST_WIDTH);
        // The published configurations of FLUX.1 leave the axes out: the values are those of diffusers.
        List<Integer> axes = config.integers("axes_dims_rope", List.of(16, 56, 56));
        long rotated = axes.stream().mapToLong(Integer::intValue).sum();
        boolean even = axes.stream().allMatch(axis -> axis % 2 == 0);
        require(
                axes.size() == 3 && even && rotated == headDim,
                config,
                "axes_dims_rope",
                axes,
                "three even numbers that add up to attention_head_dim, " + headDim);
        return new FluxConfig(
                inChannels,
                config.integer("num_layers", 1, Config.MOST_LAYERS),
                config.integer("num_single_layers", 1, Config.MOST_LAYERS),
                config.integer("num_attention_heads", 1, Config.MOST_HEADS),
                headDim,
                config.integer("joint_attention_dim", 1, Config.MOST_WIDTH),
                config.integer("pooled_projection_dim", 1, Config.MOST_WIDTH),
                config.flag("guidance_embeds"),
                axes);
    }

    /** The transformer's config of a model in diffusers' layout. */
    public static FluxConfig read(Path file) {
        return of(Config.read(file));
    }

    /** What checkpoints of other widths are. */
    private static String kindOf(int inChannels) {
        return switch (inChannels) {
            case 384 -> " (FLUX.1 Fill: image and mask are inputs)";
            case 128 -> " (FLUX.1 Canny or Depth: a control image is an input)";
            default -> "";
        };
    }

    private static void require(boolean condition, Config config, String field, Object given, String expected) {
        if (!condition) {
            throw new CheckpointException(config.file() + " has " + field + " " + given + ", expected " + expected);
        }
    }

    /** The same without the guidance scale as an input. */
    public FluxConfig withoutGuidanceEmbedder() {
        return new FluxConfig(
                latentChannels, doubleBlocks, singleBlocks, heads, headDim, jointWidth, pooledWidth, false, axes);
    }

    /** Width of a token between the blocks: heads × headDim. */
    public int width() {
        return heads * headDim;
    }

    /** T5's length, unless its tokenizer allows less: 512 tokens, or 256 without a guidance embedder (schnell). */
    public int textTokens() {
        return guidanceEmbedder ? 512 : 256;
    }

    /** Width inside an MLP. */
    public int mlpWidth() {
        return 4 * width();
    }
}
