package org.scaledit.transformer;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SortedMap;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Attention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * FLUX.1's transformer (diffusers' {@code FluxTransformer2DModel}) with Scale-DiT's guidance stream: guidance tokens run
 * through the image's weights, conditioned as a clean image, and their output is dropped.
 */
public final class FluxTransformer implements AutoCloseable {
    /** RoPE's base of a plain FLUX pass. */
    public static final double THETA = 10_000;

    /** RoPE's base of the high-resolution pass and of training: NTK factor 10. */
    public static final double NTK_THETA = 10 * THETA;

    /**
     * A third of the heads at a time: at 4096² their queries, keys and values take 411 MiB instead of 1,233, and the
     * packed copies that the core makes of them a third as well. With fewer groups a step would need more than 2 GiB.
     */
    private static final int HEAD_GROUPS = 3;

    /** Training has few tokens, of which half the launches are worth more than their memory. */
    private static final int TRAINED_HEAD_GROUPS = 1;

    /**
     * Ranks that paint together have fewer tokens each, and exchange for each group: while they do for one of two, they compute
     * the other one.
     */
    private static final int SHARED_HEAD_GROUPS = 2;

    private static final Logger LOG = LoggerFactory.getLogger(FluxTransformer.class);

    private final FluxConfig config;
    private final Origin origin;
    private final Adapters adapters;
    private final FluxModel model;
    private final boolean ownsOrigin;

    private FluxTransformer(FluxConfig config, Origin origin, Adapters adapters, boolean ownsOrigin) {
        this.config = config;
        this.origin = origin;
        this.adapters = adapters;
        this.ownsOrigin = ownsOrigin;
        this.model = FluxModel.load(Layers.of(origin.source(), adapters), config);
    }

    /**
     * What transformers of the same weights share.
     *
     * @param host the blocks' weights, if they stay on the host
     */
    private record Origin(Weights weights, boolean fp8, Layers.Source source, Optional<HostBlocks> host)
            implements AutoCloseable {

        static Origin of(FluxConfig config, Weights weights, int headGroups, boolean fp8, boolean low) {
            Layers.Source resident = FluxTransformer.source(weights, headGroups, fp8);
            if (!low) {
                return new Origin(weights, fp8, resident, Optional.empty());
            }
            HostBlocks host = new HostBlocks(
                    weights,
                    apart -> FluxTransformer.source(apart, headGroups, fp8),
                    BlockLayout.of(config, weights.placement().dtype(), fp8, headGroups));
            return new Origin(weights, fp8, host, Optional.of(host));
        }

        @Override
        public void close() {
            host.ifPresent(HostBlocks::close);
            weights.close();
        }
    }

    private static Layers.Source source(Weights weights, int headGroups, boolean fp8) {
        return new Layers.Source() {
            @Override
            public Tensor tensor(String name, long... shape) {
                return weights.load(name, shape);
            }

            @Override
            public Tensor stacked(List<String> names, int part, int parts, long... shape) {
                return weights.loadStacked(names, part, parts, shape);
            }

            @Override
            public Matrix weights(List<String> names, int part, int parts, long... shape) {
                if (fp8) {
                    return weights.loadQuantised(names, part, parts, shape);
                }
                boolean whole = names.size() == 1 && parts == 1;
                return Matrix.of(whole ? tensor(names.get(0), shape) : stacked(names, part, parts, shape));
            }

            @Override
            public int headGroups() {
                return headGroups;
            }
        };
    }

    /**
     * Loads a model's transformer to where it shall live. A weight on the CPU in its stored precision is read from the
     * file when it is first used.
     *
     * @throws CheckpointException naming the first tensor that is missing, left over or of another shape, or the value
     *     of the config that is not supported
     */
    public static FluxTransformer load(ModelDirectory directory, Placement placement) {
        return load(directory, placement, false);
    }

