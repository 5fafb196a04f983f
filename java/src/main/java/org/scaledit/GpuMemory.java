package org.scaledit;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.scaledit.ScaleDit.Precision;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;

/**
 * How much of a GPU's memory pictures take, by count, in bytes: with native attention in INT8. java/NOTES.md has the sums
 * of a step, and what was measured.
 *
 * @param config of the transformer
 * @param textEncoders parameters of both
 * @param textPart parameters of the largest part of them that is loaded by itself where memory is low
 * @param fp8 whether the GPU multiplies FP8
 */
record GpuMemory(FluxConfig config, long textEncoders, long textPart, boolean fp8) {
    private static final long MIB = 1L << 20;
    private static final double GIB = 1L << 30;

    private static final long CHUNK = 8448; // tokens in an MLP at a time
    private static final long CUBLAS = 32 * MIB;

    /** What the VAE takes at most, weights included, and from which number of pixels on: a tile's. */
    private static final long VAE = 1536 * MIB;

    private static final long TILE = 1024 * 1024;

    /** Sizes that are proposed are multiples of it. */
    private static final int STEP = 64;

    private static final Pattern BLOCK =
            Pattern.compile("(?:(?:single_)?transformer_blocks|encoder\\.block)\\.\\d+\\.");
    private static final String MODULATION = ".linear.weight";

    private static final String LOW = "--memory low";

    /**
     * What a model is loaded with as far as memory depends on it.
     *
     * @param low whether the transformer's blocks stay on the host
     */
    record Setting(Precision precision, boolean low) {
        /** Other settings that may take less, the simplest first. */
        private List<Setting> others() {
            return Stream.of(
                            new Setting(Precision.FP8, low),
                            new Setting(precision, true),
                            new Setting(Precision.FP8, true))
                    .filter(other -> !other.equals(this))
                    .distinct()
                    .toList();
        }

        /** The options that turn another one into this. */
        private String options(Setting other) {
            return Stream.of(
                            precision == other.precision ? "" : "--precision " + Settings.name(precision),
                            low == other.low ? "" : LOW)
                    .filter(option -> !option.isEmpty())
                    .collect(Collectors.joining(" "));
        }
    }

    /**
     * A picture that did not fit.
     *
     * @param grid of its largest level
     * @param negative whether there is a negative text, too
     * @param headGroups into how many groups attention's heads are cut, of which one is computed at a time
     * @param loaded whether the model's weights are still in the GPU's memory
     */
    record Picture(
            TokenGrid grid,
            int textTokens,
            boolean negative,
            AttentionWindow window,
            Setting setting,
            int headGroups,
            boolean loaded) {
        private Picture of(TokenGrid other) {
            return new Picture(other, textTokens, negative, window, setting, headGroups, loaded);
        }

        private Picture with(Setting other) {
            return new Picture(grid, textTokens, negative, window, other, headGroups, loaded);
        }
    }

    static GpuMemory of(ModelDirectory directory, FluxConfig config) {
        Map<String, Long> clip = parameters(directory, "text_encoder", name -> "");
        Map<String, Long> t5 =
                parameters(directory, "text_encoder_2", name -> block(name).isEmpty() ? name : block(name));
        return new GpuMemory(config, sum(clip) + sum(t5), Math.max(largest(clip), largest(t5)), MatrixProduct.hasFp8());
    }

    /** Of each part, by the name of the part to which a tensor belongs. */
    private static Map<String, Long> parameters(
            ModelDirectory directory, String encoder, UnaryOperator<String> partOf) {
        try (Safetensors file = directory.weights(encoder)) {
            return file.names().stream()
                    .collect(Collectors.groupingBy(
                            partOf,
                            Collectors.summingLong(
                                    name -> elements(file.info(name).dimensions()))));
        }
    }

    private static long sum(Map<String, Long> parts) {
        return parts.values().stream().mapToLong(Long::longValue).sum();
    }

    private static long largest(Map<String, Long> parts) {
        return parts.values().stream().mapToLong(Long::longValue).max().orElse(0);
    }

    private static long elements(long[] shape) {
        return Arrays.stream(shape).reduce(1, Math::multiplyExact);
    }

    /** The transformer's weights. */
    long weights(Setting setting) {
        Map<String, Long> blocks = FluxTransformer.expectedTensors(config).entrySet().stream()
                .collect(Collectors.groupingBy(
                        entry -> block(entry.getKey()),
                        Collectors.summingLong(entry -> bytes(entry.getKey(), entry.getValue(), setting.precision))));
        long all = sum(blocks);
        if (!setting.low) {
            return all;
        }
        long outside = Optional.ofNullable(blocks.remove("")).orElse(0L);
        long smallest =
                blocks.values().stream().mapToLong(Long::longValue).min().orElse(0);
        // While one block computes, the next one comes; of an odd number the last, a single one, has a place alone.
        return Math.min(all, outside + 2 * largest(blocks) + blocks.size() % 2 * smallest);
    }

    /** "transformer_blocks.3."; empty for what belongs to none. */
    private static String block(String name) {
        Matcher block = BLOCK.matcher(name);
        return block.lookingAt() ? block.group() : "";
    }

