package org.scaledit.training;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * All that a training needs to go on as if it had not been stopped: the matrices, the optimizer's state, how many steps
 * were made, and of what. One safetensors file, which replaces the one before it when it is whole.
 */
final class TrainingCheckpoint implements AutoCloseable {
    /** In an origin: the hash of the model, which says nothing to a reader. */
    static final String MODEL = "model";

    /** Likewise of all pictures and captions. */
    static final String DATA = "data";

    private static final String STEPS = "steps";
    private static final String PARAMETER = "parameter.";
    private static final String OPTIMIZER = "optimizer.";

    private final Safetensors source;
    private final long steps;

    private TrainingCheckpoint(Safetensors source, long steps) {
        this.source = source;
        this.steps = steps;
    }

    /**
     * What must be the same when a training goes on.
     *
     * @param settings of the recipe that decide about it
     * @param fingerprint of the data
     */
    static Map<String, String> origin(Map<String, String> settings, Placement placement, String fingerprint) {
        Map<String, String> origin = new LinkedHashMap<>(settings);
        origin.put("precision", placement.dtype() == torch.ScalarType.Float ? "float32" : "bfloat16");
        origin.put(DATA, fingerprint);
        return origin;
    }

    /**
     * Neither overwrites a training nor resumes one that is not there.
     *
     * @param first the checkpoint that it begins with
     * @param result the folder that comes out
     */
    static void requireStart(Path first, Path result, boolean resume) {
        if (Files.exists(result) && !Files.exists(first)) {
            throw new TrainingException(
                    result + " exists, but no " + first + " to go on from: remove it, or choose another output");
        }
        if (resume && !Files.exists(first)) {
            throw new TrainingException("there is no " + first + " to resume from");
        }
        for (Path file : List.of(first, result)) {
            if (!resume && Files.exists(file)) {
                throw new TrainingException(
                        file + " exists, expected a folder without another training's files: resume that"
                                + " one, or remove it, or choose another output");
            }
        }
    }

    /**
     * Writes the state after so many steps.
     *
     * @param origin what must be the same when it goes on, by names for messages
     * @throws CheckpointException if the file cannot be written; then the one before it is untouched
     */
    static void write(
            Path file, long steps, Map<String, String> origin, Map<String, Tensor> parameters, Optimizer optimizer) {
        Map<String, String> metadata = new LinkedHashMap<>(origin);
        metadata.put(STEPS, String.valueOf(steps));
        SafetensorsWriter.write(file, tensors(parameters, optimizer), metadata);
    }

    private static Map<String, Tensor> tensors(Map<String, Tensor> parameters, Optimizer optimizer) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        parameters.forEach((name, tensor) -> tensors.put(PARAMETER + name, tensor));
        optimizer.state().forEach((name, tensor) -> tensors.put(OPTIMIZER + name, tensor));
        return tensors;
    }

    /** @throws CheckpointException if the file is missing, damaged, or none of a training */
    static TrainingCheckpoint open(Path file) {
        Safetensors source = Safetensors.open(file);
        try {
            return new TrainingCheckpoint(
                    source, Long.parseUnsignedLong(source.metadata().getOrDefault(STEPS, "")));
        } catch (NumberFormatException e) {
            source.close();
            throw new CheckpointException(file + " is no checkpoint of a training", e);
        }
    }

    long steps() {
        return steps;
    }

    /** @throws TrainingException naming the first thing that is not as it was when the checkpoint was written */
    void requireOrigin(Map<String, String> origin) {
        origin.forEach((name, now) -> {
            String then = source.metadata().getOrDefault(name, "none");
            if (!then.equals(now)) {
                throw new TrainingException(
                        switch (name) {
                            case MODEL -> source.path() + " was made with another model";
                            case DATA ->
                                source.path() + " was made with other data: a picture or a caption has been changed, "
                                        + "added or taken away since";
                            default ->
                                source.path() + " was made with " + name + " " + then
                                        + ", expected the same instead of " + now;
                        });
            }
        });
        source.metadata().forEach((name, then) -> { // what is no longer asked for
            if (!name.equals(STEPS) && !origin.containsKey(name)) {
                throw new TrainingException(source.path() + " was made with " + (name + " " + then).strip()
                        + ", expected the same instead of none");
            }
        });
    }

    /** @throws CheckpointException naming a tensor that is missing or of another shape */
    void restore(Map<String, Tensor> parameters, Optimizer optimizer) {
        Tensors.withoutGradients(() -> tensors(parameters, optimizer).forEach((name, tensor) -> {
            if (!Arrays.equals(source.info(name).dimensions(), tensor.shape())) {
                throw new CheckpointException("tensor " + name + " in " + source.path() + " has shape "
                        + source.info(name).shape() + ", expected " + Tensors.shape(tensor));
            }
            Tensors.run(() -> tensor.copy_(source.tensor(name)));
        }));
    }

    @Override
    public void close() {
        source.close();
    }
}
