package org.scaledit.training;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalInt;
import java.util.SortedMap;
import java.util.concurrent.CancellationException;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Reasons;
import org.scaledit.image.OutputFile;
import org.scaledit.image.PictureOrigin;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;
import org.scaledit.sampling.PlainPass;
import org.scaledit.sampling.Prompt;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.Latents;

/**
 * Pictures to train on that the model paints itself, plain FLUX without LoRA: the paper's training set (Scale-DiT, arXiv
 * 2510.16325). A folder gets {@code 000000.png} and so on; {@code metadata.jsonl}, as Hugging Face's ImageFolder has it; {@code
 * dataset.json}, which says what the pictures depend on; and {@code training-cache} with the states of the prompts.
 *
 * <p>A picture depends on its index alone, so a set may be painted in any number of runs and processes, in one folder or
 * in several, whose files are then put together. {@code metadata.jsonl} has a line for each picture that there will be, the same
 * in all of them: nothing is lost or doubled, and {@link Example#of} leaves out what is not painted yet.
 */
public final class PaintedSet {
    /** Says of a folder that pictures in its metadata may be to come. */
    static final String DESCRIPTION = "dataset.json";

    private static final String MODEL = "model";
    private static final String PROMPTS = "prompts";

    private static final int MOST = 1_000_000; // names have six digits

    private static final ObjectMapper JSON = new ObjectMapper();

    /**
     * A part of the pictures: every {@code of}-th one.
     *
     * @param number from 1: of the picture with this index less one, and those that follow
     */
    public record Shard(int number, int of) {
        /** All pictures. */
        public static final Shard WHOLE = new Shard(1, 1);

        public Shard {
            if (of < 1 || number < 1 || number > of) {
                throw new IllegalArgumentException("shard is " + number + "/" + of + ", expected "
                        + (of < 1 ? "1/1" : "1/" + of + " to " + of + "/" + of));
            }
        }
    }

    /**
     * How a picture is painted.
     *
     * @param size pixels along each side, a multiple of 16 from 64 to 8192
     * @param guidance the distilled one; ignored by checkpoints without a guidance embedder
     * @param placement where, and in which precision, the model computes
     * @param fp8 the transformer's large products, on a GPU
     * @param low the transformer's blocks stay in the host's memory, and text is encoded block by block
     */
    public record Painting(int size, int steps, double guidance, Placement placement, boolean fp8, boolean low) {
        public Painting {
            require(size >= 64 && size <= 8192 && size % 16 == 0, "size", size, "a multiple of 16 from 64 to 8192");
            require(steps >= 1 && steps <= 1000, "steps", steps, "1 to 1000");
            require(guidance >= 0 && Double.isFinite(guidance), "guidance", guidance, "a number of 0 or more");
        }
    }

    /**
     * Which pictures.
     *
     * @param model a FLUX.1 checkpoint in diffusers' layout
     * @param prompts a text file with a prompt on each line; the first follows the last until there are enough. Lines without one
     *     are left out
     * @param count of all shards; a set may grow
     * @param folder is made if it is not there; is empty, or has pictures of the same set
     * @param seed of the set
     */
    public record Order(Path model, Path prompts, int count, Path folder, long seed, Shard shard, Painting painting) {
        public Order {
            require(count >= 1 && count <= MOST, "count", count, "1 to " + MOST);
        }
    }

    private static void require(boolean condition, String name, Number given, String expected) {
        if (!condition) {
            throw new IllegalArgumentException(name + " is " + given + ", expected " + expected);
        }
    }

    /** Hears how far the painting is, on its thread. What it throws stops it. */
    public interface Listener {
        /** Prompts that have been encoded, of those that the folder's cache lacked. */
        void encoded(int done, int all);

        /**
         * A picture is there.
         *
         * @param done pictures of the shard, those of earlier runs among them
         * @param perMinute of this run
         */
        void painted(int done, int all, double perMinute, Duration remaining);
    }

