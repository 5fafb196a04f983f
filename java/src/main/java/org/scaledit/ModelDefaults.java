package org.scaledit;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.scaledit.ImageRequest.GuidanceAttention;
import org.scaledit.ImageRequest.Init;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.LoraFile;

/**
 * What a model's {@code generation_config.json} says of how it paints best: the settings of a request that leaves them open.
 *
 * @param request with these settings, and everything else at its default
 * @param loras those that the model brings, in its directory
 * @param settings the fields of the file, for people to read
 */
record ModelDefaults(ImageRequest request, List<LoraFile> loras, Map<String, String> settings) {
    private static final String FILE = "generation_config.json";
    private static final String LORA = "lora";

    /** Sets what a field of the file says. */
    private interface Setter {
        ImageRequest set(ImageRequest request, Config config, String field);
    }

    private record Setting(String field, Setter setter) {}

    private static final List<Setting> SETTINGS = List.of(
            new Setting("width", (request, config, field) -> request.width(config.integer(field))),
            new Setting("height", (request, config, field) -> request.height(config.integer(field))),
            new Setting("ratio", (request, config, field) -> request.ratio(config.integer(field))),
            new Setting("plain_size", (request, config, field) -> request.plainSize(config.integer(field))),
            new Setting("steps", (request, config, field) -> request.steps(config.integer(field))),
            new Setting("guidance", (request, config, field) -> request.guidance(config.number(field))),
            new Setting("negative", (request, config, field) -> request.negative(config.text(field))),
            new Setting("true_guidance", (request, config, field) -> request.trueGuidance(config.number(field))),
            new Setting("guide_steps", (request, config, field) -> request.guideSteps(config.integer(field))),
            new Setting("guide_guidance", (request, config, field) -> request.guideGuidance(config.number(field))),
            new Setting("init", (request, config, field) -> request.init(constant(config, field, Init.class))),
            new Setting("strength", (request, config, field) -> request.strength(config.number(field))),
            new Setting("window", (request, config, field) -> request.window(config.integer(field))),
            new Setting("reach", (request, config, field) -> request.reach(config.integer(field))),
            new Setting(
                    "guidance_attention",
                    (request, config, field) ->
                            request.guidanceAttention(constant(config, field, GuidanceAttention.class))),
            new Setting("guidance_text", (request, config, field) -> request.guidanceText(config.flag(field))),
            new Setting("guidance_margin", (request, config, field) -> request.guidanceMargin(config.integer(field))));

    /** Of a model's directory; nothing if it does not have the file. */
    static ModelDefaults read(Path model) {
        return read(model, ImageRequest.of(""));
    }

    /**
     * The same.
     *
     * @param usual what is so where the file says nothing
     * @throws CheckpointException in one sentence, if a field is unknown, of the wrong kind or out of range
     */
    static ModelDefaults read(Path model, ImageRequest usual) {
        Path file = model.resolve(FILE);
        ImageRequest request = usual;
        if (Files.notExists(file)) {
            return new ModelDefaults(request, List.of(), Map.of());
        }
        Config config = Config.read(file);
        for (Setting setting : SETTINGS) {
            if (config.has(setting.field)) {
                request = set(setting, request, config);
            }
        }
        List<LoraFile> loras = List.of();
        if (config.has(LORA)) {
            Path lora = model.resolve(config.text(LORA));
            config.require(
                    config.text(LORA).matches("[\\w.-]+\\.safetensors") && Files.isRegularFile(lora),
                    LORA,
                    config.text(LORA),
                    "a safetensors file in the model's directory");
            loras = List.of(new LoraFile(lora, 1));
        }
        config.requireNothingElse();
        Map<String, String> settings = config.settings();
        settings.keySet().removeIf(field -> !config.has(field));
        return new ModelDefaults(request, loras, settings);
    }

    private static ImageRequest set(Setting setting, ImageRequest request, Config config) {
        try {
            return setting.setter.set(request, config, setting.field);
        } catch (IllegalArgumentException e) {
            throw new CheckpointException("in " + config.file() + " the " + e.getMessage(), e);
        }
    }

    private static <E extends Enum<E>> E constant(Config config, String field, Class<E> type) {
        config.require(field, Settings.names(type));
        return Settings.constant(config.text(field), type);
    }
}
