package org.scaledit.scenes;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.scaledit.file.Reasons;
import org.scaledit.image.ImageException;
import org.scaledit.image.OutputFile;
import org.scaledit.image.PictureFolder;
import org.scaledit.image.PictureOrigin;
import org.scaledit.image.PngFile;

/**
 * A folder of pictures with {@code metadata.jsonl}, as Hugging Face's ImageFolder has it: a line of JSON for each with
 * {@code file_name} and {@code text}, the caption to learn from. Beside them {@code caption} (all that there is to say),
 * {@code seed}, {@code style}, {@code background}, {@code relation} of the first object to the second, {@code counts}
 * ({@code object}, {@code count}) and {@code objects}: of each {@code object}, {@code colour}, {@code material} and {@code
 * box}, which is left, top, right and bottom in parts of the picture's side. What a scene has none of is null. {@code
 * scenes.json} says what the pictures depend on.
 */
public final class SceneFolder {
    /** Says which scenes a folder has. */
    private static final String DESCRIPTION = "scenes.json";

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
            long largest = Long.MAX_VALUE - (count - 1);
            if (seed > largest) {
                throw new IllegalArgumentException(
                        "seed is " + seed + ", expected at most " + largest + " for " + count + " pictures");
            }
        }
    }

    /**
     * Writes the pictures, on all processors, and {@code metadata.jsonl} last.
     *
     * @param folder exists; is empty, or has pictures of the same scenes, perhaps fewer, which are replaced
     * @throws IllegalArgumentException if the folder has something else
     * @throws CancellationException if the thread is interrupted; pictures that were finished stay, none is half-written
     * @throws org.scaledit.image.ImageException if a file cannot be written, or a sprite cannot be read
     */
    public static void write(Path folder, Composer composer, SceneRenderer renderer, Order order) {
        describe(folder, composer, order);
        ExecutorService workers =
                Executors.newFixedThreadPool(Runtime.getRuntime().availableProcessors());
        try {
            List<Future<String>> lines = IntStream.range(0, order.count)
                    .mapToObj(i -> workers.submit(() -> {
                        Scene scene = composer.compose(order.seed + i);
                        String name = name(i);
                        PngFile.write(
                                folder.resolve(name),
                                renderer.render(scene, order.size),
                                order.size,
                                Map.of("Description", scene.caption()));
                        return json(name, scene) + "\n";
                    }))
                    .toList();
            StringBuilder metadata = new StringBuilder();
            for (Future<String> line : lines) {
                metadata.append(line.get());
            }
            OutputFile.replace(
                    folder.resolve("metadata.jsonl"),
                    stream -> stream.write(metadata.toString().getBytes(StandardCharsets.UTF_8)));
        } catch (InterruptedException e) {
            throw new CancellationException("the scenes were cancelled");
        } catch (ExecutionException e) {
            if (e.getCause() instanceof Error error) {
                throw error;
            }
            throw e.getCause() instanceof RuntimeException reason ? reason : new IllegalStateException(e.getCause());
        } finally {
            end(workers);
        }
    }

    private static String name(int index) {
        return String.format(Locale.ROOT, "%08d.png", index);
    }

    /** Others' pictures would stay among these. */
    private static void describe(Path folder, Composer composer, Order order) {
        Map<String, String> settings = new LinkedHashMap<>(); // by the names of the command line's options
        settings.put("seed", String.valueOf(order.seed));
        settings.put("size", String.valueOf(order.size));
        settings.put("held-out", composer.heldOut());
        try {
            new PictureOrigin(folder, DESCRIPTION, "these scenes", settings)
                    .begin(
                            difference -> "the scenes in " + folder + " were composed with " + difference.setting()
                                    + " " + difference.then() + ", expected the same instead of " + difference.now(),
                            IllegalArgumentException::new);
        } catch (IOException e) {
            throw new ImageException("cannot read " + folder.resolve(DESCRIPTION) + ": " + Reasons.of(e), e);
        }
        Set<String> names =
                IntStream.range(0, order.count).mapToObj(SceneFolder::name).collect(Collectors.toSet());
        for (String there : PictureFolder.names(folder)) {
            if (!names.contains(there)) {
                throw new IllegalArgumentException("folder " + folder + " has " + there + " beside the " + order.count
                        + " scenes, expected none but theirs");
            }
        }
    }

    /** Pictures that are being written are ended, so that none is left half-written. */
    private static void end(ExecutorService workers) {
        workers.shutdownNow();
        boolean interrupted = false;
        boolean ended = false;
        while (!ended) {
            try {
                ended = workers.awaitTermination(1, TimeUnit.HOURS);
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    static String json(String fileName, Scene scene) {
        ObjectNode json = JSON.createObjectNode();
        json.put("file_name", fileName);
        // A folder's captions are all there: whoever trains without some leaves them out.
        json.put("text", scene.text().isEmpty() ? scene.caption() : scene.text());
        json.put("caption", scene.caption());
        json.put("seed", scene.seed());
        json.put("style", scene.style().word());
        json.put("background", scene.background().word());
        json.put("relation", scene.relation().map(Relation::words).orElse(null));
        Map<String, Integer> counts = new LinkedHashMap<>();
        scene.items().forEach(item -> counts.merge(item.object().name(), 1, Integer::sum));
        counts.forEach((name, count) ->
                json.withArray("counts").addObject().put("object", name).put("count", count));
        for (Scene.Item item : scene.items()) {
            ObjectNode object = json.withArray("objects").addObject();
            object.put("object", item.object().name());
            object.put("colour", item.colour().map(Colour::word).orElse(null));
            object.put(
                    "material",
                    item.material() == Material.NONE ? null : item.material().word());
            Box box = item.box();
            for (double edge : new double[] {box.left(), box.top(), box.right(), box.bottom()}) {
                object.withArray("box").add(Math.round(edge * 1e5) / 1e5);
            }
        }
        return json.toString();
    }
}
