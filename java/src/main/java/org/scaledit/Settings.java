package org.scaledit;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import org.scaledit.image.ImageException;
import org.scaledit.image.PngText;

/** Everything that decides what a picture looks like, as the JSON that its PNG carries. */
record Settings(ScaleDit.Builder model, ImageRequest request) {
    /** Keyword of the PNG text chunk. */
    static final String KEYWORD = "scaledit";

    /** Whether the ratio is one that was not set. */
    private static final String CHOSEN = "ratioChosen";

    private static final ObjectMapper JSON = new ObjectMapper();

    /** What the PNG's text chunks say. */
    Map<String, String> texts() {
        Map<String, String> texts = new LinkedHashMap<>();
        texts.put("Software", "Scale-DiT for Java " + ScaleDit.version());
        texts.put("Description", request.prompt());
        texts.put(KEYWORD, toJson());
        return texts;
    }

    /**
     * What has to be the same on all hosts that paint a picture, by name: the settings, but for files that the first one alone
     * reads.
     *
     * @param contents of files that all of them read
     */
    static Map<String, String> command(ScaleDit.Builder model, ImageRequest request, Map<String, String> contents) {
        ObjectNode json = new Settings(model, request).json(); // without a seed: the first one draws it
        json.remove("vae");
        json.remove(CHOSEN); // the ratio is the same whoever says it
        for (String file : List.of("guideImage", "noise")) {
            if (json.has(file)) {
                json.put(file, "given");
            }
        }
        Map<String, String> command = new TreeMap<>();
        json.properties()
                .forEach(field -> command.put(field.getKey(), field.getValue().asText()));
        command.putAll(contents);
        return command;
    }

    private String toJson() {
        return json().toString();
    }

    private ObjectNode json() {
        ObjectNode json = JSON.createObjectNode();
        json.put("version", ScaleDit.version());
        model.write(json);
        write(json, request);
        return json;
    }

    /** A request alone, in one line. */
    static String text(ImageRequest request) {
        ObjectNode json = JSON.createObjectNode();
        write(json, request);
        request.trace().ifPresent(file -> json.put("trace", absolute(file)));
        return json.toString();
    }

    private static void write(ObjectNode json, ImageRequest request) {
        json.put("prompt", request.prompt());
        request.clipPrompt().ifPresent(text -> json.put("clipPrompt", text));
        request.t5Prompt().ifPresent(text -> json.put("t5Prompt", text));
        request.negative().ifPresent(text -> json.put("negative", text));
        request.trueGuidance().ifPresent(scale -> json.put("trueGuidance", scale));
        json.put("width", request.width());
        json.put("height", request.height());
        request.seed().ifPresent(seed -> json.put("seed", seed));
        json.put("ratio", request.ratio());
        if (request.choosesRatio()) {
            json.put(CHOSEN, true);
        }
        json.put("levels", request.levels());
        json.put("plainSize", request.plainSize());
        json.put("steps", request.steps());
        json.put("guidance", request.guidance());
        json.put("guideSteps", request.guideSteps());
        json.put("guideGuidance", request.guideGuidance());
        request.guideImage().ifPresent(file -> json.put("guideImage", absolute(file)));
        json.put("init", name(request.init()));
        json.put("strength", request.strength());
        json.put("window", request.window());
        json.put("reach", request.reach());
        json.put("guidanceAttention", name(request.guidanceAttention()));
        json.put("guidanceText", request.guidanceText());
        json.put("guidanceMargin", request.guidanceMargin());
        json.put("attention", name(request.attention()));
        request.textTokens().ifPresent(tokens -> json.put("textTokens", tokens));
        request.noise().ifPresent(file -> json.put("noise", absolute(file)));
    }

    /** The settings in a PNG's text chunks. */
    static Settings read(Path png) {
        JsonNode json = json(png);
        try {
            return new Settings(ScaleDit.Builder.read(json), request(json));
        } catch (IllegalArgumentException e) {
            throw unreadable(png, e.getMessage(), e);
        }
    }

    /** The same as people read them. */
    static String pretty(Path png) {
        return json(png).toPrettyString();
    }

    private static JsonNode json(Path png) {
        try {
            return JSON.readTree(PngText.read(png, KEYWORD));
        } catch (JsonProcessingException e) {
            throw unreadable(png, e.getOriginalMessage(), e);
        }
    }

    private static ImageException unreadable(Path png, @Nullable String reason, Exception cause) {
        return new ImageException(png + " carries settings that cannot be read: " + reason, cause);
    }