    private final Order order;
    private final Painting painting;
    private final Listener listener;
    private final List<String> prompts;
    private final ModelDirectory model;
    private final TextStates texts;

    private PaintedSet(Order order, Listener listener) {
        this.order = order;
        this.painting = order.painting;
        this.listener = listener;
        Placement placement = painting.placement;
        if (painting.low) {
            FluxTransformer.requireLowMemory(placement.cuda());
        }
        if (placement.cuda()) {
            CudaAttention.requireGpu();
        } else {
            Torch.load();
        }
        if (painting.fp8) {
            FluxTransformer.requireFp8(placement);
        }
        this.prompts = prompts(order.prompts);
        this.model = ModelDirectory.open(order.model);
        TextEncoders.check(model);
        AutoencoderKl.check(model.part("vae"));
        FluxConfig config = FluxTransformer.check(model, List.of(), LoraScope.GUIDANCE);
        int textTokens = TrainingSet.Encoding.textTokens(OptionalInt.empty(), config, model);
        describe();
        ExampleCache cache = ExampleCache.in(order.folder.resolve("training-cache"));
        this.texts = new TextStates(model, textTokens, placement, cache);
    }

    /**
     * Paints the pictures of a shard that are not there yet. Interrupting the thread stops it within a block.
     *
     * @throws CancellationException if the thread is interrupted; pictures that were finished stay, none is half-written
     * @throws RuntimeException with one sentence if a file is missing or wrong or cannot be written, or if the folder has
     *     something else than pictures of this set
     */
    public static void paint(Order order, Listener listener) {
        new PaintedSet(order, listener).paint();
    }

    private static List<String> prompts(Path file) {
        List<String> prompts;
        try (Stream<String> lines = Files.lines(file)) {
            prompts = lines.map(String::strip).filter(line -> !line.isEmpty()).toList();
        } catch (IOException | UncheckedIOException e) {
            throw new TrainingException("cannot read prompts " + file + ": " + Reasons.of(e), e);
        }
        if (prompts.isEmpty()) {
            throw new TrainingException("prompts " + file + " has no prompt, expected one on each line");
        }
        return prompts;
    }

    private String prompt(int index) {
        return prompts.get(index % prompts.size());
    }

    private static String name(int index) {
        return String.format(Locale.ROOT, "%06d.png", index);
    }

    private Path file(int index) {
        return order.folder.resolve(name(index));
    }

    /** The first file of a folder says what it is for; the second one, which pictures there will be. */
    private void describe() {
        PictureOrigin origin = new PictureOrigin(order.folder, DESCRIPTION, "this set", origin());
        try {
            Files.createDirectories(order.folder);
        } catch (IOException e) {
            throw new TrainingException("folder " + order.folder + " cannot be made: " + Reasons.of(e), e);
        }
        try {
            origin.begin(this::sentence, TrainingException::new);
            Path metadata = order.folder.resolve(Example.METADATA);
            if (!Files.exists(metadata) || lines(metadata) < order.count) {
                OutputFile.replace(metadata, stream -> stream.write(metadata().getBytes(StandardCharsets.UTF_8)));
            }
        } catch (IOException | UncheckedIOException e) {
            throw new TrainingException("cannot read folder " + order.folder + ": " + Reasons.of(e), e);
        }
    }

    private static long lines(Path file) throws IOException {
        try (Stream<String> lines = Files.lines(file)) {
            return lines.count();
        }
    }

    private String metadata() {
        StringBuilder lines = new StringBuilder();
        for (int index = 0; index < order.count; index++) {
            lines.append(JSON.createObjectNode().put("file_name", name(index)).put("text", prompt(index)))
                    .append('\n');
        }
        return lines.toString();
    }

