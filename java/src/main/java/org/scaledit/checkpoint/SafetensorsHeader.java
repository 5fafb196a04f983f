package org.scaledit.checkpoint;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.scaledit.file.Interrupts;
import org.scaledit.file.Reasons;

/**
 * The header of one safetensors file, read and checked in full before any data is touched.
 *
 * <p>Layout: the header's length (8 bytes, little endian), the header (JSON: name → dtype, shape and the offsets of
 * first byte and end within the data), the data. The tensors cover the data without holes or overlaps.
 */
record SafetensorsHeader(Path file, long fileBytes, Map<String, TensorInfo> tensors, Map<String, String> metadata) {
    /** The limit of the format's reference implementation. */
    private static final long LONGEST_HEADER = 100_000_000;

    private static final int MOST_DIMENSIONS = 64;

    /**
     * @throws CheckpointException if the file is missing, truncated or damaged
     * @throws java.util.concurrent.CancellationException if the thread is interrupted, which takes note of it
     */
    static SafetensorsHeader read(Path file) {
        try (FileChannel channel = FileChannel.open(file)) {
            long fileBytes = channel.size();
            byte[] json = headerBytes(file, channel, fileBytes);
            return new Reader(file, fileBytes, 8L + json.length).read(json);
        } catch (NoSuchFileException e) {
            throw new CheckpointException(file + " does not exist", e);
        } catch (IOException e) {
            Interrupts.throwIfInterrupted("reading " + file, e);
            throw new CheckpointException(
                    Files.isDirectory(file)
                            ? file + " is a directory, expected a safetensors file"
                            : "cannot read " + file + ": " + Reasons.of(e),
                    e);
        }
    }

    private static byte[] headerBytes(Path file, FileChannel channel, long fileBytes) throws IOException {
        if (fileBytes < 8) {
            throw new CheckpointException(file + " is no safetensors file: it has " + fileBytes
                    + " bytes, fewer than the 8 that hold the header's length");
        }
        long length = readFully(channel, 8).order(ByteOrder.LITTLE_ENDIAN).getLong();
        if (length < 0 || length > fileBytes - 8) {
            throw new CheckpointException(file + " is truncated or no safetensors file: it says that its header has "
                    + Long.toUnsignedString(length) + " bytes, but the file has only " + fileBytes);
        }
        if (length > LONGEST_HEADER) {
            throw new CheckpointException(
                    file + " has a header of " + length + " bytes, at most " + LONGEST_HEADER + " are allowed");
        }
        return readFully(channel, (int) length).array();
    }

