package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Function;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Upload;

/**
 * The tensors of one safetensors file, or of the shards that an index names. Opening reads and checks the headers
 * alone; a file is mapped into memory when the first of its tensors is asked for, and its pages are read when they
 * are used. What goes to a GPU is read without a map.
 *
 * <p>A tensor in INT8 beside which the file has scales is one of numbers to whoever reads it here: it is given in float32,
 * and its scales are none of the file's tensors.
 */
public final class Safetensors implements AutoCloseable {
    private final Path path;
    private final Map<String, TensorInfo> tensors = new LinkedHashMap<>();
    private final Map<String, TensorInfo> scales = new HashMap<>(); // of tensors in INT8, by their names
    private final Map<String, String> metadata = new LinkedHashMap<>();
    private final Map<Path, Long> fileBytes = new LinkedHashMap<>();
    private final Map<Path, Tensor> maps = new HashMap<>();
    private boolean closed;

    private Safetensors(Path path, Collection<SafetensorsHeader> files) {
        this.path = path;
        for (SafetensorsHeader file : files) {
            tensors.putAll(file.tensors());
            metadata.putAll(file.metadata());
            fileBytes.put(file.file(), file.fileBytes());
        }
        List.copyOf(tensors.values()).stream()
                .filter(info -> info.dtype() == Dtype.I8 && !info.shape().isEmpty())
                .forEach(this::takeScales);
    }

    private void takeScales(TensorInfo values) {
        TensorInfo scale = tensors.remove(Int8Rows.scalesOf(values.name()));
        if (scale == null) {
            return;
        }
        long[] expected = {values.shape().get(0), 1};
        if (scale.dtype() != Dtype.F32 || !scale.hasShape(expected)) {
            throw new CheckpointException("tensor " + scale.name() + " in " + scale.file() + " is " + scale.dtype()
                    + " "
                    + scale.shape() + ", expected F32 " + Arrays.toString(expected) + ", a scale for each row of "
                    + values.name());
        }
        scales.put(values.name(), scale);
    }

    /**
     * @throws CheckpointException if the file is missing, truncated or damaged
     * @throws java.util.concurrent.CancellationException if the thread is interrupted
     */
    public static Safetensors open(Path file) {
        return new Safetensors(file, List.of(SafetensorsHeader.read(file)));
    }

    /**
     * Opens the shards that {@code directory/stem.safetensors.index.json} names, or else {@code
     * directory/stem.safetensors}.
     *
     * @throws CheckpointException if a file is missing, truncated or damaged, or a shard lacks what the index names
     * @throws java.util.concurrent.CancellationException if the thread is interrupted
     */
    public static Safetensors openModel(Path directory, String stem) {
        Path index = directory.resolve(stem + ".safetensors.index.json");
        Path single = directory.resolve(stem + ".safetensors");
        if (Files.exists(index)) {
            return openShards(index);
        }
        if (Files.exists(single)) {
            return open(single);
        }
        throw new CheckpointException(
                directory + " has neither " + single.getFileName() + " nor " + index.getFileName());
    }

    private static Safetensors openShards(Path index) {
        Map<String, Path> shardOf = weightMap(index);
        Map<Path, SafetensorsHeader> shards = new TreeMap<>();
        shardOf.forEach((name, shard) -> {
            SafetensorsHeader header = shards.computeIfAbsent(shard, SafetensorsHeader::read);
            if (!header.tensors().containsKey(name)) {
                throw new CheckpointException(
                        "tensor " + name + " is not in " + shard + ", where " + index.getFileName() + " says it is");
            }
        });
        shards.forEach((shard, header) -> header.tensors().keySet().forEach(name -> {
            if (!shard.equals(shardOf.get(name))) {
                throw new CheckpointException(
                        "tensor " + name + " is in " + shard + ", but " + index.getFileName() + " does not say so");
            }
        }));
        return new Safetensors(index, shards.values());
    }

    /** The shard of each tensor, all in the folder of the index. */
    private static Map<String, Path> weightMap(Path index) {
        JsonNode entries = Json.object(index).path("weight_map");
        if (!entries.isObject()) {
            throw new CheckpointException(index + " has no object weight_map");
        }
        Map<String, Path> shardOf = new LinkedHashMap<>();
        entries.properties().forEach(entry -> {
            String shard = entry.getValue().asText();
            // A file of the index's own folder: an index from elsewhere must not reach other files.
            if (!shard.matches("[\\w.-]+\\.safetensors")) {
                throw new CheckpointException(index + " gives " + shard + " as the shard of " + entry.getKey()
                        + ", expected the name of a .safetensors file in its folder");
            }
            Path file = index.resolveSibling(shard);
            if (!Files.exists(file)) {
                throw new CheckpointException("shard " + file + " is missing, which " + index.getFileName() + " names");
            }
            shardOf.put(entry.getKey(), file);
        });
        return shardOf;
    }

    /** The file, or the index of a sharded model: what to name in a message. */
    public Path path() {
        return path;
    }

    public Set<String> names() {
        return Collections.unmodifiableSet(tensors.keySet());
    }