    private static long bytes(String name, long[] shape, Precision precision) {
        boolean quantised =
                precision == Precision.FP8 && shape.length == 2 && !block(name).isEmpty() && !name.endsWith(MODULATION);
        return quantised ? elements(shape) + Float.BYTES * shape[0] : elements(shape) * bytes(precision);
    }

    /** Of a number that is not quantised. */
    private static int bytes(Precision precision) {
        return precision == Precision.FLOAT32 ? 4 : 2;
    }

    /** The most that a step holds above the weights. */
    long aboveWeights(Picture picture) {
        long precise = bytes(picture.setting.precision);
        boolean fp8 = picture.setting.precision == Precision.FP8;
        long width = config.width();
        long image = picture.grid.tokens();
        int ratio = picture.window.ratio();
        long guidance = ratio == 0 ? 0 : picture.grid.guidance(ratio).tokens();
        long others = picture.textTokens + guidance;
        long tokens = image + others;

        long state = precise * width * tokens;
        long modulated = fp8 ? width * tokens : state;
        long projected = 3 * state / picture.headGroups;
        // INT8, INT8 and FP8 with two scales a token and head; what the splits of the rows that see everything sum up.
        long packed = ((3 * width + 8L * config.heads()) * tokens + 4L * (width + 2L * config.heads()) * others)
                / picture.headGroups;
        long chunk = Math.min(tokens, CHUNK);
        long inMlp = fp8
                ? (precise * config.mlpWidth() + width + config.mlpWidth()) * chunk
                : precise * (config.mlpWidth() + 2 * width) * chunk;
        long blocks = config.doubleBlocks() + config.singleBlocks();
        // Keys and values in INT8, of each text.
        long texts = picture.negative ? 2 : 1;
        long kept = picture.window.guidanceSeesText() ? 0 : texts * 2 * width * guidance * blocks;
        long rotation = 4L * config.headDim() * tokens;
        // Latents, and the velocity of each text.
        long latents = (1 + texts) * Float.BYTES * config.latentChannels() * image;
        long embedded = precise * width * (texts * picture.textTokens + guidance);
        return 2 * state
                + modulated
                + packed
                + Math.max(projected, inMlp)
                + rotation
                + embedded
                + latents
                + kept
                + CUBLAS;
    }

    /** The most that a picture takes on its way from text to pixels, with the weights. */
    long bytes(Picture picture) {
        return bytes(picture, weights(picture.setting));
    }

    private long bytes(Picture picture, long weights) {
        long text = (picture.setting.low ? textPart : textEncoders) * bytes(picture.setting.precision);
        long pixels = (long) picture.grid.pixelWidth() * picture.grid.pixelHeight();
        long vae = VAE * Math.min(TILE, pixels) / TILE;
        // The text encoders are gone before the first picture's transformer is loaded; the next picture's come beside
        // it.
        return Math.max(picture.loaded ? weights + text : text, weights + Math.max(aboveWeights(picture), vae));
    }

    /**
     * What to say of a picture that the memory was too small for: what it takes, what there is, and what would fit.
     *
     * @param memory as it is when the failed picture's is free again
     */
    String sentence(Picture picture, Cuda.Memory memory) {
        long available = memory.free() + (picture.loaded ? weights(picture.setting) : 0);
        List<String> fitting = new ArrayList<>();
        largest(picture, available).ifPresent(side -> fitting.add("up to " + side + " × " + side + " pixels"));
        fitting.addAll(alternatives(picture, available));
        return String.format(
                Locale.ROOT,
                "out of GPU memory: %d × %d pixels in %s%s take about %.2f GiB, and of the GPU's %.2f GiB %.2f are free for"
                        + " them; %s",
                picture.grid.pixelWidth(),
                picture.grid.pixelHeight(),
                Settings.name(picture.setting.precision),
                picture.setting.low ? " with " + LOW : "",
                bytes(picture) / GIB,
                memory.total() / GIB,
                available / GIB,
                fitting.isEmpty()
                        ? "no smaller size would fit either"
                        : "what would fit: " + String.join(", or ", fitting));
    }

    /** The side of the largest smaller square that fits as it is. */
    private OptionalInt largest(Picture picture, long available) {
        // Where the count is wrong and the picture should have fitted, half of it is a safe proposal.
        long tokens = bytes(picture) <= available ? picture.grid.tokens() / 2 : picture.grid.tokens() - 1;
        long weights = weights(picture.setting);
        int most = (int) Math.sqrt(tokens) * TokenGrid.PIXELS_PER_TOKEN / STEP;
        return IntStream.rangeClosed(1, most)
                .map(i -> (most + 1 - i) * STEP)
                .filter(side -> bytes(picture.of(TokenGrid.ofPixels(side, side)), weights) <= available)
                .findFirst();
    }

    /** Settings with which the same size fits; what fits with one option is not named with two. */
    private List<String> alternatives(Picture picture, long available) {
        List<String> fitting = picture.setting.others().stream()
                .filter(other -> fp8 || other.precision != Precision.FP8)
                .filter(other -> bytes(picture.with(other)) <= Math.min(available, bytes(picture) - 1))
                .map(other -> other.options(picture.setting))
                .toList();
        return fitting.stream()
                .filter(options ->
                        fitting.stream().noneMatch(other -> !other.equals(options) && options.contains(other)))
                .map(options -> "the same size with " + options)
                .toList();
    }
}
