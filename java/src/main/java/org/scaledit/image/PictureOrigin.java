package org.scaledit.image;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Stream;

/**
 * The first file of a folder that is filled with pictures. It says what they depend on: others are not mixed in, and nobody's are
 * lost by mistake.
 *
 * @param folder exists
 * @param name of the file, which is JSON
 * @param these what is made, as in "expected an empty folder, or one of these scenes"
 * @param settings that decide about the pictures, by their names
 */
public record PictureOrigin(Path folder, String name, String these, Map<String, String> settings) {
    private static final ObjectMapper JSON = new ObjectMapper();

    /**
     * A setting of pictures that are there and of those that are asked for.
     *
     * @param setting its name
     */
    public record Difference(String setting, String then, String now) {}

    /**
     * Writes the file in an empty folder; in another one, compares.
     *
     * @param sentence of a difference
     * @param refusal with one sentence, of a folder that is for something else
     */
    public void begin(Function<Difference, String> sentence, Function<String, RuntimeException> refusal)
            throws IOException {
        Path file = folder.resolve(name);
        boolean empty = isEmpty(); // before the next question: another process may just have begun in the same folder
        if (!Files.exists(file)) {
            if (!empty) {
                throw refusal.apply("folder " + folder + " has files but no " + name
                        + ", expected an empty folder, or one of " + these);
            }
            String json = JSON.writerWithDefaultPrettyPrinter().writeValueAsString(settings) + "\n";
            OutputFile.replace(file, stream -> stream.write(json.getBytes(StandardCharsets.UTF_8)));
        }
        JsonNode there;
        try {
            there = JSON.readTree(Files.readAllBytes(file));
        } catch (JsonProcessingException e) {
            RuntimeException refused = refusal.apply(file + " is no JSON, expected that of " + these);
            refused.initCause(e);
            throw refused;
        }
        settings.forEach((setting, now) -> {
            String then = there.path(setting).asText("unknown");
            if (!then.equals(now)) {
                throw refusal.apply(sentence.apply(new Difference(setting, then, now)));
            }
        });
    }

    private boolean isEmpty() throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.allMatch(entry -> entry.getFileName().toString().startsWith("."));
        }
    }
}
