package org.scaledit.checkpoint;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SortedMap;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;

/**
 * Writes a LoRA as diffusers and PEFT do: {@code transformer.<module>.lora_A.weight} and {@code lora_B.weight} in float32,
 * rank, alpha and modules as diffusers' {@code lora_adapter_metadata}. {@link Lora#load} reads it.
 */
public final class PeftLora {
    private static final String PREFIX = "transformer.";
    private static final String DOWN = ".lora_A.weight";
    private static final String UP = ".lora_B.weight";

    private PeftLora() {}

    /**
     * The file appears, or replaces an older one, only when it is whole.
     *
     * @param layers by module, all of one rank and scale
     * @param metadata what the file shall say beside that
     * @throws CheckpointException if the file cannot be written
     */
    public static void write(Path file, SortedMap<String, Lora.Layer> layers, Map<String, String> metadata) {
        Map<String, Declaration> contents = new LinkedHashMap<>();
        layers.forEach((module, layer) -> {
            contents.put(
                    PREFIX + module + DOWN,
                    Declaration.of(Dtype.F32, layer.down().shape()));
            contents.put(
                    PREFIX + module + UP, Declaration.of(Dtype.F32, layer.up().shape()));
        });
        Map<String, String> entries = new LinkedHashMap<>(metadata);
        entries.put("format", "pt");
        entries.put(LoraScale.ENTRY, settings(layers));
        try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, entries)) {
            layers.forEach((module, layer) -> {
                writer.write(PREFIX + module + DOWN, layer.down());
                writer.write(PREFIX + module + UP, layer.up());
            });
            writer.commit();
        }
    }

    /** The arguments of PEFT's LoraConfig; diffusers asks for both patterns. */
    private static String settings(SortedMap<String, Lora.Layer> layers) {
        Lora.Layer any = layers.values().iterator().next();
        double alpha = any.scale() * any.rank();
        boolean uniform =
                layers.values().stream().allMatch(layer -> layer.rank() == any.rank() && layer.scale() == any.scale());
        if (!uniform) {
            throw new IllegalArgumentException("layers differ in rank or scale, expected one of each");
        }
        ObjectNode settings = Json.newObject();
        settings.put(PREFIX + "r", any.rank());
        if (alpha == Math.rint(alpha)) {
            settings.put(PREFIX + "lora_alpha", (long) alpha); // PEFT's is an integer
        } else {
            settings.put(PREFIX + "lora_alpha", alpha);
        }
        ArrayNode modules = settings.putArray(PREFIX + "target_modules");
        layers.keySet().forEach(modules::add);
        settings.putObject(PREFIX + "rank_pattern");
        settings.putObject(PREFIX + "alpha_pattern");
        return settings.toString();
    }
}
