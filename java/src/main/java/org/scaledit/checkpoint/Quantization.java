package org.scaledit.checkpoint;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.file.Reasons;
import org.scaledit.file.UnfinishedFolder;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;

/**
 * Writes a model's directory once more with its matrices in INT8, about a quarter of the size of float32. Every tensor of
 * numbers with two axes or more gets a scale for each row ({@link Int8Rows}). Biases and norms become float16, which has
 * three bits more than bfloat16, and stay float32 where one of them is beyond its range.
 */
public final class Quantization {
    private static final String SAFETENSORS = ".safetensors";

    /** The largest number of float16. */
    private static final double LARGEST_FLOAT16 = 65504;

    /**
     * What became of the weights of a part.
     *
     * @param relativeError the L2 norm of what they were changed by over their own
     * @param beyondFloat16 the names of biases and norms that are in float32
     */
    public record Part(
            String name, long bytesBefore, long bytesAfter, double relativeError, List<String> beyondFloat16) {}

    private final String part;
    private final Safetensors source;
    private final List<Safetensors> sources; // whose mean is written: the source, and others with the same tensors
    private final Map<String, Dtype> formats = new LinkedHashMap<>();
    private final List<String> beyondFloat16 = new ArrayList<>();
    private double squaredError;
    private double squaredNorm;

    private Quantization(String part, List<Safetensors> sources) {
        this.part = part;
        this.source = sources.get(0);
        this.sources = sources;
    }

    /**
     * Writes the folder, which appears when it is whole. LoRAs beside the parts are written likewise, their metadata with them;
     * other safetensors files that are no part's are left out. Tokenizers, configurations and what else is no safetensors file
     * are copied.
     *
     * <p>Of several models it writes the mean of their weights. Of models that were trained from the same one, further on
     * different samples or in different ways, it is often better than each of them (model soups, arXiv 2203.05482).
     *
     * @param models one or more, with the same tensors and tokenizers; all but the parts' weights is the first one's
     * @param output must not exist
     * @param done hears of each part
     * @throws CheckpointException in one sentence, if a model is not whole, if they do not go together or the folder cannot be
     *     written
     * @throws CancellationException if the thread is interrupted
     */
    public static void write(List<Path> models, Path output, Consumer<Part> done) {
        Torch.load();
        Path model = models.get(0);
        List<ModelDirectory> directories =
                models.stream().map(ModelDirectory::open).toList();
        try (UnfinishedFolder unfinished = new UnfinishedFolder(output)) {
            for (Path other : models.subList(1, models.size())) {
                requireSameTokenizers(model, other);
            }
            unfinished.copy(
                    model.toRealPath(), file -> !isWeights(file.getFileName().toString()));
            for (String part : ModelDirectory.weighted()) {
                throwIfInterrupted();
                directories.get(0).config(part); // or nobody could load it
                Path file = unfinished.path().resolve(part).resolve(ModelDirectory.weightsFile(part));
                done.accept(writeMean(part, directories, file));
            }
            for (Path file : beside(model.toRealPath())) {
                throwIfInterrupted();
                try (Safetensors source = Safetensors.open(file)) {
                    if (source.names().stream().allMatch(LoraNames::isKey)) {
                        String name = file.getFileName().toString();
                        Path copy = unfinished.path().resolve(name);
                        done.accept(new Quantization(name, List.of(source)).write(copy, source.metadata()));
                    }
                }
            }
            unfinished.commit();
        } catch (IOException e) {
            throwIfInterrupted(); // an interrupt closes the file that is being written
            throw new CheckpointException("cannot write " + output + ": " + Reasons.of(e), e);
        }
    }

    private static Part writeMean(String part, List<ModelDirectory> models, Path file) throws IOException {
        List<Safetensors> sources = new ArrayList<>();
        try {
            for (ModelDirectory model : models) {
                sources.add(model.weights(part));
            }
            for (int other = 1; other < models.size(); other++) {
                requireTensors(
                        sources.get(0), sources.get(other), models.get(other).part(part));
                requireTensors(sources.get(other), sources.get(0), models.get(0).part(part));
            }
            return new Quantization(part, sources).write(file, Map.of("format", "pt"));
        } finally {
            sources.forEach(Safetensors::close);
        }
    }

    /** @param folder of what is given */
    private static void requireTensors(Safetensors expected, Safetensors given, Path folder) {
        for (String name : expected.names()) {
            TensorInfo info = expected.info(name);
            if (!given.names().contains(name)) {
                throw new CheckpointException(
                        "tensor " + name + " is missing in " + folder + ", expected as in " + info.file());
            }
            if (!given.info(name).shape().equals(info.shape())) {
                throw new CheckpointException("tensor " + name + " in "
                        + given.info(name).file() + " has shape "
                        + given.info(name).shape() + ", expected "
                        + info.shape() + " as in " + info.file());
            }
        }
    }

