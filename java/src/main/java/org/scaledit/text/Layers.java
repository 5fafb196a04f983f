package org.scaledit.text;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.SoftmaxAttention;
import org.scaledit.tensor.Tensors;

/** The weights of an encoder by name, and the layers that both encoders are built from. */
final class Layers implements AutoCloseable {
    private final Contents contents;
    private final Weights weights;
    private final boolean inParts;

    private Layers(Contents contents, Weights weights, boolean inParts) {
        this.contents = contents;
        this.weights = weights;
        this.inParts = inParts;
    }

    /**
     * What {@code folder/model.safetensors} or its shards must hold.
     *
     * @param shapes of all tensors
     * @param unused shapes of tensors that a file may have beside them
     */
    record Contents(Path folder, Map<String, long[]> shapes, Map<String, long[]> unused) {
        /** @throws CheckpointException that names a tensor which is missing, left over, or of another shape */
        void check() {
            open().close();
        }

        private Safetensors open() {
            Safetensors source = Safetensors.openModel(folder, "model");
            Map<String, long[]> expected = new LinkedHashMap<>(shapes);
            unused.forEach((name, shape) -> {
                if (source.contains(name)) {
                    expected.put(name, shape);
                }
            });
            Weights.check(source, expected);
            return source;
        }
    }

    /**
     * Opens what {@code contents} names; a weight is read when it is first used.
     *
     * @param inParts whether the weights of a {@link #part} are freed after it
     * @throws CheckpointException as {@link Contents#check} throws it
     */
    static Layers open(Contents contents, Placement placement, boolean inParts) {
        return new Layers(contents, Weights.of(contents.open(), placement), inParts);
    }

    /** The same with weights that are there already and belong to others. */
    static Layers of(Contents contents, Map<String, Tensor> given, Placement placement) {
        return new Layers(contents, Weights.of(given, placement), false);
    }

    /** What a part of the encoder computes with these layers; the tensor is in the caller's scope. */
    Tensor part(Function<Layers, Tensor> compute) {
        if (!inParts) {
            return compute.apply(this);
        }
        try (Layers part = new Layers(contents, weights.apart(), false)) {
            return compute.apply(part);
        }
    }

    Placement placement() {
        return weights.placement();
    }

    Tensor weight(String name) {
        return optionalWeight(name).orElseThrow(() -> new IllegalArgumentException("no weight " + name));
    }

    private Optional<Tensor> optionalWeight(String name) {
        return Optional.ofNullable(contents.shapes.get(name)).map(shape -> weights.load(name, shape));
    }

    /** The rows of a table [entries, width] that {@code ids} name: those of each text, [texts, ids, width]. */
    Tensor embedding(long[][] ids, String name) {
        return Tensors.scoped(
                () -> embedding(Arrays.stream(ids).flatMapToLong(Arrays::stream).toArray(), name)
                        .unflatten(0, ids.length, -1));
    }

    /** Likewise, [ids, width]. */
    Tensor embedding(long[] ids, String name) {
        return Tensors.scoped(() -> {
            Tensor table = weight(name + ".weight");
            long largest = Arrays.stream(ids).max().orElse(0);
            // Out of range is an exception on the CPU, but the end of the process's CUDA context on a GPU.
            if (largest >= table.size(0)) {
                throw new CheckpointException("the tokenizer gives token " + largest + ", but " + name + ".weight in "
                        + contents.folder + " has only " + table.size(0) + " rows");
            }
            Tensor rows = placement().with(torch.ScalarType.Long).send(Tensors.of(ids, ids.length));
            return torch.embedding(table, rows);
        });
    }

    /** […, in] → […, out] */
    Tensor linear(Tensor input, String name) {
        return Tensors.scoped(() -> {
            Optional<Tensor> bias = optionalWeight(name + ".bias");
            return torch.linear(
                    input, weight(name + ".weight"), bias.map(Tensors::optional).orElseGet(Tensors::none));
        });
    }

    Tensor layerNorm(Tensor input, String name, double epsilon) {
        return Tensors.scoped(() -> torch.layer_norm(
                input,
                new long[] {input.size(-1)},
                Tensors.optional(weight(name + ".weight")),
                Tensors.optional(weight(name + ".bias")),
                epsilon,
                false));
    }

    /**
     * softmax(scale · query · keyᵀ + bias) · value for each head.
     *
     * @param query [texts, tokens, heads · size], as are key and value
     * @param bias [1, heads, tokens, tokens]
     * @return [texts, tokens, heads · size]
     */
    static Tensor attention(
            Tensor query, Tensor key, Tensor value, int heads, TensorOptional bias, boolean causal, double scale) {
        return Tensors.scoped(() -> {
            Tensor queries = perHead(query, heads);
            Tensor keys = perHead(key, heads);
            Tensor values = perHead(value, heads);
            // A bias in training needs its gradient, which not every fused kernel of torch has.
            boolean trained = bias.has_value() && bias.get().requires_grad();
            Tensor attended = trained
                    ? attention(queries, keys, values, bias.get(), scale)
                    : SoftmaxAttention.attend(queries, keys, values, bias, causal, new DoubleOptional(scale));
            return attended.transpose(1, 2).flatten(2, 3);
        });
    }

    /** [texts, heads, tokens, size] each → the same */
    private static Tensor attention(Tensor queries, Tensor keys, Tensor values, Tensor bias, double scale) {
        Tensor scores =
                queries.matmul(keys.transpose(2, 3)).mul(new Scalar(scale)).add(bias);
        return torch.softmax(scores, -1, new ScalarTypeOptional(torch.ScalarType.Float))
                .to(values.scalar_type())
                .matmul(values);
    }

    /** [texts, tokens, heads · size] → [texts, heads, tokens, size] */
    private static Tensor perHead(Tensor input, int heads) {
        return input.unflatten(2, heads, -1).transpose(1, 2);
    }

    @Override
    public void close() {
        weights.close();
    }
}