    public boolean contains(String name) {
        return tensors.containsKey(name);
    }

    /** @throws CheckpointException if there is no such tensor */
    public TensorInfo info(String name) {
        return Optional.ofNullable(tensors.get(name))
                .orElseThrow(() -> new CheckpointException("tensor " + name + " is missing in " + path));
    }

    /** Whether the tensor is in INT8 with a scale for each row. */
    public boolean isQuantised(String name) {
        return scales.containsKey(name);
    }

    /** The size of all files. */
    public long bytes() {
        return fileBytes.values().stream().mapToLong(Long::longValue).sum();
    }

    /** What the files say beside their tensors. */
    public Map<String, String> metadata() {
        return Collections.unmodifiableMap(metadata);
    }

    /** How many of the files are mapped into memory so far. */
    public int mappedFiles() {
        synchronized (maps) {
            return maps.size();
        }
    }

    /**
     * The tensor as it is stored: dtype, shape, values. It shares the memory of the map, which lives as long as the
     * last of its tensors; one that does not lie at a multiple of its element's size is copied. It belongs to the
     * caller's scope. Writing to it changes neither the file nor other maps of it. A quantised one is its numbers in float32.
     *
     * @throws CheckpointException if a scale is none
     */
    public Tensor tensor(String name) {
        return plain(name, this::stored);
    }

    /** What {@code read} gives, multiplied by the scales that it gives if the tensor has some. */
    private Tensor plain(String name, Function<TensorInfo, Tensor> read) {
        TensorInfo info = info(name);
        TensorInfo scale = scales.get(name);
        if (scale == null) {
            return read.apply(info);
        }
        return Tensors.scoped(() -> {
            Tensor factors = read.apply(scale); // [rows, 1]
            if (!factors.ge(new Scalar(0)).logical_and(factors.isfinite()).all().item_bool()) {
                throw new CheckpointException("tensor " + scale.name() + " in " + scale.file()
                        + " has a scale that is negative or not finite");
            }
            return new Int8Rows(read.apply(info), factors).plain();
        });
    }

    private Tensor stored(TensorInfo info) {
        torch.ScalarType type = info.dtype().scalarType();
        return Tensors.scoped(() -> {
            if (info.bytes() == 0) {
                return torch.empty(info.dimensions(), new TensorOptions(type), null);
            }
            Tensor bytes = map(info.file()).narrow(0, info.offset(), info.bytes()); // [bytes]
            boolean aligned = info.offset() % info.dtype().bytes() == 0;
            return (aligned ? bytes : bytes.clone()).view(type).view(info.dimensions());
        });
    }

    /**
     * Some rows of the same on the GPU: read from the file, which is not mapped for it. They belong to the caller's scope.
     *
     * @throws CheckpointException likewise, or if the file has another size by now, or cannot be read
     * @throws java.util.concurrent.CancellationException if the thread is interrupted
     */
    public Tensor uploadedRows(String name, long first, long count) {
        return plain(name, info -> uploadedRows(info, first, count));
    }

    private Tensor uploadedRows(TensorInfo info, long first, long count) {
        synchronized (maps) {
            requireOpen();
        }
        long[] shape = info.dimensions();
        long rowBytes = shape[0] == 0 ? 0 : info.bytes() / shape[0];
        long start = info.offset() + first * rowBytes;
        shape[0] = count;
        return Tensors.scoped(() -> {
            Placement placement = new Placement(info.dtype().scalarType(), true);
            Tensor rows = torch.empty(shape, placement.options(), null);
            Upload.fill(
                    rows,
                    (offset, buffer) -> ParallelRead.fill(info.file(), bytes(info.file()), start + offset, buffer));
            return rows;
        });
    }

    /** The size of a file when it was opened. */
    private long bytes(Path file) {
        return fileBytes.getOrDefault(file, 0L);
    }

    private void requireOpen() {
        if (closed) {
            throw new IllegalStateException(path + " is closed");
        }
    }

    /** All bytes of a file, [bytes]. */
    private Tensor map(Path file) {
        synchronized (maps) {
            requireOpen();
            return maps.computeIfAbsent(file, this::newMap);
        }
    }

    private Tensor newMap(Path file) {
        long expected = bytes(file);
        try {
            // Not shared: a private map needs no right to write, and no tensor can reach the file.
            return Tensors.outlive(() -> torch.from_file(
                    new BytePointer(file.toString(), StandardCharsets.UTF_8),
                    new BoolOptional(false),
                    new LongOptional(expected),
                    new TensorOptions(torch.ScalarType.Byte)));
        } catch (RuntimeException e) {
            String reason = String.valueOf(e.getMessage()).lines().findFirst().orElse("");
            throw new CheckpointException("cannot map " + file + " into memory: " + reason, e);
        }
    }

    /** Lets go of the maps; tensors that were handed out stay valid. */
    @Override
    public void close() {
        synchronized (maps) {
            closed = true;
            maps.values().forEach(Tensor::close);
            maps.clear();
        }
    }
}
