package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * A configuration file, of a model or of a training, or an object in one. A field that is missing or of the wrong kind is named
 * together with the file.
 */
public final class Config {
    /** Of a model, far above every real one: the names of its weights are made before they are compared with a file's. */
    public static final int MOST_LAYERS = 1000;

    /** Likewise: products of a few sizes are integers. */
    public static final int MOST_HEADS = 256;

    /** Likewise, of tokens, of heads and inside MLPs. */
    public static final int MOST_WIDTH = 65_536;

    private final Path file;
    private final String prefix; // of the fields' names in messages
    private final JsonNode fields;
    private final Map<String, String> values = new LinkedHashMap<>(); // of the fields that were asked for
    private final List<Config> parts = new ArrayList<>();

    private Config(Path file, String prefix, JsonNode fields) {
        this.file = file;
        this.prefix = prefix;
        this.fields = fields;
    }

    /** @throws CheckpointException if the file is missing or holds no JSON object */
    public static Config read(Path file) {
        return new Config(file, "", Json.object(file));
    }

    /** The object in a field: its own fields are named {@code field.name}. */
    public Config object(String field) {
        return part(field, field(field, "an object", JsonNode::isObject));
    }

    /** The objects in a list, one at least: their fields are named {@code field[0].name}. */
    public List<Config> objects(String field) {
        JsonNode list = field(
                field,
                "a list of objects, one at least",
                node -> node.isArray() && !node.isEmpty() && stream(node).allMatch(JsonNode::isObject));
        return IntStream.range(0, list.size())
                .mapToObj(i -> part(field + "[" + i + "]", list.get(i)))
                .toList();
    }

    private Config part(String name, JsonNode object) {
        Config part = new Config(file, prefix + name + ".", object);
        parts.add(part);
        return part;
    }

    /** @throws CheckpointException naming a field that nobody has asked for, here or in an object of this one */
    public void requireNothingElse() {
        fields.fieldNames().forEachRemaining(field -> {
            if (!values.containsKey(field)) {
                throw new CheckpointException(
                        file + " has " + prefix + field + ", expected none but " + String.join(", ", values.keySet()));
            }
        });
        parts.forEach(Config::requireNothingElse);
    }

    /** Every field that was asked for, by its whole name, with its value or with what was taken in its stead. */
    public Map<String, String> settings() {
        Map<String, String> settings = new LinkedHashMap<>();
        values.forEach((field, value) -> settings.put(prefix + field, value));
        parts.forEach(part -> settings.putAll(part.settings()));
        return settings;
    }

    /** @throws CheckpointException in one sentence, if the condition does not hold for a field's value */
    public void require(boolean condition, String field, Object given, String expected) {
        if (!condition) {
            throw new CheckpointException(file + " has " + prefix + field + " " + given + ", expected " + expected);
        }
    }

    public Path file() {
        return file;
    }

    /** Whether the field is there and not null. */
    public boolean has(String field) {
        values.putIfAbsent(field, "");
        return fields.hasNonNull(field);
    }

    private <T> T otherwise(String field, T value) {
        values.put(field, String.valueOf(value));
        return value;
    }

    /** A size, a count or a token's number: never negative. */
    public int integer(String field) {
        return field(field, "a non-negative integer", Config::isCount).intValue();
    }

    public int integer(String field, int otherwise) {
        return has(field) ? integer(field) : otherwise(field, otherwise);
    }

    /** One that is no smaller and no larger than this. */
    public int integer(String field, int least, int most) {
        int value = integer(field);
        boolean bounded = most < Integer.MAX_VALUE;
        require(
                value >= least && value <= most,
                field,
                value,
                bounded ? "an integer from " + least + " to " + most : "an integer, " + least + " or more");
        return value;
    }

    public List<Integer> integers(String field) {
        JsonNode list = field(
                field,
                "a list of non-negative integers",
                node -> node.isArray() && stream(node).allMatch(Config::isCount));
        List<Integer> numbers = stream(list).map(JsonNode::intValue).toList();
        values.put(field, numbers.toString());
        return numbers;
    }

    public List<Integer> integers(String field, List<Integer> otherwise) {
        return has(field) ? integers(field) : otherwise(field, otherwise);
    }

    public double number(String field) {
        double number = field(field, "a number", JsonNode::isNumber).doubleValue();
        values.put(field, String.valueOf(number));
        return number;
    }

    public double number(String field, double otherwise) {
        return has(field) ? number(field) : otherwise(field, otherwise);
    }

    public boolean flag(String field) {
        return field(field, "true or false", JsonNode::isBoolean).booleanValue();
    }

    public boolean flag(String field, boolean otherwise) {
        return has(field) ? flag(field) : otherwise(field, otherwise);
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
        require(Arrays.asList(supported).contains(given), field, given, String.join(" or ", supported));
    }

    /** Refuses a {@code width} that cannot be divided into {@code parts} equal ones. */
    public void requireMultiple(String width, String parts) {
        boolean multiple = integer(parts) != 0 && integer(width) % integer(parts) == 0;
        require(multiple, width, integer(width), "a multiple of " + parts + " " + integer(parts));
    }

    /** @param kind what it is expected to be, for the message */
    JsonNode field(String field, String kind, Predicate<JsonNode> ofKind) {
        if (!has(field)) {
            throw new CheckpointException(file + " has no field " + prefix + field + ", expected " + kind);
        }
        JsonNode value = fields.get(field);
        if (!ofKind.test(value)) {
            String given = value.toString();
            throw new CheckpointException(file + " has " + prefix + field + " "
                    + (given.length() > 60 ? given.substring(0, 60) + "…" : given) + ", expected " + kind);
        }
        values.put(field, value.isContainerNode() ? "" : value.asText());
        return value;
    }

    private static boolean isCount(JsonNode node) {
        return node.isIntegralNumber() && node.canConvertToInt() && node.intValue() >= 0;
    }

    static Stream<JsonNode> stream(JsonNode list) {
        return StreamSupport.stream(list.spliterator(), false);
    }
}