    /**
     * The same with a choice for the blocks' products of all tokens: those of queries, keys, values, attention's output
     * and the MLPs.
     *
     * @param fp8 computes them in FP8 (e4m3) with a scale for each token and each output channel. The embedders, the layers
     *     for modulation and the last one stay in the placement's precision, which must be bfloat16 on a GPU.
     * @throws UnsupportedOperationException if the GPU does not multiply FP8
     */
    public static FluxTransformer load(ModelDirectory directory, Placement placement, boolean fp8) {
        return load(directory, placement, fp8, false);
    }

    /**
     * The same with a choice for the blocks' weights.
     *
     * @param low keeps them in the host's memory, as they are computed with and locked, all of them read now. They come to
     *     the GPU at each step, a block ahead of the computation, whose results are the same. It cannot be trained.
     * @throws IllegalArgumentException in one sentence, if the placement is no GPU
     * @throws IllegalStateException likewise, if the host cannot lock so much memory
     */
    public static FluxTransformer load(ModelDirectory directory, Placement placement, boolean fp8, boolean low) {
        FluxConfig config = FluxConfig.of(directory.config("transformer"));
        return load(config, Weights.of(directory.weights("transformer"), placement), fp8, low);
    }

    /**
     * The same for one of several ranks that paint a picture together: of the same results, with heads in as many groups as
     * suit that.
     */
    public static FluxTransformer loadForRanks(ModelDirectory directory, Placement placement, boolean fp8, int ranks) {
        FluxConfig config = FluxConfig.of(directory.config("transformer"));
        Weights weights = Weights.of(directory.weights("transformer"), placement);
        return load(config, weights, headGroups(placement, ranks), fp8);
    }

    /** Into how many groups heads are cut, of which one is computed at a time, for tokens that so many ranks share; 0 on a CPU: none. */
    public static int headGroups(Placement placement, int ranks) {
        int onGpu = ranks == 1 ? HEAD_GROUPS : SHARED_HEAD_GROUPS;
        return placement.cuda() ? onGpu : 0;
    }

    /** The same for {@link #withTrainedLora}: of the same results, quicker for few tokens, and larger for many. */
    public static FluxTransformer loadForTraining(ModelDirectory directory, Placement placement) {
        FluxConfig config = FluxConfig.of(directory.config("transformer"));
        return loadForTraining(config, Weights.of(directory.weights("transformer"), placement));
    }

    private static FluxTransformer loadForTraining(FluxConfig config, Weights weights) {
        return load(config, weights, weights.placement().cuda() ? TRAINED_HEAD_GROUPS : 0, false);
    }

    /**
     * Refuses what {@link #load} and {@link #withLoras} would refuse, without reading a weight.
     *
     * @return the sizes of the directory's transformer
     * @throws CheckpointException as they throw it
     */
    public static FluxConfig check(ModelDirectory directory, List<ScaledLora> loras, LoraScope scope) {
        FluxConfig config = FluxConfig.of(directory.config("transformer"));
        try (Safetensors source = directory.weights("transformer");
                Adapters adapters = new Adapters(loras, scope, Placement.FLOAT32_CPU)) {
            Weights.check(source, expectedTensors(config, adapters));
            adapters.requireAllAsked();
        }
        return config;
    }

    /** A transformer of these weights, which it owns from now on. */
    static FluxTransformer load(FluxConfig config, Weights weights, boolean fp8) {
        return load(config, weights, fp8, false);
    }

    /** The same, with the blocks' weights on the host or not. */
    static FluxTransformer load(FluxConfig config, Weights weights, boolean fp8, boolean low) {
        return load(config, weights, headGroups(weights.placement(), 1), fp8, low);
    }

    /**
     * Makes sure that the blocks' weights can stay on the host.
     *
     * @throws IllegalArgumentException in one sentence, if what computes is no GPU
     */
    public static void requireLowMemory(boolean cuda) {
        if (!cuda) {
            throw new IllegalArgumentException("memory low is for a GPU alone, expected device cuda");
        }
    }

