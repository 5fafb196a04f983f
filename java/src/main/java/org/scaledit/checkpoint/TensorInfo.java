package org.scaledit.checkpoint;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * What the header of a safetensors file says about one tensor.
 *
 * @param file the file that holds it, the shard of a sharded model
 * @param offset where its first byte lies in the file
 * @param bytes its size, always the product of the shape times the size of an element
 */
public record TensorInfo(String name, Dtype dtype, List<Long> shape, Path file, long offset, long bytes) {
    public TensorInfo {
        shape = List.copyOf(shape);
    }

    public long[] dimensions() {
        return shape.stream().mapToLong(Long::longValue).toArray();
    }

    boolean hasShape(long[] expected) {
        return Arrays.equals(dimensions(), expected);
    }
}
