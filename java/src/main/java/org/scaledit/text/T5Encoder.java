package org.scaledit.text;

import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * The encoder of T5 v1.1 ({@code T5EncoderModel} of transformers), without an attention mask: FLUX attends to the
 * padding.
 */
public final class T5Encoder implements AutoCloseable {
    private static final String PART = "text_encoder_2";
    private static final String EMBEDDING = "shared";
    private static final String FINAL_NORM = "encoder.final_layer_norm.weight";

    /** All blocks use the first one's table. */
    private static final String POSITION_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias";

    /**
     * What {@code config.json} says.
     *
     * @param inner width of queries, keys and values: heads times the size of one
     * @param hidden width of the MLPs
     */
    private record Sizes(int width, int layers, int heads, int inner, int hidden, int vocabulary, double epsilon) {}

    private final Sizes sizes;
    private final RelativePositions positions;
    private final Layers layers;
    private final double scale; // of the scores: 1 but in training, as T5's weights were initialised for that

    private T5Encoder(Sizes sizes, RelativePositions positions, Layers layers, double scale) {
        this.sizes = sizes;
        this.positions = positions;
        this.layers = layers;
        this.scale = scale;
    }

    /**
     * @param inParts loads the weights of one block at a time and frees them after it, for each text anew
     * @throws org.scaledit.checkpoint.CheckpointException if the part is not such a model, or damaged
     */
    public static T5Encoder load(ModelDirectory model, Placement placement, boolean inParts) {
        Config config = model.config(PART);
        Sizes sizes = sizes(config);
        RelativePositions positions = positions(config);
        return new T5Encoder(sizes, positions, Layers.open(contents(model, sizes, positions), placement, inParts), 1);
    }

    /**
     * The encoder of a model's configuration with weights that are there already; they stay the caller's.
     *
     * @param trained whether they are {@link TrainedQueries}
     */
    static T5Encoder of(ModelDirectory model, Map<String, Tensor> weights, Placement placement, boolean trained) {
        Config config = model.config(PART);
        Sizes sizes = sizes(config);
        RelativePositions positions = positions(config);
        return new T5Encoder(
                sizes,
                positions,
                Layers.of(contents(model, sizes, positions), weights, placement),
                trained ? TrainedQueries.scale(sizes.inner / sizes.heads) : 1);
    }

    /** Name and shape of every tensor of a model with this configuration. */
    static Map<String, long[]> expectedTensors(Config config) {
        return tensors(sizes(config), positions(config));
    }

    /** Refuses what {@link #load} would refuse, without reading a weight. */
    static void check(ModelDirectory model) {
        Config config = model.config(PART);
        contents(model, sizes(config), positions(config)).check();
    }

    private static Layers.Contents contents(ModelDirectory model, Sizes sizes, RelativePositions positions) {
        // The embedding again, under its name in the encoder: some files have it twice.
        Map<String, long[]> unused = Map.of("encoder.embed_tokens.weight", new long[] {sizes.vocabulary, sizes.width});
        return new Layers.Contents(model.part(PART), tensors(sizes, positions), unused);
    }

    private static RelativePositions positions(Config config) {
        return new RelativePositions(
                config.integer("relative_attention_num_buckets"),
                config.integer("relative_attention_max_distance", 128));
    }

    private static Sizes sizes(Config config) {
        config.require("feed_forward_proj", "gated-gelu");
        int heads = config.integer("num_heads", 1, Config.MOST_HEADS);
        return new Sizes(
                config.integer("d_model", 1, Config.MOST_WIDTH),
                config.integer("num_layers", 1, Config.MOST_LAYERS),
                heads,
                heads * config.integer("d_kv", 1, Config.MOST_WIDTH),
                config.integer("d_ff", 1, Config.MOST_WIDTH),
                config.integer("vocab_size"),
                config.number("layer_norm_epsilon"));
    }

