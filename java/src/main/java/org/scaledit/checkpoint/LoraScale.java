package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.TreeMap;

/**
 * The scale of a LoRA's layers where the file says it once, in the metadata that diffusers writes: alpha of all
 * modules, of some modules by name, and whether alpha is divided by the rank or by its square root.
 */
record LoraScale(OptionalDouble alpha, Map<String, Double> alphaOf, boolean squareRoot) {
    static final String ENTRY = "lora_adapter_metadata";
    private static final String PREFIX = "transformer.";

    static LoraScale of(Safetensors source) {
        String json = source.metadata().get(ENTRY);
        if (json == null) {
            return new LoraScale(OptionalDouble.empty(), Map.of(), false);
        }
        String where = ENTRY + " in " + source.path();
        JsonNode settings = parse(json, where);
        if (settings.path(PREFIX + "use_dora").asBoolean()) {
            throw new CheckpointException(where + " says that it is a DoRA, expected a plain LoRA");
        }
        Map<String, Double> alphaOf = new TreeMap<>();
        settings.path(PREFIX + "alpha_pattern")
                .properties()
                .forEach(entry -> alphaOf.put(moduleName(entry.getKey(), where), number(entry.getValue(), where)));
        OptionalDouble alpha = Optional.ofNullable(settings.get(PREFIX + "lora_alpha"))
                .map(value -> OptionalDouble.of(number(value, where)))
                .orElse(OptionalDouble.empty());
        return new LoraScale(
                alpha, alphaOf, settings.path(PREFIX + "use_rslora").asBoolean());
    }

    private static JsonNode parse(String json, String where) {
        try {
            return Json.object(json.getBytes(StandardCharsets.UTF_8), where);
        } catch (IOException e) {
            throw new CheckpointException(where + " cannot be read: " + e.getMessage(), e);
        }
    }

    private static double number(JsonNode value, String where) {
        if (!value.isNumber()) {
            throw new CheckpointException(where + " has alpha " + value + ", expected a number");
        }
        return value.doubleValue();
    }

    /** PEFT takes regular expressions here; names are what is written. */
    private static String moduleName(String pattern, String where) {
        if (!pattern.matches("[\\w.]+")) {
            throw new CheckpointException(where + " has an alpha for " + pattern + ", expected the name of a module");
        }
        return pattern;
    }

    /** alpha / rank of a module; 1 where no alpha is given, as PEFT has it. */
    double of(String module, long rank) {
        double alpha = alphaOf.entrySet().stream()
                .filter(entry -> ("." + module).endsWith("." + entry.getKey()))
                .mapToDouble(Map.Entry::getValue)
                .findFirst()
                .orElse(this.alpha.orElse(rank));
        return alpha / (squareRoot ? Math.sqrt(rank) : rank);
    }
}
