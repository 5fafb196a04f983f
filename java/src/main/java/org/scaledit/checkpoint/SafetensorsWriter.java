package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
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

    /** A buffer of Java has at most 2 GiB. */
    private static final long LARGEST_PIECE = 1 << 30;

    private final Path file;
    private final Path temporary;
    private final FileChannel channel;
    private final Map<String, Declaration> left;
    private boolean committed;

    /**
     * @param contents all tensors, in the order in which they will be written
     * @throws CheckpointException if the file cannot be written
     */
    public static SafetensorsWriter create(Path file, Map<String, Declaration> contents, Map<String, String> metadata) {
        // In the same folder, so that the renaming at the end moves no data.
        Path temporary = file.resolveSibling(file.getFileName() + "." + UUID.randomUUID() + ".part");
        return new SafetensorsWriter(file, temporary, contents, metadata);
    }

    SafetensorsWriter(Path file, Path temporary, Map<String, Declaration> contents, Map<String, String> metadata) {
        this.file = file;
        this.temporary = temporary;
        this.left = new LinkedHashMap<>(contents);
        try {
            this.channel = FileChannel.open(temporary, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        } catch (IOException e) {
            throw cannotWrite(e);
        }
        writeFully(header(contents, metadata));
    }

    private static ByteBuffer header(Map<String, Declaration> contents, Map<String, String> metadata) {
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
            fields.putArray("data_offsets").add(offset).add(offset + tensor.bytes());
            offset += tensor.bytes();
        }
        // The format allows spaces behind the JSON: with them the data begins at a multiple of 8.
        byte[] text = json.toString().getBytes(StandardCharsets.UTF_8);
        byte[] padded = Arrays.copyOf(text, (text.length + 7) / 8 * 8);
        Arrays.fill(padded, text.length, padded.length, (byte) ' ');
        return ByteBuffer.allocate(8 + padded.length)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(padded.length)
                .put(padded)
                .flip();
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
            for (long offset = 0; offset < bytes.numel(); offset += LARGEST_PIECE) {
                long size = Math.min(LARGEST_PIECE, bytes.numel() - offset);
                BytePointer piece =
                        new BytePointer(bytes.narrow(0, offset, size).data_ptr());
                writeFully(piece.capacity(size).asByteBuffer());
            }
        });
        left.remove(name);
    }

    private void writeFully(ByteBuffer buffer) {
        try {
            while (buffer.hasRemaining()) {
                channel.write(buffer);
            }
        } catch (IOException e) {
            close();
            throw cannotWrite(e);
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
            channel.force(true);
            channel.close();
            Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
            committed = true;
        } catch (IOException e) {
            close();
            throw cannotWrite(e);
        }
    }

    /** Removes what was written, unless {@link #commit} has returned. */
    @Override
    public void close() {
        if (committed) {
            return;
        }
        try {
            channel.close();
            Files.deleteIfExists(temporary);
        } catch (IOException e) {
            throw new CheckpointException("cannot remove " + temporary + ": " + reason(e), e);
        }
    }

    private CheckpointException cannotWrite(IOException e) {
        return new CheckpointException("cannot write " + file + ": " + reason(e), e);
    }

    private String reason(IOException e) {
        if (e instanceof NoSuchFileException) {
            return "its folder does not exist";
        }
        if (e instanceof AccessDeniedException) {
            return "permission denied";
        }
        if (e instanceof FileSystemException failure && failure.getReason() != null) {
            return failure.getReason();
        }
        return String.valueOf(e.getMessage());
    }
}