    /** All that decides what a picture of an index is, apart from the device; by the names of the command line's options. */
    private Map<String, String> origin() {
        ContentHash hash = new ContentHash();
        prompts.forEach(hash::text);
        Map<String, String> origin = new LinkedHashMap<>();
        origin.put(
                MODEL,
                TrainingSet.identity(
                        model,
                        "transformer",
                        "vae",
                        "tokenizer",
                        "tokenizer_2",
                        "text_encoder",
                        "text_encoder_2",
                        "scheduler"));
        origin.put(PROMPTS, hash.hex());
        origin.put("size", String.valueOf(painting.size));
        origin.put("steps", String.valueOf(painting.steps));
        origin.put("guidance", String.valueOf(painting.guidance));
        origin.put("seed", String.valueOf(order.seed));
        boolean float32 = painting.placement.dtype() == torch.ScalarType.Float;
        origin.put("precision", painting.fp8 ? "fp8" : float32 ? "float32" : "bfloat16");
        return origin;
    }

    private String sentence(PictureOrigin.Difference difference) {
        String set = "the set in " + order.folder + " was painted ";
        return switch (difference.setting()) {
            case MODEL -> set + "by another model";
            case PROMPTS -> set + "from other prompts";
            default ->
                set + "with " + difference.setting() + " " + difference.then() + ", expected the same instead of "
                        + difference.now();
        };
    }

    private void paint() {
        int[] indices = IntStream.range(0, order.count)
                .filter(index -> index % order.shard.of == order.shard.number - 1)
                .toArray();
        int[] missing = IntStream.of(indices)
                .filter(index -> !PngFile.isWhole(file(index)))
                .toArray();
        encode(missing);
        if (missing.length == 0) {
            return;
        }
        try (FluxTransformer transformer = FluxTransformer.load(model, painting.placement, painting.fp8, painting.low);
                AutoencoderKl vae = AutoencoderKl.load(model.part("vae"), painting.placement)) {
            boolean float32 = painting.placement.dtype() == torch.ScalarType.Float;
            PlainPass pass = new PlainPass(model, transformer, float32, painting.steps, (float) painting.guidance);
            long begun = System.nanoTime();
            for (int made = 1; made <= missing.length; made++) {
                paint(missing[made - 1], pass, vae);
                double seconds = (System.nanoTime() - begun) * 1e-9 / made;
                int left = missing.length - made;
                Duration remaining = Duration.ofMillis((long) (1000 * seconds * left));
                listener.painted(indices.length - left, indices.length, 60 / seconds, remaining);
            }
        }
    }

    private void encode(int[] indices) {
        SortedMap<String, String> lacking = texts.missing(IntStream.of(indices).mapToObj(this::prompt));
        int[] done = {0};
        texts.fill(lacking, painting.low, () -> {
            listener.encoded(++done[0], lacking.size());
            throwIfInterrupted();
        });
    }

    private void paint(int index, PlainPass pass, AutoencoderKl vae) {
        throwIfInterrupted(); // also where nothing is computed: an interrupted thread reads no file
        TokenGrid grid = TokenGrid.ofPixels(painting.size, painting.size);
        Pixels pixels = new Pixels(grid.pixelWidth(), grid.pixelHeight());
        Tensors.run(() -> {
            Tensor latents = pass.paint(
                    grid,
                    Prompt.of(texts.of(prompt(index))),
                    SeededNoise.draw(SampleOrder.picture(order.seed, index), grid),
                    INTERRUPTIBLE); // [w·h, 64]
            Tensor raw = Latents.unscale(
                    Latents.unpack(Placement.FLOAT32_CPU.place(latents), grid.height(), grid.width()), vae.config());
            vae.decode(raw, (tiles, all) -> throwIfInterrupted(), pixels::put);
        });
        PngFile.write(file(index), pixels, Map.of("Description", prompt(index)));
    }

    private static final PlainPass.Listener INTERRUPTIBLE = new PlainPass.Listener() {
        @Override
        public void step(int step, int steps) {}

        @Override
        public void betweenBlocks() {
            throwIfInterrupted();
        }
    };

    private static void throwIfInterrupted() {
        if (Thread.interrupted()) {
            throw new CancellationException("the painting was stopped; the same command goes on");
        }
    }
}
