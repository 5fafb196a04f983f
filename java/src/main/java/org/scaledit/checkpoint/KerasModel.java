package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.file.Reasons;
import org.scaledit.tensor.Tensors;

/**
 * A Keras model as TensorFlow.js writes it, quantised to 8 bits: {@code model.json} with the layers and a manifest of the
 * weights, which lie one after the other in the files that the manifest names.
 */
public final class KerasModel {
    /**
     * A layer that is called once.
     *
     * @param kind Keras's name of its class
     * @param inputs the names of the layers whose outputs it takes; each is an earlier one
     */
    public record Layer(String name, String kind, List<String> inputs, Config config) {}

    /** Where a weight begins in the bytes, each of which is a number of {@code scale} above {@code min}. */
    private record Weight(List<Integer> shape, int offset, double scale, double min) {
        int count() {
            return shape.stream().reduce(1, Math::multiplyExact);
        }
    }

    private final Path file;
    private final List<Layer> layers;
    private final Map<String, Weight> weights = new HashMap<>();
    private final byte[] bytes;

    private KerasModel(Path folder, Config json) {
        this.file = json.file();
        Config model = json.object("modelTopology").object("model_config");
        model.require("class_name", "Model");
        this.layers = layers(model.object("config"));
        ByteArrayOutputStream read = new ByteArrayOutputStream();
        int end = 0;
        for (Config group : json.objects("weightsManifest")) {
            group.texts("paths").forEach(path -> read.writeBytes(contents(folder.resolve(path))));
            for (Config entry : group.objects("weights")) {
                Config quantization = entry.object("quantization");
                quantization.require("dtype", "uint8");
                Weight weight = new Weight(
                        entry.integers("shape"), end, quantization.number("scale"), quantization.number("min"));
                weights.put(entry.text("name"), weight);
                end = Math.addExact(end, weight.count());
            }
        }
        this.bytes = read.toByteArray();
        if (bytes.length != end) {
            throw new CheckpointException(
                    "the weights of " + file + " have " + bytes.length + " bytes, expected " + end);
        }
    }

    /** @throws CheckpointException in one sentence, if a file is missing or wrong */
    public static KerasModel read(Path folder) {
        return new KerasModel(folder, Config.read(folder.resolve("model.json")));
    }

    private static List<Layer> layers(Config config) {
        List<Layer> layers = new ArrayList<>();
        Set<String> known = new HashSet<>();
        for (Config layer : config.objects("layers")) {
            List<String> inputs = Config.stream(layer.field(
                            "inbound_nodes", "at most one list of [\"layer\", 0, 0, {}]", KerasModel::isCalledOnce))
                    .flatMap(Config::stream)
                    .map(input -> input.get(0).textValue())
                    .toList();
            inputs.forEach(input ->
                    layer.require(known.contains(input), "inbound_nodes", input, "the names of earlier layers"));
            String name = layer.text("name");
            known.add(name);
            layers.add(new Layer(name, layer.text("class_name"), inputs, layer.object("config")));
        }
        return List.copyOf(layers);
    }

    private static boolean isCalledOnce(JsonNode calls) {
        return calls.isArray()
                && calls.size() <= 1
                && Config.stream(calls)
                        .allMatch(call -> call.isArray() && Config.stream(call).allMatch(KerasModel::isOnlyOutput));
    }

    private static boolean isOnlyOutput(JsonNode input) {
        return input.isArray()
                && input.size() == 4
                && input.get(0).isTextual()
                && input.get(1).asInt(-1) == 0
                && input.get(2).asInt(-1) == 0
                && input.get(3).isEmpty();
    }

    private static byte[] contents(Path file) {
        try {
            return Files.readAllBytes(file);
        } catch (IOException e) {
            throw new CheckpointException("cannot read weights " + file + ": " + Reasons.of(e), e);
        }
    }

    /** In an order in which they can be computed. */
    public List<Layer> layers() {
        return layers;
    }

    /** For messages. */
    public Path file() {
        return file;
    }

    /**
     * A weight in float32, on the CPU.
     *
     * @throws CheckpointException if there is none, or it has another shape
     */
    public Tensor weight(String name, Integer... shape) {
        Weight weight = weights.get(name);
        if (weight == null) {
            throw new CheckpointException(file + " has no weight " + name);
        }
        List<Integer> expected = Arrays.asList(shape);
        if (!weight.shape.equals(expected)) {
            throw new CheckpointException(
                    "weight " + name + " of " + file + " has shape " + weight.shape + ", expected " + expected);
        }
        return Tensors.scoped(() -> {
            long[] sizes = weight.shape.stream().mapToLong(Integer::longValue).toArray();
            Tensor quantized = torch.empty(sizes, new TensorOptions(torch.ScalarType.Byte), null);
            new BytePointer(quantized.data_ptr()).put(bytes, weight.offset, weight.count());
            Tensor exact = quantized
                    .to(torch.ScalarType.Double)
                    .mul(new Scalar(weight.scale))
                    .add(new Scalar(weight.min));
            return Tensors.toFloat32(exact);
        });
    }
}
