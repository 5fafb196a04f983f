package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.scenes.Sightings;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.TrainedTransformer;

/**
 * What a transformer in training learns besides (see {@link ModelRecipe.Recognition}): two linear layers read the normed hidden
 * state of each token. They are weights of the training and no part of the model.
 */
final class Recognition {
    /** Before the names of its weights among others. */
    static final String PREFIX = "recognition.";

    private static final String OBJECT = "object";
    private static final String PART = "part";
    private static final double EPSILON = 1e-6;
    private static final long SUM = 2; // of torch's reductions

    private final ModelRecipe.Recognition recipe;
    private final Map<String, Tensor> weights;
    private final Placement placement;

    /** @param weights leaves, by the names of {@link #expectedTensors} */
    Recognition(ModelRecipe.Recognition recipe, Map<String, Tensor> weights, Placement placement) {
        this.recipe = recipe;
        this.weights = weights;
        this.placement = placement;
    }

    /** @param width of the transformer */
    static Map<String, long[]> expectedTensors(long width) {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        put(shapes, OBJECT, Sightings.background(SceneSource.VOCABULARY) + 1, width);
        put(shapes, PART, Sightings.PARTS, width);
        return shapes;
    }

    private static void put(Map<String, long[]> shapes, String layer, long classes, long width) {
        shapes.put(layer + ".weight", new long[] {classes, width});
        shapes.put(layer + ".bias", new long[] {classes});
    }

    /**
     * What pictures show, on the CPU.
     *
     * @param objects as in {@link Sightings}: [batch, tokens], int64
     * @param parts likewise
     */
    record Shown(Tensor objects, Tensor parts) implements AutoCloseable {

        /**
         * Of some samples of one size, of {@code cells · cells} tokens each.
         *
         * @param placement where they will be needed
         */
        static Shown of(SampleSource source, int[] samples, int cells, Placement placement) {
            int tokens = cells * cells;
            long[] objects = new long[samples.length * tokens];
            long[] parts = new long[samples.length * tokens];
            for (int i = 0; i < samples.length; i++) {
                Sightings sightings = source.sightings(samples[i], cells).orElseThrow();
                System.arraycopy(sightings.objects(), 0, objects, i * tokens, tokens);
                System.arraycopy(sightings.parts(), 0, parts, i * tokens, tokens);
            }
            return new Shown(
                    Tensors.outlive(() -> placement.atHand(Tensors.of(objects, samples.length, tokens))),
                    Tensors.outlive(() -> placement.atHand(Tensors.of(parts, samples.length, tokens))));
        }

        @Override
        public void close() {
            objects.close();
            parts.close();
        }
    }

    /**
     * Both layers' cross-entropy, times the recipe's weight.
     *
     * @param share that the loss is multiplied by as well
     * @param listener gets it without either
     */
    TrainedTransformer.HiddenLoss hiddenLoss(Shown shown, double share, Consumer<Tensor> listener) {
        return new TrainedTransformer.HiddenLoss(
                recipe.block(),
                hidden -> Tensors.scoped(() -> {
                    Tensor normed = torch.layer_norm(
                            hidden, new long[] {hidden.size(2)}, Tensors.none(), Tensors.none(), EPSILON, true);
                    Tensor missed = missed(normed, OBJECT, shown.objects).add(missed(normed, PART, shown.parts));
                    listener.accept(missed);
                    return missed.mul(new Scalar(recipe.weight() * share));
                }));
    }

    /** @param normed [batch, tokens, width] */
    private Tensor missed(Tensor normed, String layer, Tensor classes) {
        Tensor logits =
                torch.linear(normed, weights.get(layer + ".weight"), new TensorOptional(weights.get(layer + ".bias")));
        Tensor known = onDevice(classes).flatten();
        Tensor sum = torch.cross_entropy_loss(
                Tensors.toFloat32(logits).flatten(0, 1), known, Tensors.none(), SUM, Sightings.NO_PART, 0);
        return sum.div(known.ne(new Scalar(Sightings.NO_PART)).sum().clamp_min(new Scalar(1))); // there may be no part
    }

    /**
     * The mean over tokens, of which those with an object count more, the less noise there is.
     *
     * @param squares [batch, tokens]
     * @param sigmas noise levels: [batch], float32 on the CPU
     */
    Tensor emphasised(Tensor squares, Tensor sigmas, Shown shown) {
        return Tensors.scoped(() -> {
            Tensor object = Tensors.toFloat32(
                    onDevice(shown.objects).ne(new Scalar(Sightings.background(SceneSource.VOCABULARY))));
            Tensor more = placement
                    .with(torch.ScalarType.Float)
                    .place(sigmas)
                    .unsqueeze(1) // [batch, 1]
                    .neg()
                    .add(new Scalar(1))
                    .square()
                    .mul(new Scalar(recipe.emphasis() - 1));
            Tensor share = object.mul(more).add(new Scalar(1));
            return squares.mul(share).sum().div(share.sum());
        });
    }

    private Tensor onDevice(Tensor classes) {
        return placement.with(torch.ScalarType.Long).place(classes);
    }
}
