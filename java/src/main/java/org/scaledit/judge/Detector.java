package org.scaledit.judge;

import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.vae.Layer;

/** The network of a detector, trained or in training. */
public final class Detector {
    private final DetectorConfig config;
    private final Map<String, Tensor> weights;
    private final Placement placement;
    private final List<Layer> layers;

    /** @param weights by name, where the placement says and in its precision; they stay the caller's */
    public Detector(DetectorConfig config, Map<String, Tensor> weights, Placement placement) {
        this.config = config;
        this.weights = weights;
        this.placement = placement;
        this.layers = config.network();
    }

    /** What it says of pictures, with the graph of its gradients; in the caller's scope. */
    public Predictions predict(Tensor pictures) { // [batch, 3, size, size], −1 … 1
        return new Predictions(
                Tensors.scoped(() -> Tensors.toFloat32(Layer.run(layers, weights, placement.place(pictures)))));
    }

    /** What is in each of the pictures. */
    public List<List<Detection>> detect(Tensor pictures) { // [batch, 3, size, size], −1 … 1
        int count = (int) pictures.size(0);
        Decoder decoder = new Decoder(config);
        float[][] values = new float[count][];
        Tensors.withoutGradients(() -> Tensors.run(() -> {
            Tensor all = predict(pictures).all();
            for (int i = 0; i < count; i++) {
                values[i] = Tensors.floats(all.select(0, i));
            }
        }));
        return List.of(values).stream().map(decoder::detections).toList();
    }

    /**
     * Of every cell, float32.
     *
     * @param all {@code [batch, outputs, grid, grid]}
     */
    public record Predictions(Tensor all) {

        /** Logits, whether a cell is in the middle of an object: {@code [batch, grid, grid]} */
        public Tensor presence() {
            return all.select(1, 0);
        }

        /** Logarithms of the distances from the cell's middle to the left, top, right and bottom edge of its object. */
        public Tensor edges() { // [batch, 4, grid, grid]
            return all.narrow(1, DetectorConfig.EDGES, 4);
        }

        /** Logits of its colour, in {@link org.scaledit.scenes.Colour}'s order; the last is for its own colours. */
        public Tensor colours() { // [batch, 9, grid, grid]
            return all.narrow(1, DetectorConfig.COLOURS, DetectorConfig.COLOUR_CLASSES);
        }

        /** Logits of the vocabulary's objects. */
        public Tensor objects() { // [batch, objects, grid, grid]
            return all.narrow(1, DetectorConfig.OBJECTS, all.size(1) - DetectorConfig.OBJECTS);
        }
    }
}
