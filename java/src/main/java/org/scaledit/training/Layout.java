package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.scenes.Sightings;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * What a T5 encoder in training learns besides (see {@link ModelRecipe.Layout}): a query for each cell of a grid over the picture
 * reads the caption's normed states by attention, and a linear layer says from that which object the cell shows. They are weights
 * of the training and no part of the model.
 */
final class Layout {
    /** Before the names of its weights among others. */
    static final String PREFIX = "layout.";

    private static final String QUERY = "query.weight";
    private static final String KEY = "key.weight";
    private static final String VALUE = "value.weight";
    private static final String OBJECT = "object";
    private static final double EPSILON = 1e-6;

    private final ModelRecipe.Layout recipe;
    private final int heads;
    private final Map<String, Tensor> weights;
    private final Placement placement;

    /**
     * @param heads of its attention, by which T5's width can be divided
     * @param weights leaves, by the names of {@link #expectedTensors}
     */
    Layout(ModelRecipe.Layout recipe, int heads, Map<String, Tensor> weights, Placement placement) {
        this.recipe = recipe;
        this.heads = heads;
        this.weights = weights;
        this.placement = placement;
    }

    /** @param width of T5 */
    static Map<String, long[]> expectedTensors(ModelRecipe.Layout recipe, long width) {
        long classes = Sightings.background(SceneSource.VOCABULARY) + 1;
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put(QUERY, new long[] {(long) recipe.cells() * recipe.cells(), width});
        shapes.put(KEY, new long[] {width, width});
        shapes.put(VALUE, new long[] {width, width});
        shapes.put(OBJECT + ".weight", new long[] {classes, width});
        shapes.put(OBJECT + ".bias", new long[] {classes});
        return shapes;
    }

    /** Of its {@link #loss} in the training's. */
    double weight() {
        return recipe.weight();
    }

    /**
     * The cells' mean cross-entropy: a scalar in float32.
     *
     * @param states T5's: [batch, tokens, width]
     * @param objects what is in each cell, as in {@link Sightings}: [batch, cells · cells], int64
     */
    Tensor loss(Tensor states, Tensor objects) {
        return Tensors.scoped(() -> {
            Tensor normed = normed(placement.place(states));
            Tensor queries = heads(Objects.requireNonNull(weights.get(QUERY)).unsqueeze(0));
            Tensor read = torch.matmul(
                            torch.softmax(
                                    torch.matmul(
                                            queries, heads(linear(normed, KEY)).transpose(-2, -1)),
                                    -1),
                            heads(linear(normed, VALUE))) // [batch, heads, cells, width of a head]
                    .transpose(1, 2)
                    .flatten(2, -1);
            Tensor logits = torch.linear(
                    normed(read), weights.get(OBJECT + ".weight"), new TensorOptional(weights.get(OBJECT + ".bias")));
            Tensor known = placement.with(torch.ScalarType.Long).place(objects).flatten();
            return torch.cross_entropy_loss(Tensors.toFloat32(logits).flatten(0, 1), known);
        });
    }

    private Tensor linear(Tensor tensor, String layer) {
        return torch.linear(tensor, weights.get(layer), Tensors.none());
    }

    private static Tensor normed(Tensor tensor) {
        return torch.layer_norm(tensor, new long[] {tensor.size(-1)}, Tensors.none(), Tensors.none(), EPSILON, true);
    }

    /** [batch, rows, width] as [batch, heads, rows, width of a head] */
    private Tensor heads(Tensor tensor) {
        return tensor.unflatten(-1, heads, -1).transpose(1, 2);
    }
}
