package org.scaledit.vae;

import java.util.List;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;

/**
 * The shape of an autoencoder, as {@code vae/config.json} of a diffusers checkpoint says it.
 *
 * @param blockChannels channels of each level, from pixels to latents; every level but the last halves the sides
 * @param layersPerBlock residual blocks of each encoder level; the decoder has one more
 * @param normGroups groups of every group normalisation
 * @param latentChannels channels of a latent
 * @param sampleSize side of a tile, in pixels
 * @param scalingFactor what latents are multiplied by for the transformer
 * @param shiftFactor what is subtracted from latents before that
 * @param midAttention whether the levels' deepest ends have attention
 */
public record VaeConfig(
        List<Integer> blockChannels,
        int layersPerBlock,
        int normGroups,
        int latentChannels,
        int sampleSize,
        double scalingFactor,
        double shiftFactor,
        boolean midAttention) {

    /** Tiles overlap by a quarter. */
    static final int OVERLAPS_PER_TILE = 4;

    private static final int LEVELS = 4;

    public VaeConfig {
        blockChannels = List.copyOf(blockChannels);
    }

    /**
     * Takes the shape from a configuration file.
     *
     * @throws CheckpointException if a value is missing or asks for an autoencoder of another kind than FLUX's
     */
    public static VaeConfig of(Config file) {
        file.require("_class_name", "AutoencoderKL");
        file.require("act_fn", "silu");
        requireEach(file, "down_block_types", "DownEncoderBlock2D");
        requireEach(file, "up_block_types", "UpDecoderBlock2D");
        requireCount(file, "in_channels", 3);
        requireCount(file, "out_channels", 3);
        refuse(file, "use_quant_conv", file.flag("use_quant_conv", true));
        refuse(file, "use_post_quant_conv", file.flag("use_post_quant_conv", true));
        refuse(file, "latents_mean", file.has("latents_mean"));
        refuse(file, "latents_std", file.has("latents_std"));

        VaeConfig config = new VaeConfig(
                file.integers("block_out_channels"),
                file.integer("layers_per_block", 1, Config.MOST_LAYERS),
                file.integer("norm_num_groups"),
                file.integer("latent_channels"),
                file.integer("sample_size"),
                file.number("scaling_factor"),
                file.number("shift_factor"),
                file.flag("mid_block_add_attention", true));
        config.requireSense(file);
        return config;
    }

    /** Pixels along a side that one latent covers: 8. */
    public int pixelsPerLatent() {
        return 1 << (blockChannels.size() - 1);
    }

    /** Side of a tile, in latents. */
    int tileLatents() {
        return sampleSize / pixelsPerLatent();
    }

    int pixelChannels() {
        return blockChannels.get(0);
    }

    int deepestChannels() {
        return blockChannels.get(blockChannels.size() - 1);
    }

    private void requireSense(Config file) {
        require(file, blockChannels.size() == LEVELS, "block_out_channels", blockChannels, LEVELS + " levels");
        require(file, normGroups > 0, "norm_num_groups", normGroups, "at least 1");
        for (int channels : blockChannels) {
            boolean divisible = channels > 0 && channels % normGroups == 0;
            require(file, divisible, "block_out_channels", blockChannels, "multiples of " + normGroups + " groups");
        }
        require(file, latentChannels > 0, "latent_channels", latentChannels, "at least 1");
        int finest = pixelsPerLatent() * OVERLAPS_PER_TILE;
        boolean divisible = sampleSize > 0 && sampleSize % finest == 0;
        require(file, divisible, "sample_size", sampleSize, "a multiple of " + finest);
        require(file, scalingFactor != 0, "scaling_factor", scalingFactor, "another number");
    }

    private static void requireEach(Config file, String field, String expected) {
        for (String given : file.texts(field)) {
            require(file, given.equals(expected), field, given, expected + " for every level");
        }
    }

    private static void requireCount(Config file, String field, int expected) {
        require(file, file.integer(field) == expected, field, file.integer(field), expected);
    }

    /** Names a feature that other autoencoders have and FLUX's does not. */
    private static void refuse(Config file, String field, boolean used) {
        require(file, !used, field, "(by default or by name)", "none, as in FLUX's autoencoder");
    }

    private static void require(Config file, boolean condition, String field, Object given, Object expected) {
        if (!condition) {
            throw new CheckpointException(file.file() + " has " + field + " " + given + ", expected " + expected);
        }
    }
}
