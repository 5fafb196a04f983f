package org.scaledit.checkpoint;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import org.scaledit.file.Reasons;

/** JSON of files that nobody vouches for: bounded in size and depth, no key twice, nothing after its end. */
final class Json {
    private static final JsonMapper MAPPER = JsonMapper.builder(JsonFactory.builder()
                    .streamReadConstraints(StreamReadConstraints.builder()
                            .maxNestingDepth(32)
                            .maxNumberLength(64)
                            .build())
                    .build())
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .build();

    /** Far above the largest real one: the index of FLUX.1-dev has 120 kB. */
    private static final long LONGEST_FILE = 16 << 20;

    private Json() {}

    static JsonParser parser(byte[] json) throws IOException {
        // The caller sees to duplicates itself: it can name the tensor, and the detection costs time on large headers.
        return MAPPER.getFactory().createParser(json).disable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION);
    }

    static ObjectNode newObject() {
        return MAPPER.createObjectNode();
    }

    /** The JSON object in a file. */
    static JsonNode object(Path file) {
        try {
            if (Files.size(file) > LONGEST_FILE) {
                throw new CheckpointException(
                        file + " has " + Files.size(file) + " bytes, at most " + LONGEST_FILE + " are allowed");
            }
            return object(Files.readAllBytes(file), file.toString());
        } catch (NoSuchFileException e) {
            throw new CheckpointException(file + " does not exist", e);
        } catch (IOException e) {
            throw new CheckpointException("cannot read " + file + ": " + Reasons.of(e), e);
        }
    }

    /** The JSON object in {@code json}; {@code where} names it in a message. */
    static JsonNode object(byte[] json, String where) throws IOException {
        try {
            JsonNode node = MAPPER.readTree(json);
            if (!node.isObject()) {
                throw new CheckpointException(where + " is not a JSON object");
            }
            return node;
        } catch (JsonProcessingException e) {
            throw new CheckpointException(where + " is not valid JSON: " + reason(e), e);
        }
    }

    /** What is wrong, in one line, without the excerpt that Jackson puts behind it. */
    static String reason(JsonProcessingException e) {
        return e.getOriginalMessage().lines().findFirst().orElse("unreadable").strip();
    }
}
