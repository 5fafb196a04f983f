package org.scaledit.scenes;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.IntStream;
import org.scaledit.image.OutputFile;
import org.scaledit.image.PngFile;

/**
 * A folder of pictures with {@code metadata.jsonl}, as Hugging Face's ImageFolder has it: a line of JSON for each with
 * {@code file_name} and {@code text}, the caption to learn from. Beside them {@code caption} (all that there is to say),
 * {@code seed}, {@code style}, {@code background}, {@code relation}, {@code counts}, and of each object in {@code objects}
 * its name, colour, material and {@code box}: left, top, right, bottom in parts of the picture's side.
 */
public final class SceneFolder {
    private static final ObjectMapper JSON = new ObjectMapper();

    private SceneFolder() {}

    /**
     * Which pictures.
     *
     * @param seed of the first one; the next has the next
     * @param size pixels along each side, 64 to 8192
     */
    public record Order(long seed, int count, int size) {
        public Order {
            SceneRenderer.requireSize(size);
            if (count < 1) {
                throw new IllegalArgumentException("count is " + count + ", expected at least 1");
            }
        }
    }

    /**
     * Writes the pictures, on all processors, and {@code metadata.jsonl} last.
     *
     * @param folder exists; files of these names are replaced
     */
    public static void write(Path folder, Composer composer, SceneRenderer renderer, Order order) {
        List<String> lines = IntStream.range(0, order.count)
                .parallel()
                .mapToObj(i -> {
                    Scene scene = composer.compose(order.seed + i);
                    String name = String.format(Locale.ROOT, "%08d.png", i);
                    write(folder.resolve(name), scene, renderer.render(scene, order.size), order.size);
                    return json(name, scene);
                })
                .toList();
        OutputFile.replace(
                folder.resolve("metadata.jsonl"),
                stream -> stream.write((String.join("\n", lines) + "\n").getBytes(StandardCharsets.UTF_8)));
    }

    private static void write(Path file, Scene scene, byte[] picture, int size) {
        PngFile.write(file, size, size, Map.of("Description", scene.caption()), rows -> {
            byte[] row = new byte[3 * size];
            for (int y = 0; y < size; y++) {
                System.arraycopy(picture, 3 * size * y, row, 0, row.length);
                rows.accept(y, row);
            }
        });
    }

    static String json(String fileName, Scene scene) {
        ObjectNode json = JSON.createObjectNode();
        json.put("file_name", fileName);
        json.put("text", scene.text());
        json.put("caption", scene.caption());
        json.put("seed", scene.seed());
        json.put("style", scene.style().word());
        json.put("background", scene.background().word());
        scene.relation().ifPresent(relation -> json.put("relation", relation.words()));
        ObjectNode counts = json.putObject("counts");
        for (Scene.Item item : scene.items()) {
            String name = item.object().name();
            counts.put(name, counts.path(name).asInt(0) + 1);
            ObjectNode object = json.withArray("objects").addObject();
            object.put("object", name);
            item.colour().ifPresent(colour -> object.put("colour", colour.word()));
            if (item.material() != Material.NONE) {
                object.put("material", item.material().word());
            }
            Box box = item.box();
            for (double edge : new double[] {box.left(), box.top(), box.right(), box.bottom()}) {
                object.withArray("box").add(Math.round(edge * 1e5) / 1e5);
            }
        }
        return json.toString();
    }
}
