package org.scaledit.testing;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.Arrays;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.file.UnfinishedFolder;
import org.scaledit.tensor.Tensors;

/** A case of the reference data: what it is (JSON) and its numbers (safetensors). */
public final class Golden implements AutoCloseable {
    private static final ObjectMapper JSON = new ObjectMapper();

    private final JsonNode json;
    private final Safetensors tensors;

    private Golden(JsonNode json, Safetensors tensors) {
        this.json = json;
        this.tensors = tensors;
    }

    /** Opens a case such as {@code "scaledit/forward_37x29r4"}. */
    public static Golden open(String name) {
        return new Golden(json(name), Safetensors.open(path("golden/" + name + ".safetensors")));
    }

    /** The description of a case, for cases that have no tensors. */
    public static JsonNode json(String name) {
        try {
            return JSON.readTree(path("golden/" + name + ".json").toFile());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    public JsonNode json() {
        return json;
    }

    public boolean contains(String tensor) {
        return tensors.contains(tensor);
    }

    /** A tensor as it is stored. */
    public Tensor tensor(String name) {
        return tensors.tensor(name);
    }

    /** A tensor as float32: what is stored as bfloat16 are exact float32 values. */
    public Tensor float32(String name) {
        return Tensors.scoped(() -> tensors.tensor(name).to(torch.ScalarType.Float));
    }

    /** The largest |a − b|, infinite when either has a value that is not a number. */
    public static float maxAbsoluteDifference(Tensor a, Tensor b) {
        requireSameShape(a, b);
        return Tensors.compute(() -> {
            float difference = float64(a).sub(float64(b)).abs().max().item_float();
            return Float.isNaN(difference) ? Float.POSITIVE_INFINITY : difference;
        });
    }

    /** |a − b| / |b|, infinite when either has a value that is not a number. */
    public static double relativeL2(Tensor a, Tensor b) {
        requireSameShape(a, b);
        return Tensors.compute(() -> {
            double ratio = float64(a).sub(float64(b)).norm().item_double()
                    / float64(b).norm().item_double();
            return Double.isNaN(ratio) ? Double.POSITIVE_INFINITY : ratio;
        });
    }

    public static Path tinyFlux() {
        return path("tiny-flux");
    }

    /** The tiny model once more, to be changed. */
    public static Path copyOfTinyFlux(Path folder) {
        try (UnfinishedFolder copy = new UnfinishedFolder(folder)) {
            copy.copy(tinyFlux(), file -> true);
            copy.commit();
            return folder;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** A file or folder of the fixtures. */
    public static Path path(String name) {
        return Path.of(System.getProperty("scaledit.fixtures", "../fixtures")).resolve(name);
    }

    private static Tensor float64(Tensor tensor) {
        return tensor.cpu().to(torch.ScalarType.Double);
    }

    private static void requireSameShape(Tensor a, Tensor b) {
        if (!Arrays.equals(a.shape(), b.shape())) {
            throw new AssertionError("shapes differ: " + Tensors.shape(a) + " and " + Tensors.shape(b));
        }
    }

    @Override
    public void close() {
        tensors.close();
    }
}