    /** Or rows of embeddings would stand for other words. */
    private static void requireSameTokenizers(Path model, Path other) throws IOException {
        for (String tokenizer : List.of("tokenizer", "tokenizer_2")) {
            for (Path file : UnfinishedFolder.files(model.resolve(tokenizer))) {
                Path same = other.resolve(model.relativize(file));
                if (!Files.exists(same) || Files.mismatch(file, same) >= 0) {
                    throw new CheckpointException(
                            same + " is not the same as " + file + ", expected models with the same tokenizers");
                }
            }
        }
    }

    private static void throwIfInterrupted() {
        if (Thread.interrupted()) {
            throw new CancellationException("quantising was cancelled");
        }
    }

    private static boolean isWeights(String file) {
        return file.endsWith(SAFETENSORS) || file.endsWith(".safetensors.index.json");
    }

    /** Weights beside the parts: LoRAs, or what nobody loads, as a full download has the same model in one file, too. */
    private static List<Path> beside(Path model) throws IOException {
        return UnfinishedFolder.files(model).stream()
                .filter(file -> file.getFileName().toString().endsWith(SAFETENSORS) && model.equals(file.getParent()))
                .toList();
    }

    private Part write(Path file, Map<String, String> metadata) throws IOException {
        source.names().forEach(name -> formats.put(name, format(name)));
        Map<String, Declaration> contents = new LinkedHashMap<>();
        formats.forEach((name, format) -> {
            long[] shape = source.info(name).dimensions();
            contents.put(name, Declaration.of(format, shape));
            if (isMatrix(name)) {
                contents.put(Int8Rows.scalesOf(name), Declaration.of(Dtype.F32, shape[0], 1));
            }
        });
        try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, metadata)) {
            source.names().forEach(name -> Tensors.run(() -> write(writer, name)));
            writer.commit();
        }
        return new Part(
                part,
                source.bytes(),
                Files.size(file),
                squaredNorm == 0 ? 0 : Math.sqrt(squaredError / squaredNorm),
                beyondFloat16);
    }

    private Dtype format(String name) {
        if (!isNumbers(name)) {
            return source.info(name).dtype();
        }
        if (isMatrix(name)) {
            return Dtype.I8;
        }
        boolean within = Tensors.compute(
                () -> weight(name).abs().le(new Scalar(LARGEST_FLOAT16)).all().item_bool());
        if (!within) {
            beyondFloat16.add(name);
        }
        return within ? Dtype.F16 : Dtype.F32;
    }

    /** Unlike the numbers of positions that CLIP's file may have. */
    private boolean isNumbers(String name) {
        return source.isQuantised(name) || source.info(name).dtype().isFloating();
    }

    private boolean isMatrix(String name) {
        return isNumbers(name) && source.info(name).shape().size() >= 2;
    }

    private void write(SafetensorsWriter writer, String name) {
        throwIfInterrupted();
        if (!isNumbers(name)) {
            writer.write(name, source.tensor(name));
            return;
        }
        Tensor weight = weight(name);
        if (!isMatrix(name)) {
            writer.write(name, weight);
            note(weight, weight.to(formats.getOrDefault(name, Dtype.F32).scalarType()));
            return;
        }
        Int8Rows quantised = Int8Rows.of(weight);
        writer.write(name, quantised.values());
        writer.write(Int8Rows.scalesOf(name), quantised.scales());
        note(weight, quantised.plain());
    }

    /** The mean, float32. */
    private Tensor weight(String name) {
        return Tensors.scoped(() -> {
            Tensor mean = finite(source, name);
            for (int count = 1; count < sources.size(); count++) {
                mean = torch.lerp(mean, finite(sources.get(count), name), new Scalar(1.0 / (count + 1)));
            }
            return mean;
        });
    }

    private static Tensor finite(Safetensors from, String name) {
        Tensor weight = Tensors.toFloat32(from.tensor(name));
        if (!weight.isfinite().all().item_bool()) {
            throw new CheckpointException("tensor " + name + " in "
                    + from.info(name).file() + " has a number that is not finite, and cannot be quantised");
        }
        return weight;
    }

    private void note(Tensor weight, Tensor written) {
        squaredError += squares(weight.sub(Tensors.toFloat32(written)));
        squaredNorm += squares(weight);
    }

    private static double squares(Tensor tensor) {
        return tensor.to(torch.ScalarType.Double).square().sum().item_double();
    }
}