    /**
     * Makes sure that products in FP8 can be computed there.
     *
     * @throws IllegalArgumentException in one sentence, if the placement is not bfloat16 on a GPU
     * @throws UnsupportedOperationException likewise, if the GPU does not multiply FP8
     */
    public static void requireFp8(Placement placement) {
        if (!placement.cuda() || placement.dtype() != torch.ScalarType.BFloat16) {
            throw new IllegalArgumentException("precision fp8 is for bfloat16 on a GPU alone");
        }
        MatrixProduct.requireFp8(1);
    }

    /**
     * The same with a choice of its own.
     *
     * @param headGroups into how many groups of heads, at most, projections are cut, each one product; with 0, as on a CPU,
     *     the layers for queries, keys and values stay apart and can stay in the memory-mapped file
     * @param fp8 whether the blocks' products of all tokens are in FP8, quantised here, once
     */
    static FluxTransformer load(FluxConfig config, Weights weights, int headGroups, boolean fp8) {
        return load(config, weights, headGroups, fp8, false);
    }

    private static FluxTransformer load(FluxConfig config, Weights weights, int headGroups, boolean fp8, boolean low) {
        Origin origin;
        try {
            if (fp8) {
                requireFp8(weights.placement());
            }
            if (low) {
                requireLowMemory(weights.placement().cuda());
            }
            origin = Origin.of(config, weights, headGroups, fp8, low);
        } catch (RuntimeException | Error e) {
            weights.close();
            throw e;
        }
        try {
            return new FluxTransformer(config, origin, Adapters.none(), true);
        } catch (RuntimeException | Error e) {
            origin.close();
            throw e;
        }
    }

    /** A transformer of random weights, made where they live: to measure speed with. */
    public static FluxTransformer random(FluxConfig config, Placement placement, boolean fp8) {
        return random(config, placement, fp8, false);
    }

    /** The same, with the blocks' weights on the host or not. */
    public static FluxTransformer random(FluxConfig config, Placement placement, boolean fp8, boolean low) {
        return load(config, Weights.random(placement), fp8, low);
    }

    /** The same as {@link #loadForRanks}. */
    public static FluxTransformer randomForRanks(FluxConfig config, Placement placement, boolean fp8, int ranks) {
        return load(config, Weights.random(placement), headGroups(placement, ranks), fp8);
    }

    /** The same as {@link #loadForTraining}. */
    public static FluxTransformer randomForTraining(FluxConfig config, Placement placement) {
        return loadForTraining(config, Weights.random(placement));
    }

    /** Name and shape of every tensor of a checkpoint, by diffusers' names. */
    public static Map<String, long[]> expectedTensors(FluxConfig config) {
        return expectedTensors(config, Adapters.none());
    }

    private static Map<String, long[]> expectedTensors(FluxConfig config, Adapters adapters) {
        Map<String, long[]> expected = new LinkedHashMap<>();
        Tensors.run(() -> {
            Tensor absent = new Tensor();
            Layers.Source recorder = new Layers.Source() {
                @Override
                public Tensor tensor(String name, long... shape) {
                    expected.put(name, shape);
                    return absent;
                }

                @Override
                public Tensor stacked(List<String> names, int part, int parts, long... shape) {
                    names.forEach(name -> expected.put(name, shape));
                    return absent;
                }

                @Override
                public Matrix weights(List<String> names, int part, int parts, long... shape) {
                    return Matrix.of(stacked(names, part, parts, shape));
                }

                @Override
                public int headGroups() {
                    return 0;
                }
            };
            FluxModel.load(Layers.of(recorder, adapters), config);
        });
        return expected;
    }

