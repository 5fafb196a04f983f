package org.scaledit;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
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
        String text = PngText.read(png, KEYWORD);
        try {
            JsonNode json = JSON.readTree(text);
            return new Settings(ScaleDit.Builder.read(json), request(json));
        } catch (JsonProcessingException | IllegalArgumentException e) {
            throw new ImageException(png + " carries settings that cannot be read: " + e.getMessage(), e);
        }
    }

    /** JSON as people read it. */
    static String pretty(String json) {
        try {
            return JSON.writerWithDefaultPrettyPrinter().writeValueAsString(JSON.readTree(json));
        } catch (JsonProcessingException e) {
            throw new ImageException("settings cannot be read: " + e.getOriginalMessage(), e);
        }
    }

    private static ImageRequest request(JsonNode json) {
        ImageRequest request = ImageRequest.of(required(json, "prompt").asText())
                .withoutNegative()
                .size(required(json, "width").asInt(), required(json, "height").asInt())
                .seed(required(json, "seed").asLong())
                .levels(required(json, "levels").asInt())
                .steps(required(json, "steps").asInt())
                .guidance(required(json, "guidance").asDouble())
                .guideSteps(required(json, "guideSteps").asInt())
                .guideGuidance(required(json, "guideGuidance").asDouble())
                .init(constant(json, "init", ImageRequest.Init.class))
                .recordedStrength(required(json, "strength").asDouble())
                .window(required(json, "window").asInt())
                .reach(required(json, "reach").asInt())
                .guidanceAttention(constant(json, "guidanceAttention", ImageRequest.GuidanceAttention.class))
                .guidanceText(required(json, "guidanceText").asBoolean())
                .guidanceMargin(required(json, "guidanceMargin").asInt())
                .attention(constant(json, "attention", ImageRequest.AttentionKind.class));
        if (json.has("clipPrompt")) {
            request = request.clipPrompt(json.get("clipPrompt").asText());
        }
        if (json.has("t5Prompt")) {
            request = request.t5Prompt(json.get("t5Prompt").asText());
        }
        if (json.has("negative")) {
            request = request.negative(json.get("negative").asText());
        }
        if (json.has("trueGuidance")) {
            request = request.trueGuidance(json.get("trueGuidance").asDouble());
        }
        if (json.has("plainSize")) { // any size before it was written
            request = request.plainSize(json.get("plainSize").asInt());
        }
        if (json.has("textTokens")) {
            request = request.textTokens(json.get("textTokens").asInt());
        }
        Optional<Path> guideImage = path(json, "guideImage");
        if (guideImage.isPresent()) {
            request = request.guideImage(guideImage.get());
        }
        int ratio = required(json, "ratio").asInt(); // after what one is chosen by
        request = json.path(CHOSEN).asBoolean() ? request.chosenRatio(ratio) : request.ratio(ratio);
        Optional<Path> noise = path(json, "noise");
        return noise.isPresent() ? request.noise(noise.get()) : request;
    }

    static JsonNode required(JsonNode json, String field) {
        JsonNode value = json.get(field);
        if (value == null) {
            throw new IllegalArgumentException("field " + field + " is missing");
        }
        return value;
    }

    static Optional<Path> path(JsonNode json, String field) {
        return Optional.ofNullable(json.get(field)).map(value -> Path.of(value.asText()));
    }

    static <E extends Enum<E>> E constant(JsonNode json, String field, Class<E> type) {
        return constant(required(json, field).asText(), type);
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
