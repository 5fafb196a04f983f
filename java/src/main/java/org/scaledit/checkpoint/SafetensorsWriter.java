package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.file.Reasons;
import org.scaledit.file.UnfinishedFile;
import org.scaledit.tensor.Tensors;

/**
 * Writes a safetensors file tensor by tensor, so that no more than one has to be in memory. The file appears under
 * its name when {@link #commit} has returned, whole; until then, and after any failure, what had the name before is
 * untouched.
 *
 * <pre>{@code
 * try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, Map.of())) {
 *     writer.write("noise", noise);
 *     writer.commit();
 * }
 * }</pre>
 */
public final class SafetensorsWriter implements AutoCloseable {
    /** What a file will hold: dtype and shape of one tensor. */
    public record Declaration(Dtype dtype, List<Long> shape) {
        public static Declaration of(Dtype dtype, long... shape) {
            return new Declaration(dtype, Arrays.stream(shape).boxed().toList());
        }

        long bytes() {
            return shape.stream().reduce((long) dtype.bytes(), Math::multiplyExact);
        }
    }

    /** Bytes that pass through Java's heap at a time. */
    private static final int PIECE = 1 << 20;

    private final Path file;
    private final UnfinishedFile unfinished;
    private final Map<String, Declaration> left;

    /**
     * @param contents all tensors, in the order in which they will be written
     * @throws CheckpointException if the file cannot be written
     */
    public static SafetensorsWriter create(Path file, Map<String, Declaration> contents, Map<String, String> metadata) {
        byte[] header = header(contents, metadata); // before there is a file that a failure would leave
        try {
            return new SafetensorsWriter(file, new UnfinishedFile(file), contents, header);
        } catch (IOException e) {
            throw cannotWrite(file, e);
        }
    }

    SafetensorsWriter(Path file, UnfinishedFile unfinished, Map<String, Declaration> contents, byte[] header) {
        this.file = file;
        this.unfinished = unfinished;
        this.left = new LinkedHashMap<>(contents);
        write(header);
    }

    /**
     * Writes a file of tensors that are at hand, in their precision; it appears when it is whole.
     *
     * @throws CheckpointException likewise
     */
    public static void write(Path file, Map<String, Tensor> tensors, Map<String, String> metadata) {
        Map<String, Declaration> contents = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> contents.put(name, Declaration.of(Dtype.of(tensor), tensor.shape())));
        try (SafetensorsWriter writer = create(file, contents, metadata)) {
            tensors.forEach((name, tensor) -> Tensors.run(() -> writer.write(name, tensor.detach())));
            writer.commit();
        }
    }

    static byte[] header(Map<String, Declaration> contents, Map<String, String> metadata) {
        ObjectNode json = Json.newObject();
        if (!metadata.isEmpty()) {
            ObjectNode entries = json.putObject("__metadata__");
            metadata.forEach(entries::put);
        }
        long offset = 0;
        for (Map.Entry<String, Declaration> entry : contents.entrySet()) {
            Declaration tensor = entry.getValue();
            ObjectNode fields =
                    json.putObject(entry.getKey()).put("dtype", tensor.dtype().name());
            ArrayNode shape = fields.putArray("shape");
            tensor.shape().forEach(shape::add);
            long end = Math.addExact(offset, tensor.bytes());
            fields.putArray("data_offsets").add(offset).add(end);
            offset = end;
        }
        // The format allows spaces behind the JSON: with them the data begins at a multiple of 8.
        byte[] text = json.toString().getBytes(StandardCharsets.UTF_8);
        byte[] padded = Arrays.copyOf(text, (text.length + 7) / 8 * 8);
        Arrays.fill(padded, text.length, padded.length, (byte) ' ');
        return ByteBuffer.allocate(8 + padded.length)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(padded.length)
                .put(padded)
                .array();
    }

    /**
     * Writes the next tensor, converted to its declared dtype, from any device.
     *
     * @throws IllegalArgumentException if another tensor is next, or this one has another shape than was declared
     * @throws CheckpointException if the disk is full or fails
     */
    public void write(String name, Tensor tensor) {
        Declaration declared = left.get(name);
        if (declared == null || !left.keySet().iterator().next().equals(name)) {
            throw new IllegalArgumentException(
                    "tensor " + name + " does not come next in " + file + ", expected in this order: " + left.keySet());
        }
        if (!declared.shape().equals(Arrays.stream(tensor.shape()).boxed().toList())) {
            throw new IllegalArgumentException("tensor " + name + " for " + file + " has shape " + Tensors.shape(tensor)
                    + ", expected " + declared.shape() + " as declared");
        }
        Tensors.run(() -> {
            Tensor bytes = tensor.cpu() // [bytes]
                    .to(declared.dtype().scalarType())
                    .contiguous()
                    .flatten()
                    .view(torch.ScalarType.Byte);
            BytePointer source = new BytePointer(bytes.data_ptr());
            byte[] piece = new byte[(int) Math.min(PIECE, bytes.numel())];
            for (long offset = 0; offset < bytes.numel(); offset += piece.length) {
                int count = (int) Math.min(piece.length, bytes.numel() - offset);
                source.position(offset).get(piece, 0, count);
                write(piece, count);
            }
        });
        left.remove(name);
    }

    private void write(byte[] bytes) {
        write(bytes, bytes.length);
    }

    private void write(byte[] bytes, int count) {
        try {
            unfinished.stream().write(bytes, 0, count);
        } catch (IOException e) {
            close();
            throw cannotWrite(file, e);
        }
    }

    /**
     * Gives the file its name, in the place of one that was there before.
     *
     * @throws IllegalStateException if a tensor has not been written
     * @throws CheckpointException if the disk is full or fails
     */
    public void commit() {
        if (!left.isEmpty()) {
            throw new IllegalStateException(file + " still lacks " + left.keySet());
        }
        try {
            unfinished.commit();
        } catch (IOException e) {
            close();
            throw cannotWrite(file, e);
        }
    }

    /** Removes what was written, unless {@link #commit} has returned. */
    @Override
    public void close() {
        try {
            unfinished.close();
        } catch (IOException e) {
            throw new CheckpointException("cannot remove what was written for " + file + ": " + Reasons.of(e), e);
        }
    }

    private static CheckpointException cannotWrite(Path file, IOException e) {
        return new CheckpointException("cannot write " + file + ": " + Reasons.of(e), e);
    }
}