    private static Map<String, long[]> tensors(Sizes sizes, RelativePositions positions) {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put(EMBEDDING + ".weight", new long[] {sizes.vocabulary, sizes.width});
        shapes.put(POSITION_BIAS + ".weight", new long[] {positions.buckets(), sizes.heads});
        for (int i = 0; i < sizes.layers; i++) {
            shapes.put(attentionLayer(i) + "layer_norm.weight", new long[] {sizes.width});
            shapes.put(attentionLayer(i) + "SelfAttention.q.weight", new long[] {sizes.inner, sizes.width});
            shapes.put(attentionLayer(i) + "SelfAttention.k.weight", new long[] {sizes.inner, sizes.width});
            shapes.put(attentionLayer(i) + "SelfAttention.v.weight", new long[] {sizes.inner, sizes.width});
            shapes.put(attentionLayer(i) + "SelfAttention.o.weight", new long[] {sizes.width, sizes.inner});
            shapes.put(mlpLayer(i) + "layer_norm.weight", new long[] {sizes.width});
            shapes.put(mlpLayer(i) + "DenseReluDense.wi_0.weight", new long[] {sizes.hidden, sizes.width});
            shapes.put(mlpLayer(i) + "DenseReluDense.wi_1.weight", new long[] {sizes.hidden, sizes.width});
            shapes.put(mlpLayer(i) + "DenseReluDense.wo.weight", new long[] {sizes.width, sizes.hidden});
        }
        shapes.put(FINAL_NORM, new long[] {sizes.width});
        return shapes;
    }

    private static String attentionLayer(int block) {
        return "encoder.block." + block + ".layer.0.";
    }

    private static String mlpLayer(int block) {
        return "encoder.block." + block + ".layer.1.";
    }

    /** Width of the output. */
    public int width() {
        return sizes.width;
    }

    /** The output for each of any number of ids, [ids, width]. */
    public Tensor encode(long[] ids) {
        return Tensors.scoped(() -> encode(new long[][] {ids}).select(0, 0));
    }

    /** The same of several texts of one length at once, [texts, ids, width]. */
    Tensor encode(long[][] ids) {
        return Tensors.scoped(() -> {
            Tensor bias = positionBias(ids[0].length); // [1, heads, tokens, tokens]
            Tensor states = layers.part(part -> part.embedding(ids, EMBEDDING)); // [texts, tokens, width]
            for (int i = 0; i < sizes.layers; i++) {
                int block = i;
                Tensor input = states;
                states = layers.part(
                        part -> mlp(part, attention(part, input, bias, attentionLayer(block)), mlpLayer(block)));
            }
            return norm(layers, states, FINAL_NORM);
        });
    }

    /** What is added to each head's scores for the distance from query to key, [1, heads, tokens, tokens]. */
    private Tensor positionBias(int tokens) {
        return Tensors.scoped(() -> layers.embedding(positions.table(tokens), POSITION_BIAS) // [tokens², heads]
                .unflatten(0, tokens, tokens)
                .permute(2, 0, 1)
                .unsqueeze(0)
                .contiguous());
    }

    /** [texts, tokens, width] → the same */
    private Tensor attention(Layers part, Tensor states, Tensor bias, String layer) {
        return Tensors.scoped(() -> {
            Tensor input = norm(part, states, layer + "layer_norm.weight");
            Tensor query = part.linear(input, layer + "SelfAttention.q");
            Tensor key = part.linear(input, layer + "SelfAttention.k");
            Tensor value = part.linear(input, layer + "SelfAttention.v");
            Tensor attended = Layers.attention(query, key, value, sizes.heads, Tensors.optional(bias), false, scale);
            return states.add(part.linear(attended, layer + "SelfAttention.o"));
        });
    }

    /** [texts, tokens, width] → the same */
    private Tensor mlp(Layers part, Tensor states, String layer) {
        return Tensors.scoped(() -> {
            Tensor input = norm(part, states, layer + "layer_norm.weight");
            Tensor gate = torch.gelu(part.linear(input, layer + "DenseReluDense.wi_0"), "tanh");
            Tensor hidden = gate.mul(part.linear(input, layer + "DenseReluDense.wi_1"));
            return states.add(part.linear(hidden, layer + "DenseReluDense.wo"));
        });
    }

    /** Root mean square norm, its statistics in float32 whatever the precision: T5's states reach tens of thousands. */
    private Tensor norm(Layers part, Tensor states, String weight) {
        return Tensors.scoped(() -> {
            Tensor wide = Tensors.toFloat32(states);
            Tensor meanSquare = wide.square().mean(new long[] {-1}, true, new ScalarTypeOptional());
            Tensor normed = wide.mul(meanSquare.add(new Scalar(sizes.epsilon)).rsqrt());
            return normed.to(part.placement().dtype()).mul(part.weight(weight));
        });
    }

    @Override
    public void close() {
        layers.close();
    }
}