    private static ByteBuffer readFully(FileChannel channel, int bytes) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocate(bytes);
        while (buffer.hasRemaining()) {
            if (channel.read(buffer) < 0) {
                throw new IOException("it ended while it was read");
            }
        }
        return buffer.flip();
    }

    /** One pass over the JSON that accepts the header's form and nothing else, so that deep nesting costs nothing. */
    private record Reader(Path file, long fileBytes, long dataStart) {
        SafetensorsHeader read(byte[] json) throws IOException {
            Map<String, TensorInfo> tensors = new LinkedHashMap<>();
            Map<String, String> metadata = new LinkedHashMap<>();
            try (JsonParser parser = Json.parser(json)) {
                require(parser.nextToken() == JsonToken.START_OBJECT, "its header is not a JSON object");
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    String name = parser.currentName();
                    if (name.equals("__metadata__")) {
                        require(metadata.isEmpty(), "its header has __metadata__ twice");
                        metadata(parser, metadata);
                    } else {
                        require(
                                tensors.put(name, tensor(parser, name)) == null,
                                "its header has tensor " + name + " twice");
                    }
                }
                require(parser.nextToken() == null, "something follows the JSON of its header");
            } catch (JsonProcessingException e) {
                throw new CheckpointException(file + " has a header that is not valid JSON: " + Json.reason(e), e);
            }
            requireGapless(tensors);
            return new SafetensorsHeader(file, fileBytes, tensors, metadata);
        }

        private void metadata(JsonParser parser, Map<String, String> metadata) throws IOException {
            require(parser.nextToken() == JsonToken.START_OBJECT, "its __metadata__ is not a JSON object");
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String key = parser.currentName();
                require(
                        parser.nextToken() == JsonToken.VALUE_STRING,
                        "its __metadata__ entry " + key + " is not a string");
                require(metadata.put(key, parser.getText()) == null, "its __metadata__ has " + key + " twice");
            }
        }

        private TensorInfo tensor(JsonParser parser, String name) throws IOException {
            Optional<Dtype> dtype = Optional.empty();
            Optional<List<Long>> shape = Optional.empty();
            Optional<List<Long>> offsets = Optional.empty();
            requireOf(name, parser.nextToken() == JsonToken.START_OBJECT, "is not described by a JSON object");
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                switch (parser.currentName()) {
                    case "dtype" -> {
                        requireOf(name, dtype.isEmpty(), "has two dtypes");
                        dtype = Optional.of(dtype(parser, name));
                    }
                    case "shape" -> {
                        requireOf(name, shape.isEmpty(), "has two shapes");
                        shape = Optional.of(integers(parser, name, "shape"));
                    }
                    case "data_offsets" -> {
                        requireOf(name, offsets.isEmpty(), "has data_offsets twice");
                        offsets = Optional.of(integers(parser, name, "data_offsets"));
                    }
                    default -> requireOf(name, false, "has an unknown field " + parser.currentName());
                }
            }
            requireOf(name, dtype.isPresent(), "has no dtype");
            requireOf(name, shape.isPresent(), "has no shape");
            requireOf(name, offsets.isPresent(), "has no data_offsets");
            return placed(name, dtype.orElseThrow(), shape.orElseThrow(), offsets.orElseThrow());
        }

        private Dtype dtype(JsonParser parser, String name) throws IOException {
            requireOf(name, parser.nextToken() == JsonToken.VALUE_STRING, "has a dtype that is not a string");
            String given = parser.getText();
            return Dtype.named(given)
                    .orElseThrow(() -> new CheckpointException("tensor " + name + " in " + file
                            + " has the unknown dtype " + given + ", expected one of " + Dtype.names()));
        }

        private List<Long> integers(JsonParser parser, String name, String field) throws IOException {
            requireOf(name, parser.nextToken() == JsonToken.START_ARRAY, "has a " + field + " that is not a list");
            List<Long> values = new ArrayList<>();
            while (parser.nextToken() != JsonToken.END_ARRAY) {
                requireOf(
                        name,
                        parser.currentToken() == JsonToken.VALUE_NUMBER_INT,
                        "has a " + field + " with an entry that is not an integer");
                requireOf(
                        name,
                        values.size() < MOST_DIMENSIONS,
                        "has a " + field + " of more than " + MOST_DIMENSIONS + " entries");
                long value = parser.getLongValue();
                requireOf(name, value >= 0, "has a negative entry " + value + " in its " + field);
                values.add(value);
            }
            return values;
        }

        private TensorInfo placed(String name, Dtype dtype, List<Long> shape, List<Long> offsets) {
            requireOf(name, offsets.size() == 2, "has data_offsets " + offsets + ", expected two numbers");
            long begin = offsets.get(0);
            long end = offsets.get(1);
            requireOf(name, begin <= end, "ends before it begins: data_offsets " + offsets);
            long bytes = bytes(name, dtype, shape);
            requireOf(
                    name,
                    end - begin == bytes,
                    "has " + (end - begin) + " bytes, expected " + bytes + " for " + dtype + " " + shape);
            requireOf(
                    name,
                    end <= fileBytes - dataStart,
                    "ends at byte " + Long.toUnsignedString(dataStart + end) + ", but the file has only " + fileBytes
                            + ": it is truncated");
            return new TensorInfo(name, dtype, shape, file, dataStart + begin, bytes);
        }

        private long bytes(String name, Dtype dtype, List<Long> shape) {
            if (shape.contains(0L)) {
                return 0;
            }
            try {
                return shape.stream().reduce((long) dtype.bytes(), Math::multiplyExact);
            } catch (ArithmeticException e) {
                throw new CheckpointException(
                        "tensor " + name + " in " + file + " has the impossible shape " + shape, e);
            }
        }

        private void requireGapless(Map<String, TensorInfo> tensors) {
            List<TensorInfo> inOrder = tensors.values().stream()
                    .sorted(Comparator.comparingLong(TensorInfo::offset).thenComparingLong(TensorInfo::bytes))
                    .toList();
            long end = dataStart;
            String previous = "the header";
            for (TensorInfo info : inOrder) {
                requireOf(info.name(), info.offset() >= end, "overlaps " + previous);
                requireOf(
                        info.name(),
                        info.offset() == end,
                        "begins " + (info.offset() - end) + " bytes after the end of " + previous
                                + ", expected no gap");
                end = info.offset() + info.bytes();
                previous = "tensor " + info.name();
            }
            require(end == fileBytes, "it has " + (fileBytes - end) + " bytes after the end of " + previous);
        }

        private void require(boolean condition, String otherwise) {
            if (!condition) {
                throw new CheckpointException(file + " is damaged: " + otherwise);
            }
        }

        private void requireOf(String tensor, boolean condition, String otherwise) {
            if (!condition) {
                throw new CheckpointException("tensor " + tensor + " in " + file + " " + otherwise);
            }
        }
    }
}