    private static ImageRequest request(JsonNode json) {
        ImageRequest request = ImageRequest.of(text(json, "prompt"))
                .withoutNegative()
                .size(integer(json, "width"), integer(json, "height"))
                .seed(seed(json))
                .levels(integer(json, "levels"))
                .steps(integer(json, "steps"))
                .guidance(number(json, "guidance"))
                .guideSteps(integer(json, "guideSteps"))
                .guideGuidance(number(json, "guideGuidance"))
                .init(constant(json, "init", ImageRequest.Init.class))
                .strength(number(json, "strength"))
                .window(integer(json, "window"))
                .reach(integer(json, "reach"))
                .guidanceAttention(constant(json, "guidanceAttention", ImageRequest.GuidanceAttention.class))
                .guidanceText(flag(json, "guidanceText"))
                .guidanceMargin(integer(json, "guidanceMargin"))
                .attention(constant(json, "attention", ImageRequest.AttentionKind.class));
        if (json.has("clipPrompt")) {
            request = request.clipPrompt(text(json, "clipPrompt"));
        }
        if (json.has("t5Prompt")) {
            request = request.t5Prompt(text(json, "t5Prompt"));
        }
        if (json.has("negative")) {
            request = request.negative(text(json, "negative"));
        }
        if (json.has("trueGuidance")) {
            request = request.trueGuidance(number(json, "trueGuidance"));
        }
        if (json.has("plainSize")) { // any size before it was written
            request = request.plainSize(integer(json, "plainSize"));
        }
        if (json.has("textTokens")) {
            request = request.textTokens(integer(json, "textTokens"));
        }
        Optional<Path> guideImage = path(json, "guideImage");
        if (guideImage.isPresent()) {
            request = request.guideImage(guideImage.get());
        }
        int ratio = integer(json, "ratio"); // after what one is chosen by
        request = json.has(CHOSEN) && flag(json, CHOSEN) ? request.chosenRatio(ratio) : request.ratio(ratio);
        Optional<Path> noise = path(json, "noise");
        request = noise.isPresent() ? request.noise(noise.get()) : request;
        return request.recorded();
    }

    private static JsonNode required(JsonNode json, String field, String kind, Predicate<JsonNode> ofKind) {
        JsonNode value = json.get(field);
        if (value == null) {
            throw new IllegalArgumentException("field " + field + " is missing");
        }
        if (!ofKind.test(value)) {
            throw new IllegalArgumentException(field + " is " + value + ", expected " + kind);
        }
        return value;
    }

    static JsonNode list(JsonNode json, String field) {
        return required(json, field, "a list", JsonNode::isArray);
    }

    static String text(JsonNode json, String field) {
        return required(json, field, "a string", JsonNode::isTextual).textValue();
    }

    static double number(JsonNode json, String field) {
        return required(json, field, "a number", JsonNode::isNumber).doubleValue();
    }

    private static int integer(JsonNode json, String field) {
        return required(json, field, "an integer", node -> node.isIntegralNumber() && node.canConvertToInt())
                .intValue();
    }

    private static long seed(JsonNode json) {
        return required(
                        json,
                        "seed",
                        "an integer of 64 bits",
                        node -> node.isIntegralNumber() && node.canConvertToLong())
                .longValue();
    }

    private static boolean flag(JsonNode json, String field) {
        return required(json, field, "true or false", JsonNode::isBoolean).booleanValue();
    }

    static Optional<Path> path(JsonNode json, String field) {
        return json.has(field) ? Optional.of(Path.of(text(json, field))) : Optional.empty();
    }

    static <E extends Enum<E>> E constant(JsonNode json, String field, Class<E> type) {
        List<String> names = List.of(names(type));
        Predicate<JsonNode> known = node -> names.contains(node.asText());
        return constant(required(json, field, String.join(" or ", names), known).asText(), type);
    }

    /** Of all constants. */
    static String[] names(Class<? extends Enum<?>> type) {
        return Arrays.stream(type.getEnumConstants()).map(Settings::name).toArray(String[]::new);
    }

    static <E extends Enum<E>> E constant(String name, Class<E> type) {
        return Enum.valueOf(type, name.toUpperCase(Locale.ROOT).replace('-', '_'));
    }

    static String name(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT).replace('_', '-');
    }

    static String absolute(Path file) {
        return file.toAbsolutePath().normalize().toString();
    }
}
