package org.scaledit.inception;

import static org.scaledit.tensor.Tensors.scoped;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.KerasModel;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** The layers of a convolutional Keras model that come before one of them. Keras has channels last, torch first. */
final class KerasNetwork implements AutoCloseable {
    private interface Operation {
        Tensor apply(Tensor[] inputs); // [batch, channels, height, width] each
    }

    /** @param channels of what comes out */
    private record Step(String name, List<String> inputs, int channels, Operation operation) {}

    private final KerasModel model;
    private final Placement placement;
    private final String input;
    private final List<Step> steps = new ArrayList<>();
    private final List<Set<String>> finished; // after each step: outputs that no later one takes
    private final List<Tensor> weights = new ArrayList<>();

    /**
     * The layers of {@code model} as far as the one named {@code end}, without it, on pictures of three channels.
     *
     * @throws CheckpointException in one sentence, if there is no such layer, or one before it cannot be computed
     */
    KerasNetwork(KerasModel model, String end, Placement placement) {
        this.model = model;
        this.placement = placement;
        List<KerasModel.Layer> layers = before(model, end);
        this.input = layers.get(0).name();
        Map<String, Integer> channels = new HashMap<>(Map.of(input, 3));
        try {
            for (KerasModel.Layer layer : layers.subList(1, layers.size())) {
                int in = layer.inputs().stream().mapToInt(channels::get).sum();
                Step step = step(layer, in);
                steps.add(step);
                channels.put(step.name, step.channels);
            }
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
        this.finished = finished(steps);
    }

    private static List<KerasModel.Layer> before(KerasModel model, String end) {
        List<KerasModel.Layer> layers = model.layers().stream()
                .takeWhile(layer -> !layer.name().equals(end))
                .toList();
        if (layers.isEmpty() || layers.size() == model.layers().size()) {
            throw new CheckpointException(model.file() + " has no layer " + end + " behind others");
        }
        String last = layers.get(layers.size() - 1).name();
        List<String> taken = model.layers().get(layers.size()).inputs();
        if (!taken.equals(List.of(last))) {
            throw new CheckpointException(
                    model.file() + " has layer " + end + " with inputs " + taken + ", expected [" + last + "]");
        }
        return layers;
    }

    private static List<Set<String>> finished(List<Step> steps) {
        List<Set<String>> finished = new ArrayList<>();
        Set<String> later = new HashSet<>();
        for (int i = steps.size() - 1; i >= 0; i--) {
            Set<String> last = new HashSet<>(steps.get(i).inputs);
            last.removeAll(later);
            later.addAll(last);
            finished.add(0, last);
        }
        return finished;
    }

    /** What the last of the layers says. */
    Tensor run(Tensor pictures) { // [batch, 3, height, width]
        return scoped(() -> {
            Map<String, Tensor> outputs = new HashMap<>();
            outputs.put(input, new Tensor(pictures));
            Tensor output = pictures;
            for (int i = 0; i < steps.size(); i++) {
                Step step = steps.get(i);
                Tensor[] inputs = step.inputs.stream().map(outputs::get).toArray(Tensor[]::new);
                output = scoped(() -> step.operation.apply(inputs));
                outputs.put(step.name, output);
                finished.get(i)
                        .forEach(name ->
                                Objects.requireNonNull(outputs.remove(name)).close());
            }
            return output;
        });
    }

    private Step step(KerasModel.Layer layer, int in) {
        if (layer.inputs().size() != 1 && !layer.kind().equals("Concatenate")) {
            throw new CheckpointException(
                    model.file() + " has layer " + layer.name() + " with inputs " + layer.inputs() + ", expected one");
        }
        Config config = layer.config();
        return switch (layer.kind()) {
            case "Conv2D" -> convolution(layer, in);
            case "BatchNormalization" -> normalization(layer, in);
            case "Activation" -> {
                config.require("activation", "relu");
                yield step(layer, in, inputs -> torch.relu(inputs[0]));
            }
            case "MaxPooling2D", "AveragePooling2D" -> pooling(layer, in);
            case "Concatenate" -> {
                requireChannelsLast(config);
                yield step(layer, in, inputs -> Tensors.concatenate(1, inputs));
            }
            case "Flatten" -> {
                config.require("data_format", "channels_last");
                yield step(layer, in, inputs -> inputs[0].permute(0, 2, 3, 1).flatten(1, -1));
            }
            default ->
                throw new CheckpointException(model.file() + " has layer " + layer.name() + " of class " + layer.kind()
                        + ", expected Conv2D, BatchNormalization, Activation, MaxPooling2D, AveragePooling2D,"
                        + " Concatenate or Flatten");
        };
    }

    private static Step step(KerasModel.Layer layer, int channels, Operation operation) {
        return new Step(layer.name(), layer.inputs(), channels, operation);
    }

    private Step convolution(KerasModel.Layer layer, int in) {
        Config config = layer.config();
        config.require("data_format", "channels_last");
        config.require("activation", "linear");
        config.require(!config.flag("use_bias"), "use_bias", true, "false");
        List<Integer> dilation = config.integers("dilation_rate");
        config.require(dilation.equals(List.of(1, 1)), "dilation_rate", dilation, "[1, 1]");
        List<Integer> kernel = pair(config, "kernel_size");
        int out = config.integer("filters");
        Tensor weight = weight(layer.name() + "/kernel", kernel.get(0), kernel.get(1), in, out);
        Tensor ours = keep(scoped(() -> weight.permute(3, 2, 0, 1).contiguous())); // [out, in, height, width]
        long[] stride = longs(pair(config, "strides"));
        long[] padding = padding(config, kernel);
        return step(
                layer,
                out,
                inputs -> torch.conv2d(inputs[0], ours, Tensors.none(), stride, padding, new long[] {1, 1}, 1));
    }

    private Step normalization(KerasModel.Layer layer, int channels) {
        Config config = layer.config();
        requireChannelsLast(config);
        config.require(!config.flag("scale"), "scale", true, "false");
        config.require(config.flag("center"), "center", false, "true");
        Tensor mean = weight(layer.name() + "/moving_mean", channels);
        Tensor variance = weight(layer.name() + "/moving_variance", channels);
        Tensor beta = weight(layer.name() + "/beta", channels);
        Scalar epsilon = new Scalar(config.number("epsilon"));
        Tensor scale = keep(scoped(() -> variance.add(epsilon).rsqrt().view(channels, 1, 1)));
        Tensor shift = keep(scoped(
                () -> beta.view(channels, 1, 1).sub(mean.view(channels, 1, 1).mul(scale))));
        return step(layer, channels, inputs -> inputs[0].mul(scale).add_(shift));
    }

    private Step pooling(KerasModel.Layer layer, int channels) {
        Config config = layer.config();
        config.require("data_format", "channels_last");
        List<Integer> window = pair(config, "pool_size");
        long[] size = longs(window);
        long[] stride = longs(pair(config, "strides"));
        long[] padding = padding(config, window);
        Operation largest = inputs -> torch.max_pool2d(inputs[0], size, stride, padding, new long[] {1, 1}, false);
        // A mean is one of the pixels alone, not of what they are padded with.
        Operation mean = inputs -> torch.avg_pool2d(inputs[0], size, stride, padding, false, false, new LongOptional());
        return step(layer, channels, layer.kind().equals("MaxPooling2D") ? largest : mean);
    }

    private static void requireChannelsLast(Config config) {
        config.require(config.integer("axis") == 3, "axis", config.integer("axis"), "3, the channels");
    }

    /** Vertical, horizontal. */
    private static List<Integer> pair(Config config, String field) {
        List<Integer> pair = config.integers(field);
        config.require(pair.size() == 2 && !pair.contains(0), field, pair, "two numbers above 0");
        return pair;
    }

    private static long[] longs(List<Integer> pair) {
        return new long[] {pair.get(0), pair.get(1)};
    }

    /** On either side. TensorFlow's "same" is as much on both where nothing is skipped and the window has a middle. */
    private static long[] padding(Config config, List<Integer> window) {
        config.require("padding", "valid", "same");
        if (config.text("padding").equals("valid")) {
            return new long[] {0, 0};
        }
        boolean even =
                pair(config, "strides").equals(List.of(1, 1)) && window.stream().allMatch(side -> side % 2 == 1);
        config.require(even, "padding", "same", "valid, or strides [1, 1] and an odd window");
        return new long[] {window.get(0) / 2, window.get(1) / 2};
    }

    private Tensor weight(String name, Integer... shape) {
        return placement.place(model.weight(name, shape));
    }

    private Tensor keep(Tensor weight) {
        Tensor kept = Tensors.keep(weight);
        weights.add(kept);
        return kept;
    }

    @Override
    public void close() {
        weights.forEach(Tensor::close);
    }
}
