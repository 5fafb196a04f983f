package org.scaledit.vae;

import java.util.ArrayList;
import java.util.List;
import org.scaledit.vae.Layer.Activated;
import org.scaledit.vae.Layer.Convolution;
import org.scaledit.vae.Layer.Downsample;
import org.scaledit.vae.Layer.Normalization;
import org.scaledit.vae.Layer.Residual;
import org.scaledit.vae.Layer.SelfAttention;
import org.scaledit.vae.Layer.Upsample;

/** The layers of diffusers' {@code AutoencoderKL} in the order in which data passes through them. */
final class Architecture {
    private Architecture() {}

    /** Pixels to the posterior's mean and logarithm of variance. */
    static List<Layer> encoder(VaeConfig config) { // [1, 3, 8h, 8w] -> [1, 2 · latent, h, w]
        List<Integer> channels = config.blockChannels();
        List<Layer> layers = new ArrayList<>();
        layers.add(Convolution.same("encoder.conv_in", 3, config.pixelChannels(), 3));
        int in = config.pixelChannels();
        for (int level = 0; level < channels.size(); level++) {
            String block = "encoder.down_blocks." + level;
            int out = channels.get(level);
            addResiduals(layers, block, config.layersPerBlock(), in, out, config);
            if (level < channels.size() - 1) {
                layers.add(new Downsample(block + ".downsamplers.0", out));
            }
            in = out;
        }
        addMiddle(layers, "encoder.mid_block", config);
        addHead(layers, "encoder", in, 2 * config.latentChannels(), config);
        return List.copyOf(layers);
    }

    /** Latents to pixels. */
    static List<Layer> decoder(VaeConfig config) { // [1, latent, h, w] -> [1, 3, 8h, 8w]
        List<Integer> channels = config.blockChannels();
        List<Layer> layers = new ArrayList<>();
        int in = config.deepestChannels();
        layers.add(Convolution.same("decoder.conv_in", config.latentChannels(), in, 3));
        addMiddle(layers, "decoder.mid_block", config);
        for (int level = 0; level < channels.size(); level++) {
            String block = "decoder.up_blocks." + level;
            int out = channels.get(channels.size() - 1 - level);
            addResiduals(layers, block, config.layersPerBlock() + 1, in, out, config);
            if (level < channels.size() - 1) {
                layers.add(new Upsample(block + ".upsamplers.0", out));
            }
            in = out;
        }
        addHead(layers, "decoder", in, 3, config);
        return List.copyOf(layers);
    }

    private static void addResiduals(List<Layer> layers, String block, int count, int in, int out, VaeConfig config) {
        for (int i = 0; i < count; i++) {
            layers.add(new Residual(block + ".resnets." + i, i == 0 ? in : out, out, config.normGroups()));
        }
    }

    private static void addMiddle(List<Layer> layers, String block, VaeConfig config) {
        int channels = config.deepestChannels();
        layers.add(new Residual(block + ".resnets.0", channels, channels, config.normGroups()));
        if (config.midAttention()) {
            layers.add(new SelfAttention(block + ".attentions.0", channels, config.normGroups()));
        }
        layers.add(new Residual(block + ".resnets.1", channels, channels, config.normGroups()));
    }

    private static void addHead(List<Layer> layers, String part, int in, int out, VaeConfig config) {
        layers.add(new Activated(
                new Normalization(part + ".conv_norm_out", in, config.normGroups()),
                Convolution.same(part + ".conv_out", in, out, 3)));
    }
}
