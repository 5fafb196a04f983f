package org.scaledit.evaluation;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.CancellationException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.GeneratedImage;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import org.scaledit.attention.CudaAttention;
import org.scaledit.image.OutputFile;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;
import org.scaledit.judge.Detection;
import org.scaledit.judge.Judge;
import org.scaledit.judge.Scoring;
import org.scaledit.judge.Shares;
import org.scaledit.scenes.Background;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.Probe;
import org.scaledit.scenes.Scene;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;

/** How much of what prompts ask for a model paints, as GenEval measures it (arXiv 2310.11513), with scenes and a judge of them. */
public final class PromptBenchmark {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int SHOWN = 400; // on the contact sheet
    private static final int LARGEST = 26_752; // pixels along each side of a picture whose bytes are one array

    /**
     * A square.
     *
     * @param rgb red, green and blue of each pixel, row by row: {@code [side · side · 3]}
     * @param window tokens along each side of a window that it was painted in, whose borders are looked at
     */
    public record Picture(byte[] rgb, int window) {
        /** Pixels along each side: with several levels more than were asked for. */
        private int side() {
            return (int) Math.sqrt(rgb.length / 3.0);
        }
    }

    /** Paints a scene that is known by its caption, or by all of it. */
    public interface Painter {
        Picture paint(Scene scene);

        /**
         * The same, which writes each picture as it is painted: 00000.png, 00001.png and so on, with the caption.
         *
         * @param folder exists
         */
        default Painter keepingIn(Path folder) {
            AtomicInteger number = new AtomicInteger();
            return scene -> {
                Picture picture = paint(scene);
                Path file = folder.resolve(String.format(Locale.ROOT, "%05d.png", number.getAndIncrement()));
                PngFile.write(file, picture.rgb, picture.side(), Map.of("Description", scene.caption()));
                return picture;
            };
        }

        /** A model's pictures: from the caption, with the scene's seed, in the windows that the model's own settings may say. */
        static Painter of(ScaleDit model, ImageRequest request) {
            return scene -> {
                GeneratedImage image =
                        model.generate(request.prompt(scene.caption()).seed(scene.seed()));
                requireSide(Math.max(image.width(), image.height()), 1);
                byte[] rgb = new byte[3 * image.width() * image.height()];
                for (int y = 0; y < image.height(); y++) {
                    System.arraycopy(image.row(y), 0, rgb, 3 * image.width() * y, 3 * image.width());
                }
                return new Picture(rgb, image.request().window());
            };
        }

        /** True renders: what the judge makes of these is the most that a model can reach. Borders are those of usual windows. */
        static Painter of(SceneRenderer renderer, int size) {
            int window = ImageRequest.of("").window();
            return scene -> new Picture(renderer.render(scene, size), window);
        }
    }

    /**
     * Which prompts.
     *
     * @param count of all probes together, which take turns
     * @param size pixels along each side of a picture
     */
    public record Order(int count, int size, long seed) {
        public Order {
            if (count < 1) {
                throw new IllegalArgumentException("prompts is " + count + ", expected 1 or more");
            }
            if (size > LARGEST) {
                throw new IllegalArgumentException("size is " + size + ", expected up to " + LARGEST + " to be judged");
            }
        }
    }

    /** Hears how far it is. */
    public interface Listener {
        /** @param right pictures of those that are done */
        void judged(int done, int all, int right);
    }

    private record Row(Probe probe, String prompt, List<Detection> seen, boolean right) {}

    private final Judge judge;
    private final Order order;
    private final List<Row> rows = new ArrayList<>();
    private final ContactSheet sheet;
    private final Seams seams = new Seams();

    private PromptBenchmark(Judge judge, Order order) {
        this.judge = judge;
        this.order = order;
        this.sheet = new ContactSheet(order.count, SHOWN);
    }

    /**
     * Paints and judges.
     *
     * @param composer of scenes whose captions are the prompts
     * @throws CancellationException if the thread is interrupted
     * @throws IllegalArgumentException if pictures are smaller than the judge's
     */
    public static PromptBenchmark run(Judge judge, Composer composer, Order order, Painter painter, Listener listener) {
        PromptBenchmark benchmark = new PromptBenchmark(judge, order);
        SplittableRandom seeds = new SplittableRandom(order.seed);
        for (int i = 0; i < order.count; i++) {
            throwIfInterrupted();
            Probe probe = Probe.values()[i % Probe.values().length];
            try {
                benchmark.add(probe, composer.compose(probe, seeds.nextLong() >>> 1), painter);
            } catch (RuntimeException e) {
                throwIfInterrupted(); // a file that was being read is closed by an interrupt
                throw e;
            }
            listener.judged(i + 1, order.count, (int)
                    benchmark.rows.stream().filter(Row::right).count());
        }
        return benchmark;
    }

