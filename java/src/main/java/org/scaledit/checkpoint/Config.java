package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.function.Predicate;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/** A configuration file of a model. A field that is missing or of the wrong kind is named together with the file. */
public final class Config {
    private final Path file;
    private final JsonNode fields;

    private Config(Path file, JsonNode fields) {
        this.file = file;
        this.fields = fields;
    }

    /** @throws CheckpointException if the file is missing or holds no JSON object */
    public static Config read(Path file) {
        return new Config(file, Json.object(file));
    }

    public Path file() {
        return file;
    }

    /** Whether the field is there and not null. */
    public boolean has(String field) {
        return fields.hasNonNull(field);
    }

    /** A size, a count or a token's number: never negative. */
    public int integer(String field) {
        return field(field, "a non-negative integer", Config::isCount).intValue();
    }

    public int integer(String field, int otherwise) {
        return has(field) ? integer(field) : otherwise;
    }

    public List<Integer> integers(String field) {
        JsonNode list = field(
                field,
                "a list of non-negative integers",
                node -> node.isArray() && stream(node).allMatch(Config::isCount));
        return stream(list).map(JsonNode::intValue).toList();
    }

    public List<Integer> integers(String field, List<Integer> otherwise) {
        return has(field) ? integers(field) : otherwise;
    }

    public double number(String field) {
        return field(field, "a number", JsonNode::isNumber).doubleValue();
    }

    public double number(String field, double otherwise) {
        return has(field) ? number(field) : otherwise;
    }

    public boolean flag(String field) {
        return field(field, "true or false", JsonNode::isBoolean).booleanValue();
    }

    public boolean flag(String field, boolean otherwise) {
        return has(field) ? flag(field) : otherwise;
    }

    public String text(String field) {
        return field(field, "a string", JsonNode::isTextual).textValue();
    }

    public List<String> texts(String field) {
        JsonNode list = field(
                field,
                "a list of strings",
                node -> node.isArray() && stream(node).allMatch(JsonNode::isTextual));
        return stream(list).map(JsonNode::textValue).toList();
    }

    /** Refuses a model whose {@code field} says anything but one of {@code supported}. */
    public void require(String field, String... supported) {
        String given = text(field);
        if (!Arrays.asList(supported).contains(given)) {
            throw new CheckpointException(
                    file + " has " + field + " " + given + ", expected " + String.join(" or ", supported));
        }
    }

    /** Refuses a {@code width} that cannot be divided into {@code parts} equal ones. */
    public void requireMultiple(String width, String parts) {
        if (integer(parts) == 0 || integer(width) % integer(parts) != 0) {
            throw new CheckpointException(file + " has " + width + " " + integer(width) + ", expected a multiple of "
                    + parts + " " + integer(parts));
        }
    }

    private JsonNode field(String field, String kind, Predicate<JsonNode> ofKind) {
        if (!has(field)) {
            throw new CheckpointException(file + " has no field " + field + ", expected " + kind);
        }
        JsonNode value = fields.get(field);
        if (!ofKind.test(value)) {
            String given = value.toString();
            throw new CheckpointException(file + " has " + field + " "
                    + (given.length() > 60 ? given.substring(0, 60) + "…" : given) + ", expected " + kind);
        }
        return value;
    }

    private static boolean isCount(JsonNode node) {
        return node.isIntegralNumber() && node.canConvertToInt() && node.intValue() >= 0;
    }

    private static Stream<JsonNode> stream(JsonNode list) {
        return StreamSupport.stream(list.spliterator(), false);
    }
}
