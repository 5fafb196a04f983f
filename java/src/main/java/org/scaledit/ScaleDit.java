package org.scaledit;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.NativeAttention;
import org.scaledit.checkpoint.EmbeddedModel;
import org.scaledit.checkpoint.LoraFile;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.image.ImageFile;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;
import org.scaledit.ranks.Host;
import org.scaledit.ranks.Hosts;
import org.scaledit.ranks.RanksStoppedException;
import org.scaledit.sampling.FileNoise;
import org.scaledit.sampling.Noise;
import org.scaledit.sampling.Plan;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.sampling.Trace;
import org.scaledit.vae.BandConsumer;

/**
 * A FLUX.1 checkpoint that paints at 4096² and beyond: Scale-DiT (arXiv 2510.16325).
 *
 * <pre>{@code
 * try (ScaleDit model = ScaleDit.load(Path.of("FLUX.1-dev"))) {
 *     GeneratedImage image = model.generate(ImageRequest.of("a fox in snow").size(4096, 4096).seed(42));
 *     image.writePng(Path.of("fox.png"));
 * }
 * }</pre>
 *
 * <p>Loading checks every file by its header; weights are read when the first picture needs them. A model makes one
 * picture at a time: further threads wait. {@link #close} frees all native memory.
 */
public final class ScaleDit implements AutoCloseable {

    /** In which precision the model computes. */
    public enum Precision {
        FLOAT32,
        BFLOAT16,
        /**
         * bfloat16, but the transformer's large products in FP8 (e4m3), with a scale for each token and each output
         * channel: on a GPU of compute capability 8.9 or later. The layers for modulation stay in bfloat16, so FLUX.1-dev's
         * weights take 15 GB instead of 24.
         */
        FP8;

        /** Unless another one is asked for: bfloat16 on a GPU and on a CPU that multiplies it (AVX512_BF16), else float32. */
        public static Precision defaultOn(Device device) {
            return device == Device.CUDA || NativeAttention.multipliesBfloat16() ? BFLOAT16 : FLOAT32;
        }
    }

    /** Where the model computes. */
    public enum Device {
        CPU,
        /** An NVIDIA GPU, the first that CUDA finds, or several ({@link Builder#gpus}). Nothing falls back to the CPU: what is missing is said in one sentence. */
        CUDA
    }

    /** How much of a GPU's memory the model takes. A picture is the same with either. */
    public enum Memory {
        /** All of the transformer is in the GPU's memory. */
        NORMAL,
        /**
         * The weights of the transformer's blocks stay in the host's memory, where they are locked, and each comes to the
         * GPU while the one before it computes; the text is encoded block by block. FLUX.1-dev in FP8 then takes about 3 GiB
         * of the GPU's memory for 4096², and 15 GB of the host's. It costs a copy of all blocks at each step, 0.3 s at 50 GB
         * a second: where a step takes longer, as at 4096², it is hidden; at 1024² it is what the step takes.
         */
        LOW
    }

    /** Which tokens a LoRA's layers act on. */
    public enum LoraScope {
        /** The guidance tokens alone (the paper). */
        GUIDANCE,
        /** All tokens that pass through a layer, as if the LoRA were merged into the weights. */
        ALL,
        /** As in the released code: Q, K and V of image and guidance tokens, everything else of guidance tokens. */
        RELEASED
    }

    /** Of this library's jar; what its package says depends on which of several jars the first class of that came from. */
    private static final String VERSION_FILE = "/META-INF/maven/org.scaledit/scaledit/pom.properties";

    private final Builder options;
    private final Pipeline pipeline;
    private final ImageRequest defaults;
    private final ReentrantLock busy = new ReentrantLock();

    private ScaleDit(Builder options, Pipeline pipeline, ImageRequest defaults) {
        this.options = options;
        this.pipeline = pipeline;
        this.defaults = defaults;
    }

    /**
     * Opens a checkpoint with everything at its default: on the CPU, in {@link Precision#defaultOn its precision}, with the LoRAs that it brings itself.
     *
     * @param model a FLUX.1 checkpoint in diffusers' layout
     * @throws RuntimeException with one sentence that names the file and the tensor if something is missing or wrong
     */
    public static ScaleDit load(Path model) {
        return builder(model).load();
    }

    /**
     * Opens the model of the jar {@code scaledit-demo-model}, a small one, with everything at its default. On a CPU its pictures
     * are 1024 pixels wide and high unless a request says otherwise.
     *
     * @throws RuntimeException with one sentence, if the class path has no such jar
     */
    public static ScaleDit loadEmbedded() {
        return builderEmbedded().load();
    }