    /**
     * Pixels along each side of what a model makes of such a request: with several levels more than were asked for.
     *
     * @param whole with what the model itself brings
     */
    public static long lastSide(ImageRequest whole) {
        long side = whole.width();
        for (int level = 2; level <= whole.levels(); level++) {
            side *= Math.max(1, whole.ratio()); // with ratio 0 the model refuses further levels
        }
        return side;
    }

    /**
     * Of pictures that are to be judged, before they are painted.
     *
     * @param side pixels along each of theirs
     * @param least the judge's own size
     * @throws IllegalArgumentException if the judge could not look at them
     */
    public static void requireSide(long side, int least) {
        if (side < least || side > LARGEST) {
            throw new IllegalArgumentException("the pictures to be judged have " + side + " × " + side
                    + " pixels, expected " + least + " × " + least + " to " + LARGEST + " × " + LARGEST);
        }
    }

    /**
     * Opens a judge, once it is certain that it can compute.
     *
     * @param cuda whether on a GPU; in float32 there as well
     */
    public static Judge judge(Path folder, boolean cuda) {
        if (cuda) {
            CudaAttention.requireGpu();
        } else {
            Torch.load();
        }
        return Judge.open(folder, new Placement(torch.ScalarType.Float, cuda));
    }

    private static void throwIfInterrupted() {
        if (Thread.interrupted()) {
            throw new CancellationException("the evaluation was stopped");
        }
    }

    private void add(Probe probe, Scene scene, Painter painter) {
        Picture painted = painter.paint(scene);
        if (scene.background() != Background.BRICK_WALL) {
            seams.add(painted.rgb, painted.side(), painted.window);
        }
        Tensors.run(() -> {
            Tensor picture = Pixels.toTensor(painted.rgb, painted.side());
            List<Detection> seen = judge.detect(picture);
            boolean right = Scoring.isRight(probe, scene, seen);
            rows.add(new Row(probe, scene.caption(), seen, right));
            sheet.add(picture, right);
        });
    }

    /** How much was right. */
    public Shares right() {
        return Shares.of(rows.stream().map(row -> new Shares.Mark(row.probe, row.right)));
    }

    /**
     * How much neighbouring pixels differ across borders of windows, in parts of how much others do; none if pictures have one
     * window. Those of brick walls do not count, whose joints lie along such borders.
     */
    public Optional<Seams.Ratio> seams() {
        return seams.windows();
    }

    /** The same of borders of tokens inside windows, in the same pictures: what borders of windows would be without windows. */
    public Optional<Seams.Ratio> tokenBorders() {
        return seams.tokens();
    }

    /**
     * Writes {@code prompts.csv}, a row for each; {@code prompts.json}, the shares, with the judge's own beside them, and the
     * seams; and {@code prompts.png}, the pictures.
     *
     * @param folder exists
     * @param painter who has painted, for the JSON
     */
    public void write(Path folder, String painter) {
        sheet.write(folder.resolve("prompts.png"));
        replace(folder.resolve("prompts.csv"), csv());
        replace(folder.resolve("prompts.json"), json(painter));
    }

    private static void replace(Path file, String contents) {
        OutputFile.replace(file, stream -> stream.write(contents.getBytes(StandardCharsets.UTF_8)));
    }

    private String csv() {
        StringBuilder csv = new StringBuilder("kind,prompt,seen,right\n");
        for (Row row : rows) {
            String seen = row.seen.stream().map(Detection::words).collect(Collectors.joining("; "));
            csv.append(String.join(",", row.probe.word(), quoted(row.prompt), quoted(seen), String.valueOf(row.right)));
            csv.append('\n');
        }
        return csv.toString();
    }

    private static String quoted(String text) {
        return '"' + text.replace("\"", "\"\"") + '"';
    }

    private static void put(ObjectNode json, String name, Seams.Ratio ratio) {
        json.put(name, ratio.value());
        if (!Double.isNaN(ratio.error())) {
            json.put(name + "_error", ratio.error());
        }
    }

    private String json(String painter) {
        ObjectNode json = JSON.createObjectNode();
        json.put("date", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
        json.put("scaledit", ScaleDit.version());
        json.put("painter", painter);
        json.put("prompts", order.count);
        json.put("size", order.size);
        json.put("seed", order.seed);
        right().write(json.putObject("right"));
        judge.accuracy().heldOut().write(json.putObject("judge_right_about_renders"));
        seams().ifPresent(ratio -> put(json, "seams", ratio));
        tokenBorders().ifPresent(ratio -> put(json, "token_borders", ratio));
        try {
            return JSON.writerWithDefaultPrettyPrinter().writeValueAsString(json) + "\n";
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }
}
