package org.scaledit.judge;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.checkpoint.Weights;
import org.scaledit.image.OutputFile;
import org.scaledit.image.Resize;
import org.scaledit.scenes.SceneObject;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.vae.Layer;

/** A trained detector, and how often it is right: a folder with {@code config.json} and {@code model.safetensors}. */
public final class Judge implements AutoCloseable {
    private static final String CONFIG = "config.json";
    private static final String WEIGHTS = "model";
    private static final ObjectMapper JSON = new ObjectMapper();

    /**
     * How often it is right about true renders.
     *
     * @param usual about combinations that models are trained with
     * @param heldOut about those that are held out
     */
    public record Accuracy(Shares usual, Shares heldOut) {}

    private final DetectorConfig config;
    private final Accuracy accuracy;
    private final Weights weights;
    private final Detector detector;

    private Judge(DetectorConfig config, Accuracy accuracy, Weights weights, Placement placement) {
        this.config = config;
        this.accuracy = accuracy;
        this.weights = weights;
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        config.expectedTensors().forEach((name, shape) -> tensors.put(name, Layer.laidOut(weights.load(name, shape))));
        this.detector = new Detector(config, tensors, placement);
    }

    /**
     * Reads a judge.
     *
     * @throws CheckpointException in one sentence, if a file is missing or wrong
     */
    public static Judge open(Path folder, Placement placement) {
        Config json = Config.read(folder.resolve(CONFIG));
        DetectorConfig config = DetectorConfig.read(json, vocabulary(json));
        Config accuracy = json.object("accuracy");
        Accuracy read = new Accuracy(Shares.read(accuracy.object("usual")), Shares.read(accuracy.object("held_out")));
        Weights weights = Weights.of(Safetensors.openModel(folder, WEIGHTS), placement);
        try {
            return new Judge(config, read, weights, placement);
        } catch (RuntimeException e) {
            weights.close();
            throw e;
        }
    }

    private static Vocabulary vocabulary(Config json) {
        Map<String, SceneObject> known = new LinkedHashMap<>();
        Vocabulary.standard().objects().forEach(object -> known.put(object.icon(), object));
        List<String> icons = json.texts("objects");
        json.require(icons.size() >= Vocabulary.FEWEST, "objects", icons, Vocabulary.FEWEST + " or more");
        Set<String> before = new HashSet<>();
        icons.forEach(icon -> {
            json.require(known.containsKey(icon), "objects", icon, "objects of scenes alone");
            json.require(before.add(icon), "objects", icon + " twice", "each of them once");
        });
        return new Vocabulary(icons.stream().map(known::get).toList());
    }

    /**
     * Writes a judge; the configuration last.
     *
     * @param folder exists
     */
    public static void write(Path folder, DetectorConfig config, Map<String, Tensor> weights, Accuracy accuracy) {
        SafetensorsWriter.write(folder.resolve(WEIGHTS + ".safetensors"), weights, Map.of("format", "pt"));
        ObjectNode json = JSON.createObjectNode();
        json.put("size", config.size());
        config.channels().forEach(json.putArray("channels")::add);
        json.put("layers", config.layers());
        json.put("groups", config.groups());
        config.vocabulary()
                .objects()
                .forEach(object -> json.withArray("objects").add(object.icon()));
        accuracy.usual.write(json.putObject("accuracy").putObject("usual"));
        accuracy.heldOut.write(json.withObject("/accuracy").putObject("held_out"));
        OutputFile.replace(
                folder.resolve(CONFIG), stream -> stream.write((pretty(json) + "\n").getBytes(StandardCharsets.UTF_8)));
    }

    private static String pretty(ObjectNode json) throws IOException {
        return JSON.writerWithDefaultPrettyPrinter().writeValueAsString(json);
    }

    /** Pixels along each side of what it looks at. Larger pictures are shrunk to that. */
    public int size() {
        return config.size();
    }

    /** The objects that it tells apart. */
    public Vocabulary vocabulary() {
        return config.vocabulary();
    }

    public Accuracy accuracy() {
        return accuracy;
    }

    /**
     * What is in a picture, the surest first.
     *
     * @param picture {@code [3, height, width]}, −1 … 1, on the CPU
     * @throws IllegalArgumentException if it is smaller than what the judge looks at
     */
    public List<Detection> detect(Tensor picture) {
        int size = config.size();
        if (picture.size(1) < size || picture.size(2) < size) {
            throw new IllegalArgumentException("the picture has " + picture.size(2) + " × " + picture.size(1)
                    + " pixels, expected at least " + size + " × " + size + ", which the judge looks at");
        }
        return Tensors.compute(() ->
                detector.detect(Resize.area(picture, size, size).unsqueeze(0)).get(0));
    }

    @Override
    public void close() {
        weights.close();
    }
}