    /** Opens the same with LoRAs, another VAE, precision or device. */
    public static Builder builderEmbedded() {
        return new Builder(null);
    }

    /** Opens a checkpoint with LoRAs, another VAE, precision or device. */
    public static Builder builder(Path model) {
        return new Builder(Objects.requireNonNull(model, "model"));
    }

    /** The model with which a picture of this program was made, read from the PNG's text chunks. */
    public static Builder builderFrom(Path png) {
        return Settings.read(png).model();
    }

    /**
     * Says in a few lines of text what a checkpoint, a LoRA or a picture of this program holds.
     *
     * @param path a diffusers directory, a safetensors file or a PNG
     */
    public static String describe(Path path) {
        return Description.of(path);
    }

    /** The LoRAs that a checkpoint brings: it paints under them unless others are given. */
    public static List<LoraFile> lorasOf(Path model) {
        ModelDirectory.open(model);
        return ModelDefaults.read(model).loras();
    }

    /** The request as a checkpoint would paint it: what it leaves open is as the checkpoint says that it paints best. */
    public static ImageRequest completed(Path model, ImageRequest request) {
        ModelDirectory.open(model);
        return request.over(ModelDefaults.read(model).request());
    }

    /** The version of this library, "1.2.3". */
    public static String version() {
        Properties properties = new Properties();
        try (InputStream file = ScaleDit.class.getResourceAsStream(VERSION_FILE)) {
            if (file != null) {
                properties.load(file);
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return properties.getProperty("version", "development");
    }

    /** {@link #generate(ImageRequest, Consumer)} without progress. */
    public GeneratedImage generate(ImageRequest request) {
        return generate(request, progress -> {});
    }

    /**
     * Makes a picture. Interrupting the thread cancels it within one transformer block or VAE tile, as does an exception from
     * {@code progress}; either way everything that was allocated on the way is freed, and the model can be used on.
     *
     * @param progress called on this thread
     * @throws java.util.concurrent.CancellationException if the thread is interrupted
     * @throws GpuException if the GPU's memory is too small for it, with what would fit; the next request may succeed. Or if
     *     the GPU is lost
     * @throws IllegalArgumentException if the request does not fit the model
     * @throws IllegalStateException if the model is closed; or, of several hosts, if this one is not the first, or one of them
     *     does not come, has another request, fails or falls silent
     */
    public GeneratedImage generate(ImageRequest request, Consumer<Progress> progress) {
        Objects.requireNonNull(progress, "progress");
        requireFirst(true);
        ImageRequest whole = request.over(defaults);
        ImageRequest seeded = seeded(whole);
        Plan plan = plan(seeded, false);
        lock();
        try {
            Pixels pixels =
                    new Pixels(plan.lastGrid().pixelWidth(), plan.lastGrid().pixelHeight());
            together(
                    whole, plan, hosts -> paint(seeded, plan, Pipeline.Painter.together(hosts), progress, pixels::put));
            return new GeneratedImage(pixels, new Settings(options, seeded));
        } finally {
            busy.unlock();
        }
    }

    /**
     * Takes part in a picture that the first of several hosts ({@link Builder#host}) makes of the same request at the same time;
     * for the other ones. Returns when the first one has the picture. Interrupting the thread cancels it on all hosts.
     *
     * @param request without a seed, if it is to be drawn there
     * @throws RuntimeException likewise
     */
    public void follow(ImageRequest request) {
        requireFirst(false);
        ImageRequest whole = request.over(defaults);
        Plan plan = plan(whole, false);
        lock();
        try {
            together(whole, plan, hosts -> pipeline.follow(whole, plan, hosts.orElseThrow()));
        } finally {
            busy.unlock();
        }
    }

    /** Waits for a generation of another thread. */
    private void lock() {
        try {
            busy.lockInterruptibly();
        } catch (InterruptedException e) {
            throw new CancellationException("the generation was cancelled");
        }
    }

    /** The second picture would take the first one's place. */
    private static void requireApart(List<Path> files) {
        Set<Path> known = new HashSet<>();
        for (Path file : files) {
            if (!known.add(file.toAbsolutePath().normalize())) {
                throw new IllegalArgumentException("file " + file + " is given twice, expected one for each request");
            }
        }
    }

    /** @param first whether it is for the first host alone, or for the other ones */
    private void requireFirst(boolean first) {
        Host host = options.host;
        boolean isFirst = host == null || host.number() == 0;
        if (first && !isFirst) {
            throw new IllegalStateException(host + " is asked for a picture, expected host 0, or to follow");
        }
        if (!first && isFirst) {
            throw new IllegalStateException((host == null ? "a host of its own" : host.toString())
                    + " is asked to follow, expected another host than the first");
        }
    }

    /**
     * Does a picture's work with the other hosts, or without if there are none.
     *
     * @param request perhaps without a seed
     */
    private void together(ImageRequest request, Plan plan, Consumer<Optional<Hosts>> work) {
        if (options.host == null) {
            work.accept(Optional.empty());
            return;
        }
        pipeline.requireUsable(); // before others are waited for
        Map<String, String> command = Settings.command(options, request, pipeline.contents());
        Hosts.run(options.host, pipeline.ranks(), command, hosts -> {
            requireWindows(request, plan.grid(), hosts.allRanks());
            work.accept(Optional.of(hosts));
        });
    }

    /**
     * Makes a picture and writes the PNG that {@link GeneratedImage#writePng} would write. Rows go to the file as they are
     * decoded: no more than a band of the picture is in memory, whatever its size. The file appears whole, or not at all.
     *
     * @param progress called on this thread
     * @return the request that the picture was made from, with the model's own settings and the seed that was used
     * @throws RuntimeException as from {@link #generate(ImageRequest, Consumer)}, or with one sentence if the file cannot be
     *     written; an older file is then left as it was
     */
    public ImageRequest generatePng(ImageRequest request, Path file, Consumer<Progress> progress) {
        return generatePngs(List.of(request), List.of(file), progress).get(0);
    }

    /**
     * The same for several pictures. With several GPUs each makes pictures of its own, at once, which is quicker than to make
     * each together; those that are left over when every GPU has made as many are made together. Several hosts make all of them
     * together, one after the other, and the other ones {@link #follow} each.
     *
     * @param files as many as there are requests
     * @param progress of the pictures that the first GPU makes, called on this thread
     * @return the requests that the pictures were made from, likewise
     * @throws RuntimeException likewise; pictures that were finished stay
     */
    public List<ImageRequest> generatePngs(List<ImageRequest> requests, List<Path> files, Consumer<Progress> progress) {
        if (requests.size() != files.size()) {
            throw new IllegalArgumentException(
                    files.size() + " files are given, expected " + requests.size() + ", one for each request");
        }
        Objects.requireNonNull(progress, "progress");
        requireApart(files);
        requireFirst(true);
        List<ImageRequest> whole =
                requests.stream().map(request -> request.over(defaults)).toList();
        List<ImageRequest> seeded = whole.stream().map(ScaleDit::seeded).toList();
        int ranks = pipeline.ranks();
        int apart = ranks == 1 || options.host != null ? 0 : requests.size() / ranks * ranks;
        List<Plan> plans = IntStream.range(0, requests.size())
                .mapToObj(picture -> plan(seeded.get(picture), picture < apart))
                .toList();
        lock();
        try {
            if (apart > 0) {
                pipeline.apart((rank, stopped) -> {
                    Consumer<Progress> heard = heard(rank == 0 ? progress : nobody -> {}, stopped);
                    for (int picture = rank; picture < apart; picture += ranks) {
                        Pipeline.Painter painter = Pipeline.Painter.alone(rank);
                        write(files.get(picture), seeded.get(picture), plans.get(picture), painter, heard);
                    }
                });
            }
            for (int picture = apart; picture < requests.size(); picture++) {
                int number = picture;
                together(
                        whole.get(number),
                        plans.get(number),
                        hosts -> write(
                                files.get(number),
                                seeded.get(number),
                                plans.get(number),
                                Pipeline.Painter.together(hosts),
                                progress));
            }
        } finally {
            busy.unlock();
        }
        return seeded;
    }

    private static Consumer<Progress> heard(Consumer<Progress> progress, BooleanSupplier stopped) {
        return step -> {
            if (stopped.getAsBoolean()) {
                throw new RanksStoppedException();
            }
            progress.accept(step);
        };
    }

    private void write(
            Path file, ImageRequest seeded, Plan plan, Pipeline.Painter painter, Consumer<Progress> progress) {
        PngFile.write(
                file,
                plan.lastGrid().pixelWidth(),
                plan.lastGrid().pixelHeight(),
                new Settings(options, seeded).texts(),
                rows -> paint(seeded, plan, painter, progress, (row, band) -> Pixels.round(row, band, rows)));
    }

    private static ImageRequest seeded(ImageRequest request) {
        return request.seed().isPresent()
                ? request
                : request.seed(ThreadLocalRandom.current().nextLong(1L << 32));
    }

    private void paint(
            ImageRequest seeded,
            Plan plan,
            Pipeline.Painter painter,
            Consumer<Progress> progress,
            BandConsumer picture) {
        seeded.guideImage().ifPresent(ImageFile::size);
        seeded.trace().ifPresent(Trace::requireFolder);
        try (Noise noise = noise(seeded, plan)) {
            ProgressReport report = new ProgressReport(plan.pictures(), progress);
            pipeline.paint(new Pipeline.Order(seeded, plan, noise, painter, report, picture));
        }
    }

    /** @param alone whether one GPU makes the picture, however many there are */
    private Plan plan(ImageRequest request, boolean alone) {
        if (request.levels() == 0) {
            requirePlain(request);
        }
        if (options.device == Device.CUDA
                && options.precision() == Precision.FLOAT32
                && request.attention() != ImageRequest.AttentionKind.DENSE) {
            throw new IllegalArgumentException("attention " + Settings.name(request.attention())
                    + " on a GPU takes bfloat16 alone, expected precision bfloat16, or attention dense");
        }
        if (request.levels() > 0 && request.attention() != ImageRequest.AttentionKind.DENSE) {
            NativeAttention.requireHeadDim(pipeline.headDim());
        }
        AttentionWindow window = new AttentionWindow(
                request.ratio(),
                request.window(),
                request.reach(),
                request.guidanceMargin(),
                switch (request.guidanceAttention()) {
                    case GLOBAL -> AttentionWindow.GuidanceAttention.GLOBAL;
                    case LOCAL -> AttentionWindow.GuidanceAttention.LOCAL;
                },
                request.guidanceText());
        TokenGrid asked = TokenGrid.ofPixels(request.width(), request.height());
        int before = request.levels() == 0
                        || request.ratio() == 0
                        || request.guideImage().isPresent()
                ? 0
                : asked.levelsBefore(request.ratio(), request.plainSize());
        TokenGrid first = asked.reduced(request.ratio(), before);
        if ((pipeline.ranks() > 1 || options.host != null) && !alone) {
            requireShared(request);
            if (options.host == null) {
                requireWindows(request, first, pipeline.ranks());
            }
        }
        Plan plan = new Plan(
                first,
                before + request.levels(),
                window,
                switch (request.attention()) {
                    case NATIVE ->
                        options.precision() == Precision.FLOAT32 ? Plan.Backend.NATIVE_EXACT : Plan.Backend.NATIVE_INT8;
                    case NATIVE_EXACT -> Plan.Backend.NATIVE_EXACT;
                    case NATIVE_INT8 -> Plan.Backend.NATIVE_INT8;
                    case DENSE -> Plan.Backend.DENSE;
                },
                request.steps(),
                (float) request.guidance(),
                request.guideSteps(),
                (float) request.guideGuidance(),
                request.guideImage(),
                switch (request.init()) {
                    case NOISE -> OptionalDouble.empty();
                    case GUIDANCE -> OptionalDouble.of(request.strength());
                });
        if (plan.levels() > 0 && request.attention() == ImageRequest.AttentionKind.DENSE) {
            TokenGrid last = plan.lastGrid();
            DenseAttention.requireMask(last.width(), last.height(), request.ratio());
        }
        return plan;
    }

    /** What acts on high resolution alone would be ignored. */
    private void requirePlain(ImageRequest request) {
        String given = options.loras != null && !options.loras.isEmpty()
                ? "a LoRA is"
                : request.guideImage().isPresent() ? "a guidance image is" : "";
        if (!given.isEmpty()) {
            throw new IllegalArgumentException(
                    given + " given with 0 levels, expected 1 or more: a picture of plain FLUX has none");
        }
    }

    /** What several GPUs cannot do together. */
    private void requireShared(ImageRequest request) {
        String one = options.host == null
                ? " on " + pipeline.ranks() + " GPUs, expected one: "
                : " on " + options.host.count() + " hosts, expected one: ";
        if (request.levels() == 0) {
            throw new IllegalArgumentException(
                    "0 levels are asked for" + one + "in a picture of plain FLUX everything attends to everything");
        }
        if (request.attention() == ImageRequest.AttentionKind.DENSE) {
            throw new IllegalArgumentException("attention dense is asked for" + one + "it does not know of windows");
        }
        if (request.trace().isPresent()) {
            throw new IllegalArgumentException("a trace is asked for" + one + "none of several has all latents");
        }
    }

    /**
     * Each rank has at least one window.
     *
     * @param first grid of a picture that they paint
     * @param ranks of all hosts
     */
    private static void requireWindows(ImageRequest request, TokenGrid first, int ranks) {
        int side = TokenGrid.PIXELS_PER_TOKEN * request.window();
        long windows = first.windows(request.window());
        if (windows < ranks) {
            throw new IllegalArgumentException("gpus is " + ranks + ", expected no more than " + windows
                    + ", the windows of " + side + " x " + side + " pixels in the first picture of "
                    + first.pixelWidth() + " x " + first.pixelHeight());
        }
    }

    private static Noise noise(ImageRequest request, Plan plan) {
        return request.noise().isPresent()
                ? FileNoise.open(request.noise().get(), plan)
                : new SeededNoise(request.seed().orElseThrow());
    }

    /**
     * Frees everything. A generation that is running is waited for.
     *
     * @throws IllegalStateException if called by the progress of a generation, which goes on
     */
    @Override
    public void close() {
        if (busy.isHeldByCurrentThread()) {
            throw new IllegalStateException(
                    "the model is closed by the progress of a generation, expected after its end");
        }
        busy.lock();
        try {
            pipeline.close();
        } finally {
            busy.unlock();
        }
    }

    /** How a checkpoint is opened. */
    public static final class Builder {
        /** What stands for the embedded model in a picture's settings, where every other one has an absolute path. */
        private static final String EMBEDDED = "embedded";

        /** Pixels along a side that are painted there in half a minute. */
        private static final int EMBEDDED_ON_CPU = 1024;

        private @Nullable Path model; // null: the embedded one
        private @Nullable Path vae;
        private @Nullable List<LoraFile> loras; // null: those of the model
        private LoraScope loraScope = LoraScope.GUIDANCE;
        private @Nullable Precision precision;
        private Device device = Device.CPU;
        private Memory memory = Memory.NORMAL;
        private OptionalInt gpus = OptionalInt.of(1); // empty: all
        private boolean ranksOnCpu;
        private @Nullable Host host; // null: the only one

        private Builder(@Nullable Path model) {
            this.model = model;
        }

        /** Another checkpoint than the one named first. */
        public Builder model(Path model) {
            this.model = Objects.requireNonNull(model, "model");
            return this;
        }

        /**
         * Adds a LoRA (PEFT, kohya, ComfyUI or BFL names); its effect is multiplied by {@code scale}. One that the model brings
         * is then left out.
         */
        public Builder lora(Path file, double scale) {
            if (loras == null) {
                loras = new ArrayList<>();
            }
            loras.add(new LoraFile(Objects.requireNonNull(file, "LoRA"), scale));
            return this;
        }

        /** Takes back every LoRA that was added, and leaves out one that the model brings. */
        public Builder withoutLoras() {
            loras = new ArrayList<>();
            return this;
        }

        /** Which tokens LoRA layers act on. Default: guidance. */
        public Builder loraScope(LoraScope scope) {
            this.loraScope = Objects.requireNonNull(scope, "LoRA scope");
            return this;
        }

        /** Another VAE of the same shape: a diffusers directory. Default: the checkpoint's own. */
        public Builder vae(Path directory) {
            this.vae = Objects.requireNonNull(directory, "VAE");
            return this;
        }

        /** Default: {@link Precision#defaultOn}. Pictures carry it: another processor makes nearly the same ones of them. */
        public Builder precision(Precision precision) {
            this.precision = Objects.requireNonNull(precision, "precision");
            return this;
        }

        /** Default: the CPU. */
        public Builder device(Device device) {
            this.device = Objects.requireNonNull(device, "device");
            return this;
        }

        /** Default: normal. Low is for a GPU alone. Pictures do not carry it, as it makes no difference to them. */
        public Builder memory(Memory memory) {
            this.memory = Objects.requireNonNull(memory, "memory");
            return this;
        }

        /**
         * How many GPUs paint a picture together, from the first on; default: 1. Each has the weights of transformer and VAE,
         * denoises its part of the high-resolution picture and decodes some of its tiles; the first one does all else. The
         * picture is nearly the same. Pictures do not carry it.
         */
        public Builder gpus(int count) {
            if (count < 1) {
                throw new IllegalArgumentException("gpus is " + count + ", expected 1 or more");
            }
            this.gpus = OptionalInt.of(count);
            return this;
        }

        /** The same with all GPUs that CUDA finds. */
        public Builder allGpus() {
            this.gpus = OptionalInt.empty();
            return this;
        }

        /**
         * Has several hosts, or processes of one, paint each picture together, with all their GPUs or, on CPUs, one rank each.
         * All open the same model in the same way, but for the number of GPUs. The first one makes pictures; the other ones
         * {@link ScaleDit#follow} the same requests in the same order. A picture begins when all are there, for which each waits
         * 25 seconds; a host that fails or falls silent ends it on all. Pictures do not carry it.
         *
         * @param number of this one, from 0
         * @param count how many there are; 1 is as if this had not been called
         * @param address name or IP address by which the others reach the first one
         * @param port TCP port at which it listens, to all who reach it: for networks that are trusted
         * @throws IllegalArgumentException in one sentence, if a number is out of its range or there is no address
         */
        public Builder host(int number, int count, String address, int port) {
            Host given = new Host(number, count, address, port);
            this.host = count == 1 ? null : given;
            return this;
        }

        /** Has ranks on the CPU share a picture as GPUs do: to test how they work together, and no quicker than one. */
        Builder ranksOnCpu(int count) {
            this.ranksOnCpu = true;
            return gpus(count);
        }

        /**
         * Opens and checks all files. Reads no weights yet, apart from LoRAs.
         *
         * @throws java.util.concurrent.CancellationException if the thread is interrupted
         */
        public ScaleDit load() {
            Builder options = new Builder(model);
            options.vae = vae;
            options.loras = loras == null ? null : List.copyOf(loras);
            options.loraScope = loraScope;
            options.precision = precision;
            options.device = device;
            options.memory = memory;
            options.gpus = gpus;
            options.host = host;
            if (device == Device.CPU && gpus.orElse(0) != 1 && !ranksOnCpu) {
                throw new IllegalArgumentException(
                        "gpus is " + (gpus.isEmpty() ? "all" : gpus.getAsInt()) + ", expected device cuda beside it");
            }
            Path directory = model == null ? EmbeddedModel.directory() : model;
            ImageRequest usual = ImageRequest.of("");
            if (model == null && device == Device.CPU) {
                usual = usual.size(EMBEDDED_ON_CPU, EMBEDDED_ON_CPU);
            }
            ModelDirectory.open(directory); // before one of its files is asked for
            ModelDefaults defaults = ModelDefaults.read(directory, usual);
            List<LoraFile> used = loras == null ? defaults.loras() : loras;
            return new ScaleDit(
                    options,
                    Pipeline.open(
                            directory,
                            vae,
                            used,
                            loraScope,
                            precision(),
                            device,
                            memory,
                            gpus,
                            host == null ? 1 : host.count()),
                    defaults.request());
        }

        private Precision precision() {
            return precision != null ? precision : Precision.defaultOn(device);
        }

        void write(ObjectNode json) {
            json.put("model", model == null ? EMBEDDED : Settings.absolute(model));
            if (vae != null) {
                json.put("vae", Settings.absolute(vae));
            }
            if (loras != null) {
                ArrayNode files = json.putArray("loras"); // none is something else than the model's own
                for (LoraFile lora : loras) {
                    files.addObject()
                            .put("file", Settings.absolute(lora.file()))
                            .put("scale", lora.scale());
                }
            }
            json.put("loraScope", Settings.name(loraScope));
            json.put("precision", Settings.name(precision()));
            json.put("device", Settings.name(device));
        }

        static Builder read(JsonNode json) {
            String model = Settings.text(json, "model");
            Builder builder = new Builder(model.equals(EMBEDDED) ? null : Path.of(model));
            Settings.path(json, "vae").ifPresent(builder::vae);
            if (json.has("loras")) {
                builder.withoutLoras();
                for (JsonNode lora : Settings.list(json, "loras")) {
                    builder.lora(Path.of(Settings.text(lora, "file")), Settings.number(lora, "scale"));
                }
            }
            return builder.loraScope(Settings.constant(json, "loraScope", LoraScope.class))
                    .precision(Settings.constant(json, "precision", Precision.class))
                    .device(Settings.constant(json, "device", Device.class));
        }
    }
}
