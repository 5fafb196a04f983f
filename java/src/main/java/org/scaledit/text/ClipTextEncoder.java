package org.scaledit.text;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** CLIP's text model ({@code CLIPTextModel} of transformers), of which FLUX uses the pooled output. */
public final class ClipTextEncoder implements AutoCloseable {
    private static final String PART = "text_encoder";
    private static final String EMBEDDINGS = "text_model.embeddings.";
    private static final String FINAL_NORM = "text_model.final_layer_norm";

    /** Configurations from before this number was corrected say 2, which is no token that ends a text. */
    private static final int LEGACY_END_TOKEN = 2;

    /**
     * What {@code config.json} says.
     *
     * @param tokens how many there are in a text, padding included
     * @param hidden width of the MLPs
     */
    private record Sizes(
            int width, int layers, int heads, int hidden, int tokens, int vocabulary, double epsilon, int endToken) {}

    private final Sizes sizes;
    private final Layers layers;

    private ClipTextEncoder(Sizes sizes, Layers layers) {
        this.sizes = sizes;
        this.layers = layers;
    }

    /** @throws org.scaledit.checkpoint.CheckpointException if the part is not such a model, or damaged */
    public static ClipTextEncoder load(ModelDirectory model, Placement placement) {
        Sizes sizes = sizes(model.config(PART));
        return new ClipTextEncoder(sizes, Layers.open(contents(model, sizes), placement, false));
    }

    /**
     * The encoder of a model's configuration with weights that are there already, such as those in training; they stay the
     * caller's.
     */
    static ClipTextEncoder of(ModelDirectory model, Map<String, Tensor> weights, Placement placement) {
        Sizes sizes = sizes(model.config(PART));
        return new ClipTextEncoder(sizes, Layers.of(contents(model, sizes), weights, placement));
    }

    /** Name and shape of every tensor of a model with this configuration. */
    static Map<String, long[]> expectedTensors(Config config) {
        return tensors(sizes(config));
    }

    /** Refuses what {@link #load} would refuse, without reading a weight. */
    static void check(ModelDirectory model) {
        contents(model, sizes(model.config(PART))).check();
    }

    private static Layers.Contents contents(ModelDirectory model, Sizes sizes) {
        // Older versions of transformers stored the numbers of the positions, too.
        Map<String, long[]> unused = Map.of(EMBEDDINGS + "position_ids", new long[] {1, sizes.tokens});
        return new Layers.Contents(model.part(PART), tensors(sizes), unused);
    }

    private static Sizes sizes(Config config) {
        config.require("hidden_act", "quick_gelu");
        config.requireMultiple("hidden_size", "num_attention_heads");
        return new Sizes(
                config.integer("hidden_size", 1, Config.MOST_WIDTH),
                config.integer("num_hidden_layers", 1, Config.MOST_LAYERS),
                config.integer("num_attention_heads", 1, Config.MOST_HEADS),
                config.integer("intermediate_size", 1, Config.MOST_WIDTH),
                config.integer("max_position_embeddings"),
                config.integer("vocab_size"),
                config.number("layer_norm_eps"),
                config.integer("eos_token_id"));
    }

    private static Map<String, long[]> tensors(Sizes sizes) {
        long width = sizes.width;
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put(EMBEDDINGS + "token_embedding.weight", new long[] {sizes.vocabulary, width});
        shapes.put(EMBEDDINGS + "position_embedding.weight", new long[] {sizes.tokens, width});
        for (int i = 0; i < sizes.layers; i++) {
            putWithBias(shapes, layer(i) + "layer_norm1", width);
            putWithBias(shapes, layer(i) + "self_attn.q_proj", width, width);
            putWithBias(shapes, layer(i) + "self_attn.k_proj", width, width);
            putWithBias(shapes, layer(i) + "self_attn.v_proj", width, width);
            putWithBias(shapes, layer(i) + "self_attn.out_proj", width, width);
            putWithBias(shapes, layer(i) + "layer_norm2", width);
            putWithBias(shapes, layer(i) + "mlp.fc1", sizes.hidden, width);
            putWithBias(shapes, layer(i) + "mlp.fc2", width, sizes.hidden);
        }
        putWithBias(shapes, FINAL_NORM, width);
        return shapes;
    }

    private static void putWithBias(Map<String, long[]> shapes, String name, long... shape) {
        shapes.put(name + ".weight", shape);
        shapes.put(name + ".bias", new long[] {shape[0]});
    }

    private static String layer(int index) {
        return "text_model.encoder.layers." + index + ".";
    }

    /** Width of the output. */
    public int width() {
        return sizes.width;
    }

    /** How many ids {@link #encode} takes. */
    public int tokens() {
        return sizes.tokens;
    }

    /** The output at the end token, [width]. */
    public Tensor encode(long[] ids) {
        return Tensors.scoped(() -> encode(new long[][] {ids}).select(0, 0));
    }

    /** The same of several texts at once, [texts, width]. */
    Tensor encode(long[][] ids) {
        return Tensors.scoped(() -> {
            Tensor states = layers.embedding(ids, EMBEDDINGS + "token_embedding") // [texts, tokens, width]
                    .add(layers.weight(EMBEDDINGS + "position_embedding.weight"));
            for (int i = 0; i < sizes.layers; i++) {
                states = block(states, layer(i));
            }
            Tensor ends = layers.placement().with(torch.ScalarType.Long).send(Tensors.of(endRows(ids), ids.length));
            return layers.layerNorm(states, FINAL_NORM, sizes.epsilon)
                    .flatten(0, 1)
                    .index_select(0, ends);
        });
    }

    /** Where the texts end, among the tokens of all of them. */
    private long[] endRows(long[][] ids) {
        return IntStream.range(0, ids.length)
                .mapToLong(text -> (long) text * sizes.tokens + endPosition(ids[text]))
                .toArray();
    }

    /** [texts, tokens, width] → the same */
    private Tensor block(Tensor states, String layer) {
        return Tensors.scoped(() -> {
            Tensor attended =
                    states.add(attention(layers.layerNorm(states, layer + "layer_norm1", sizes.epsilon), layer));
            return attended.add(mlp(layers.layerNorm(attended, layer + "layer_norm2", sizes.epsilon), layer));
        });
    }

    private Tensor attention(Tensor input, String layer) {
        Tensor query = layers.linear(input, layer + "self_attn.q_proj");
        Tensor key = layers.linear(input, layer + "self_attn.k_proj");
        Tensor value = layers.linear(input, layer + "self_attn.v_proj");
        double scale = 1 / Math.sqrt((double) sizes.width / sizes.heads);
        Tensor attended = Layers.attention(query, key, value, sizes.heads, Tensors.none(), true, scale);
        return layers.linear(attended, layer + "self_attn.out_proj");
    }

    private Tensor mlp(Tensor input, String layer) {
        Tensor hidden = layers.linear(input, layer + "mlp.fc1");
        Tensor gate = hidden.mul(new Scalar(1.702)).sigmoid(); // the "quick" GELU
        return layers.linear(hidden.mul(gate), layer + "mlp.fc2");
    }

    /** Where the text ends: the first end token, as transformers looks for it. */
    private int endPosition(long[] ids) {
        long end = sizes.endToken == LEGACY_END_TOKEN ? Arrays.stream(ids).max().orElseThrow() : sizes.endToken;
        return IntStream.range(0, ids.length)
                .filter(position -> ids[position] == end)
                .findFirst()
                .orElse(0);
    }

    @Override
    public void close() {
        layers.close();
    }
}