    /**
     * The same transformer under LoRAs. It shares this one's weights and is of no use after this one is closed; closing
     * it frees the LoRAs' matrices alone.
     *
     * @throws CheckpointException naming a LoRA's layer that the model does not have or that has another shape
     */
    public FluxTransformer withLoras(List<ScaledLora> loras, LoraScope scope) {
        Adapters adapters = new Adapters(loras, scope, placement());
        try {
            FluxTransformer adapted = new FluxTransformer(config, origin, adapters, false);
            adapters.requireAllAsked();
            adapters.warnings().forEach(LOG::warn);
            return adapted;
        } catch (RuntimeException | Error e) {
            adapters.close();
            throw e;
        }
    }

    /**
     * The same transformer under a LoRA in training, which begins as a copy of the one given. It shares this one's
     * weights and is of no use after this one is closed; closing it frees the copy.
     *
     * @throws CheckpointException naming a layer of the LoRA that the model does not have, that has another shape, or
     *     that has no effect under the scope
     * @throws IllegalStateException if the blocks' weights stay on the host: on the way back they are needed again
     */
    public FluxTransformer withTrainedLora(Lora lora, LoraScope scope) {
        if (origin.host.isPresent()) {
            throw new IllegalStateException(
                    "a LoRA is trained with all weights in the GPU's memory, expected memory normal");
        }
        Adapters adapters = Adapters.training(lora, scope, placement());
        try {
            FluxTransformer adapted = new FluxTransformer(config, origin, adapters, false);
            adapters.requireAllAsked();
            if (!adapters.warnings().isEmpty()) {
                throw new CheckpointException(adapters.warnings().get(0));
            }
            return adapted;
        } catch (RuntimeException | Error e) {
            adapters.close();
            throw e;
        }
    }

    /**
     * The matrices in training by their module's name, in the order of these names, float32: leaves of torch's autograd, to
     * be changed in place. They stay this transformer's.
     */
    public SortedMap<String, Lora.Layer> trainedLayers() {
        return adapters.trained();
    }

    /** One sentence for each layer of a LoRA that can have no effect under its scope. */
    public List<String> loraWarnings() {
        return adapters.warnings();
    }

    public FluxConfig config() {
        return config;
    }

    public Placement placement() {
        return origin.weights.placement();
    }

    /** The bytes that its weights take up where it computes. */
    public long weightBytes() {
        return origin.weights.loadedBytes()
                + origin.host.map(HostBlocks::placeBytes).orElse(0L);
    }

    /** What stays the same over the steps of a plain FLUX picture; see {@link #denoiser} with guidance latents. */
    public Denoiser denoiser(
            TokenLayout layout,
            Attention attention,
            double theta,
            Tensor textStates,
            Tensor pooledText,
            double guidance) {
        return new Denoiser(this, layout, attention, theta, textStates, pooledText, guidance, Optional.empty());
    }

    /**
     * What stays the same over the steps of a picture.
     *
     * @param layout how tokens lie in memory; the attention must be made for it
     * @param attention stays the caller's
     * @param theta RoPE's base: {@link #THETA} or {@link #NTK_THETA}
     * @param textStates T5's, {@code [T, joint width]}
     * @param pooledText CLIP's, {@code [pooled width]}
     * @param guidance the distilled guidance scale, as users know it (3.5); not looked at by a model without guidance
     *     embedder
     * @param guidanceLatents packed, clean, in the layout's order: {@code [w·h, 64]}
     */
    public Denoiser denoiser(
            TokenLayout layout,
            Attention attention,
            double theta,
            Tensor textStates,
            Tensor pooledText,
            double guidance,
            Tensor guidanceLatents) {
        return new Denoiser(
                this, layout, attention, theta, textStates, pooledText, guidance, Optional.of(guidanceLatents));
    }

    /** Whether the blocks' products of all tokens are in FP8. */
    public boolean fp8() {
        return origin.fp8;
    }

    FluxModel model() {
        return model;
    }

    @Override
    public void close() {
        adapters.close();
        if (ownsOrigin) {
            origin.close();
        }
    }
}
