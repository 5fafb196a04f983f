package org.scaledit.checkpoint;

import java.nio.file.Path;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.LoraNames.Role;
import org.scaledit.checkpoint.LoraNames.Target;
import org.scaledit.tensor.Tensors;

/**
 * A low-rank addition to a FLUX transformer: {@code scale · up · down} is added to the weight of each module that it
 * names.
 *
 * @param file where it came from
 * @param layers by the module's name in diffusers, such as {@code transformer_blocks.0.attn.to_q}
 */
public record Lora(Path file, Map<String, Layer> layers) implements AutoCloseable {
    /**
     * The addition to one module, in float32 on the CPU.
     *
     * @param down [rank, in]
     * @param up [out, rank]
     * @param scale alpha / rank
     */
    public record Layer(Tensor down, Tensor up, double scale) {
        public long rank() {
            return down.size(0);
        }

        private Layer kept() {
            return new Layer(Tensors.keep(down), Tensors.keep(up), scale);
        }
    }

    /**
     * Reads a LoRA as diffusers, PEFT, kohya, ComfyUI, Black Forest Labs or XLabs spell it.
     *
     * @throws CheckpointException if the file is damaged, or a key is of no known form or lacks its counterpart
     */
    public static Lora load(Path file) {
        try (Safetensors source = Safetensors.open(file)) {
            return new Lora(file, Tensors.compute(() -> layers(source)));
        }
    }

    private static Map<String, Layer> layers(Safetensors source) {
        LoraScale common = LoraScale.of(source);
        Map<String, Layer> layers = new TreeMap<>();
        keysByName(source)
                .forEach((name, keys) -> layers(source, keys, target(source, name, keys), common)
                        .forEach((module, layer) -> {
                            if (layers.put(module, layer) != null) {
                                throw new CheckpointException(source.path() + " has two layers for " + module);
                            }
                        }));
        if (layers.isEmpty()) {
            throw new CheckpointException(source.path() + " is no LoRA: it has no tensors");
        }
        layers.replaceAll((module, layer) -> layer.kept());
        return layers;
    }

    private static Target target(Safetensors source, String name, Map<Role, String> keys) {
        return LoraNames.target(name)
                .orElseThrow(() -> new CheckpointException(
                        "key " + keys.values().iterator().next() + " in " + source.path()
                                + " names no module of FLUX in any known form"));
    }

    /** For each name that the file has for a module: the keys of its matrices and its alpha. */
    private static Map<String, Map<Role, String>> keysByName(Safetensors source) {
        Map<String, Map<Role, String>> keys = new LinkedHashMap<>();
        for (String key : source.names()) {
            LoraNames.Key parsed = LoraNames.key(key, source.path());
            String other = keys.computeIfAbsent(parsed.name(), name -> new EnumMap<>(Role.class))
                    .put(parsed.role(), key);
            if (other != null) {
                throw new CheckpointException(
                        source.path() + " has " + other + " and " + key + ", expected one of them");
            }
        }
        return keys;
    }

    /** The layers of the modules that {@code name} stands for: those of a fused layer share its down matrix. */
    private static Map<String, Layer> layers(
            Safetensors source, Map<Role, String> keys, Target target, LoraScale common) {
        Tensor down = matrix(source, keys, Role.DOWN); // [rank, in]
        Tensor up = matrix(source, keys, Role.UP); // [out, rank]
        requireRank(source, keys, down, up);
        if (target.halvesSwapped()) {
            up = Tensors.concatenate(0, up.chunk(2, 0).get(1), up.chunk(2, 0).get(0));
        }
        Map<String, Layer> layers = new LinkedHashMap<>();
        long row = 0;
        for (String module : target.modules()) {
            long rows = rows(module, target, up.size(0), down.size(1));
            if (rows < 1 || row + rows > up.size(0)) {
                throw cannotSplit(source, keys, target, up);
            }
            double scale = scale(source, keys, common, module, down.size(0));
            layers.put(module, new Layer(down, up.narrow(0, row, rows), scale));
            row += rows;
        }
        if (row != up.size(0)) {
            throw cannotSplit(source, keys, target, up);
        }
        return layers;
    }

    /** The queries, keys and values of a fused layer are as wide as its input, its MLP is what remains. */
    private static long rows(String module, Target target, long out, long in) {
        if (target.modules().size() == 1) {
            return out;
        }
        return module.endsWith(".proj_mlp") ? out - 3 * in : in;
    }

    private static Tensor matrix(Safetensors source, Map<Role, String> keys, Role role) {
        String key = keys.get(role);
        if (key == null) {
            throw new CheckpointException("key " + keys.values().iterator().next() + " in " + source.path()
                    + " has no counterpart: a LoRA layer is a pair of matrices, down (A) and up (B)");
        }
        Tensor matrix = source.tensor(key);
        if (matrix.dim() != 2) {
            throw new CheckpointException("tensor " + key + " in " + source.path() + " has shape "
                    + Tensors.shape(matrix) + ", expected a matrix");
        }
        return matrix.to(torch.ScalarType.Float);
    }

    private static double scale(
            Safetensors source, Map<Role, String> keys, LoraScale common, String module, long rank) {
        String key = keys.get(Role.ALPHA);
        if (key == null) {
            return common.of(module, rank);
        }
        Tensor alpha = source.tensor(key);
        if (alpha.numel() != 1) {
            throw new CheckpointException("tensor " + key + " in " + source.path() + " has shape "
                    + Tensors.shape(alpha) + ", expected one number");
        }
        return alpha.item_double() / rank;
    }

    private static void requireRank(Safetensors source, Map<Role, String> keys, Tensor down, Tensor up) {
        if (down.size(0) == 0 || down.size(0) != up.size(1)) {
            throw new CheckpointException("tensors " + keys.get(Role.DOWN) + " and " + keys.get(Role.UP) + " in "
                    + source.path() + " have shapes " + Tensors.shape(down) + " and " + Tensors.shape(up)
                    + ", expected [rank, in] and [out, rank]");
        }
    }

    private static CheckpointException cannotSplit(
            Safetensors source, Map<Role, String> keys, Target target, Tensor up) {
        return new CheckpointException("tensor " + keys.get(Role.UP) + " in " + source.path() + " has shape "
                + Tensors.shape(up) + ", which does not divide into " + String.join(", ", target.modules()));
    }

    /** Frees the matrices. */
    @Override
    public void close() {
        for (Layer layer : layers.values()) {
            layer.down.close();
            layer.up.close();
        }
    }
}
