package org.scaledit;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BiConsumer;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.Progress.Stage;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.LoraFile;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.ranks.Exchange;
import org.scaledit.ranks.Hosts;
import org.scaledit.ranks.RankLeftBehindException;
import org.scaledit.ranks.Ranks;
import org.scaledit.ranks.RanksStoppedException;
import org.scaledit.sampling.Noise;
import org.scaledit.sampling.PictureSampler;
import org.scaledit.sampling.Plan;
import org.scaledit.sampling.Prompt;
import org.scaledit.sampling.SamplingListener;
import org.scaledit.sampling.Schedule;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.sampling.Trace;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;
import org.scaledit.transformer.ScaledLora;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.BandConsumer;
import org.scaledit.vae.Latents;
import org.scaledit.vae.SharedTiles;
import org.scaledit.vae.TileListener;
import org.scaledit.vae.VaeConfig;

/** The models of one checkpoint, and a picture's way through them. Used by one thread at a time, but for {@link #apart}. */
final class Pipeline implements AutoCloseable {
    private static final double GIB = 1L << 30;
    private static final int HASH_DIGITS = 16;
    private static final int LATENTS_PER_TOKEN = 4; // a patch of 2 × 2

    private final ModelDirectory directory;
    private final Path vaeFolder;
    private final FluxConfig config;
    private final List<LoraFile> loraFiles;
    private final List<ScaledLora> loras;
    private final LoraScope loraScope;
    private final Placement placement;
    private final boolean fp8; // the transformer's large products
    private final boolean low; // the transformer's blocks stay on the host, text is encoded part by part
    private final int leastRanks; // with those of other hosts, whose number shows when they meet
    private final @Nullable Transformers[] transformers; // of each rank of this process, by its own thread
    private final PictureSampler.@Nullable Models[] models; // likewise

    private volatile boolean closed;
    private volatile boolean leftBehind; // a rank still uses what is this pipeline's

    /**
     * Who paints a picture.
     *
     * @param rank that does all but denoise in high resolution and decode
     * @param alone whether it does these, too; if not, all ranks do
     * @param hosts whose ranks denoise, of which the first one decodes; empty: this process alone
     */
    record Painter(int rank, boolean alone, Optional<Hosts> hosts) {
        /** All of a pipeline, the first one before. */
        static Painter together(Optional<Hosts> hosts) {
            return new Painter(0, false, hosts);
        }

        static Painter alone(int rank) {
            return new Painter(rank, true, Optional.empty());
        }
    }

    /**
     * A picture to be made.
     *
     * @param request with its seed
     * @param picture is given the finished bands
     */
    record Order(
            ImageRequest request,
            Plan plan,
            Noise noise,
            Painter painter,
            ProgressReport progress,
            BandConsumer picture) {}

    /** A rank's transformer, and the same under the LoRAs, which shares its weights, or itself. */
    private record Transformers(FluxTransformer plain, FluxTransformer adapted) implements AutoCloseable {
        @Override
        public void close() {
            if (adapted != plain) {
                adapted.close();
            }
            plain.close();
        }
    }

    private Pipeline(
            ModelDirectory directory,
            Path vaeFolder,
            FluxConfig config,
            List<LoraFile> loraFiles,
            List<ScaledLora> loras,
            LoraScope loraScope,
            Placement placement,
            boolean fp8,
            boolean low,
            int ranks,
            int leastRanks) {
        this.directory = directory;
        this.vaeFolder = vaeFolder;
        this.config = config;
        this.loraFiles = List.copyOf(loraFiles);
        this.loras = loras;
        this.loraScope = loraScope;
        this.placement = placement;
        this.fp8 = fp8;
        this.low = low;
        this.leastRanks = leastRanks;
        this.transformers = new Transformers[ranks];
        this.models = new PictureSampler.Models[ranks];
    }

    /**
     * Opens a checkpoint: every file is checked by its header, LoRAs are read.
     *
     * @param gpus that paint together; on a CPU ranks that share it; empty: all GPUs of the machine
     * @param hosts that paint together
     */
    static Pipeline open(
            Path model,
            @Nullable Path vae,
            List<LoraFile> loraFiles,
            ScaleDit.LoraScope scope,
            ScaleDit.Precision precision,
            ScaleDit.Device device,
            ScaleDit.Memory memory,
            OptionalInt gpus,
            int hosts) {
        boolean low = memory == ScaleDit.Memory.LOW;
        if (low) {
            FluxTransformer.requireLowMemory(device == ScaleDit.Device.CUDA);
        }
        if (precision == ScaleDit.Precision.FP8 && device == ScaleDit.Device.CPU) {
            throw new IllegalArgumentException("precision fp8 is for a GPU alone, expected device cuda");
        }
        switch (device) {
            case CPU -> Torch.load();
            case CUDA -> {
                GpuFaults.OF_PROCESS.requireUsable();
                CudaAttention.requireGpus(gpus.orElse(1));
            }
        }
        int ranks = gpus.orElseGet(Cuda::count);
        int leastRanks = Math.max(ranks, hosts);
        if (leastRanks > 1 && low) {
            throw new IllegalArgumentException("memory low is for one GPU, expected gpus 1, or memory normal");
        }
        if (leastRanks > 1 && device == ScaleDit.Device.CUDA) {
            Ranks.requireGpus();
        }
        boolean fp8 = precision == ScaleDit.Precision.FP8;
        if (fp8) {
            MatrixProduct.requireFp8(ranks);
        }
        Placement placement = placement(precision, device);
        ModelDirectory directory = ModelDirectory.open(model);
        TextEncoders.check(directory);
        Path vaeFolder = vae == null ? directory.part("vae") : vae;
        VaeConfig vaeConfig = AutoencoderKl.check(vaeFolder);
        Schedule.check(directory);
        List<ScaledLora> loras = ScaledLora.load(loraFiles);
        try {
            LoraScope loraScope = switch (scope) {
                case GUIDANCE -> LoraScope.GUIDANCE;
                case ALL -> LoraScope.ALL;
                case RELEASED -> LoraScope.RELEASED;
            };
            FluxConfig config = FluxTransformer.check(directory, loras, loraScope);
            requireSameLatents(directory, config, vaeFolder, vaeConfig);
            return new Pipeline(
                    directory, vaeFolder, config, loraFiles, loras, loraScope, placement, fp8, low, ranks, leastRanks);
        } catch (RuntimeException | Error e) {
            loras.forEach(lora -> lora.lora().close());
            throw e;
        }
    }

    /** @throws CheckpointException in one sentence, if the VAE's latents are not those that the transformer paints */
    static void requireSameLatents(ModelDirectory directory, FluxConfig transformer, Path vaeFolder, VaeConfig vae) {
        int painted = transformer.latentChannels() / LATENTS_PER_TOKEN;
        if (vae.latentChannels() != painted) {
            throw new CheckpointException("the VAE in " + vaeFolder + " has " + vae.latentChannels()
                    + " latent channels, expected " + painted + ", which the transformer in "
                    + directory.part("transformer") + " paints");
        }
    }

    private static Placement placement(ScaleDit.Precision precision, ScaleDit.Device device) {
        return new Placement(
                switch (precision) {
                    case FLOAT32 -> torch.ScalarType.Float;
                    case BFLOAT16, FP8 -> torch.ScalarType.BFloat16;
                },
                device == ScaleDit.Device.CUDA);
    }

    /**
     * Runs what every rank does by itself, at once, rank 0 on this thread. There it may paint pictures alone.
     *
     * @param work of a rank; is to end soon when {@code stopped} says that another one has failed
     */
    void apart(BiConsumer<Integer, BooleanSupplier> work) {
        AtomicBoolean failed = new AtomicBoolean();
        run(Optional.empty(), exchange -> {
            try {
                work.accept(exchange.rank(), failed::get);
            } catch (RuntimeException | Error e) {
                failed.set(true);
                throw e;
            }
        });
    }

    private void run(Optional<Hosts> hosts, Ranks.Work work) {
        try {
            if (hosts.isPresent()) {
                hosts.get().compute(placement.cuda(), work);
            } else {
                Ranks.run(ranks(), placement.cuda(), work);
            }
        } catch (RankLeftBehindException e) {
            leftBehind = true;
            throw e;
        }
    }

    /** @throws IllegalStateException in one sentence, if it can paint no more */
    void requireUsable() {
        if (closed) {
            throw new IllegalStateException("the model is closed");
        }
        if (leftBehind) {
            throw new IllegalStateException(
                    "a GPU did not stop when an earlier picture failed, expected a new process");
        }
        if (placement.cuda()) {
            GpuFaults.OF_PROCESS.requireUsable();
        }
    }

    /** Of a head of the transformer. */
    int headDim() {
        return config.headDim();
    }

    /** Makes a picture. */
    void paint(Order order) {
        request(order.painter.rank, () -> painted(order), memory -> outOfMemory(order, memory));
    }

    /** Does what other hosts than the first one do for a picture. */
    void follow(ImageRequest request, Plan plan, Hosts hosts) {
        Runnable work = () -> {
            Prompt prompt = encode(request).onHost();
            together(Optional.of(hosts), exchange -> follow(plan, prompt, Optional.of(hosts), exchange));
        };
        request(0, () -> Tensors.run(work), memory -> outOfMemory(0, memory));
    }

    /**
     * @param rank of this process, whose GPU has that number
     * @param outOfMemory what to say if the GPU's memory is too small for it
     */
    private void request(int rank, Runnable work, Function<Cuda.Memory, String> outOfMemory) {
        requireUsable();
        try {
            if (placement.cuda()) {
                Cuda.on(rank, work);
            } else {
                work.run();
            }
        } catch (RuntimeException e) {
            ProgressReport.throwIfInterrupted(e); // a file that was being read is closed by an interrupt
            throw placement.cuda() ? GpuFaults.OF_PROCESS.explained(e, outOfMemory) : e;
        }
    }

    private void painted(Order order) {
        Tensors.run(() -> {
            order.progress.send(Stage.LOAD, 1, 0, 2);
            Prompt prompt = encode(order.request);
            order.progress.send(Stage.LOAD, 1, 1, 2);
            PictureSampler.Models loaded = models(order.painter.rank);
            order.progress.send(Stage.LOAD, 1, 2, 2);
            if (order.request.trace().isEmpty()) {
                painted(order, loaded, prompt, Optional.empty());
                return;
            }
            try (Trace trace = Trace.begin(order.request.trace().get(), order.plan, prompt)) {
                painted(order, loaded, prompt, Optional.of(trace));
                trace.commit();
            }
        });
    }

    /** That paint together in this process: 1 unless there are several GPUs. */
    int ranks() {
        return transformers.length;
    }

    /** What the files hold that all hosts read, by what they are for. */
    Map<String, String> contents() {
        return Map.of(
                "model", shortened(directory.contentHash()),
                "loras",
                        loraFiles.stream()
                                .map(lora -> shortened(lora.contentHash()))
                                .toList()
                                .toString());
    }

    /** For people. */
    private static String shortened(String hash) {
        return "SHA-256 " + hash.substring(0, HASH_DIGITS);
    }

    private String outOfMemory(Order order, Cuda.Memory memory) {
        if (isShared(order.painter)) {
            return outOfMemory(order.painter.rank, memory);
        }
        ScaleDit.Precision unquantised =
                placement.dtype() == torch.ScalarType.Float ? ScaleDit.Precision.FLOAT32 : ScaleDit.Precision.BFLOAT16;
        GpuMemory.Picture picture = new GpuMemory.Picture(
                order.plan.lastGrid(),
                textTokens(order.request),
                order.request.effectiveNegative().isPresent(),
                order.plan.window(),
                new GpuMemory.Setting(fp8 ? ScaleDit.Precision.FP8 : unquantised, low),
                FluxTransformer.headGroups(placement, leastRanks),
                models[order.painter.rank] != null);
        return GpuMemory.of(directory, config).sentence(picture, memory);
    }

    private boolean isShared(Painter painter) {
        return leastRanks > 1 && !painter.alone;
    }

    private void painted(Order order, PictureSampler.Models loaded, Prompt prompt, Optional<Trace> trace) {
        TokenGrid grid = order.plan.lastGrid();
        Tensor raw = Tensors.scoped(() -> {
            Listener listener = new Listener(order.plan, order.progress, trace);
            Tensor latents = isShared(order.painter) // [W·H, 64]
                    ? sampleTogether(loaded, order, prompt, listener)
                    : PictureSampler.sample(loaded, order.plan, prompt, order.noise, listener);
            // From here on a GPU holds no more than a tile of them.
            Tensor onHost = Placement.FLOAT32_CPU.place(latents);
            return Latents.unscale(
                    Latents.unpack(onHost, grid.height(), grid.width()),
                    loaded.vae().config());
        });
        decode(order, loaded.vae(), raw, trace);
    }

    /** By all ranks; those that have no models yet load them while the first one paints the guidance image. */
    private Tensor sampleTogether(PictureSampler.Models loaded, Order order, Prompt prompt, SamplingListener listener) {
        return Tensors.scoped(() -> {
            Prompt onHost = prompt.onHost();
            AtomicReference<@Nullable Tensor> latents = new AtomicReference<>();
            together(order.painter.hosts, exchange -> {
                if (exchange.rank() == 0) {
                    latents.set(PictureSampler.sample(loaded, order.plan, onHost, order.noise, listener, exchange));
                } else {
                    follow(order.plan, onHost, order.painter.hosts, exchange);
                }
            });
            return Objects.requireNonNull(latents.get());
        });
    }

    private void follow(Plan plan, Prompt prompt, Optional<Hosts> hosts, Exchange exchange) {
        FluxTransformer adapted = models(ownRank(hosts, exchange)).adapted();
        PictureSampler.follow(adapted, plan, prompt, exchange, ProgressReport::throwIfInterrupted);
    }

    /** Of a rank of this process, its number there. */
    private static int ownRank(Optional<Hosts> hosts, Exchange exchange) {
        return exchange.rank() - hosts.map(Hosts::firstRank).orElse(0);
    }

    private void decodeTogether(AutoencoderKl vae, Tensor raw, TileListener listener, BandConsumer picture) {
        try (SharedTiles tiles = vae.sharedTiles(raw, ranks())) {
            together(Optional.empty(), exchange -> {
                if (exchange.rank() == 0) {
                    vae.decode(raw, tiles, exchange, listener, picture);
                } else {
                    models(exchange.rank()).vae().follow(raw, tiles, exchange);
                }
            });
        }
    }

    /** What fails on another GPU than the first is explained there. */
    private void together(Optional<Hosts> hosts, Ranks.Work work) {
        run(hosts, exchange -> {
            try {
                work.run(exchange);
            } catch (RuntimeException e) {
                throw placement.cuda() && exchange.rank() > 0 && !(e instanceof RanksStoppedException)
                        ? GpuFaults.OF_PROCESS.explained(e, memory -> outOfMemory(ownRank(hosts, exchange), memory))
                        : e;
            }
        });
    }

    /** Of a GPU that has a part of a picture: what else would fit is not counted. */
    private static String outOfMemory(int rank, Cuda.Memory memory) {
        return String.format(
                Locale.ROOT,
                "out of GPU memory: of the %.2f GiB of GPU %d %.2f are free, too few for its part of the picture",
                memory.total() / GIB,
                rank,
                memory.free() / GIB);
    }

    /** Text encoders are loaded, used and released: at float32 T5-XXL alone takes 19 GB. */
    private Prompt encode(ImageRequest request) {
        int tokens = textTokens(request);
        try (TextEncoders encoders = TextEncoders.load(directory, placement, low)) {
            return new Prompt(
                    encoders.encode(
                            request.clipPrompt().orElse(request.prompt()),
                            request.t5Prompt().orElse(request.prompt()),
                            tokens),
                    request.effectiveNegative().map(text -> encoders.encode(text, tokens)),
                    request.trueGuidance().orElse(1));
        }
    }

    private int textTokens(ImageRequest request) {
        return request.textTokens().orElse(Math.min(config.textTokens(), TextEncoders.mostTokens(directory)));
    }

    /** Transformer and VAE stay loaded from picture to picture. */
    private PictureSampler.Models models(int rank) {
        PictureSampler.Models loaded = models[rank];
        if (loaded == null) {
            Transformers own = transformers(rank);
            loaded = new PictureSampler.Models(
                    directory, own.plain, own.adapted, AutoencoderKl.load(vaeFolder, placement));
            models[rank] = loaded;
        }
        return loaded;
    }

    /** Of a rank, loaded where its thread computes. */
    private Transformers transformers(int rank) {
        Transformers loaded = transformers[rank];
        if (loaded == null) {
            FluxTransformer plain = low
                    ? FluxTransformer.load(directory, placement, fp8, true)
                    : FluxTransformer.loadForRanks(directory, placement, fp8, leastRanks);
            try {
                loaded = new Transformers(plain, loras.isEmpty() ? plain : plain.withLoras(loras, loraScope));
            } catch (RuntimeException | Error e) {
                plain.close();
                throw e;
            }
            transformers[rank] = loaded;
        }
        return loaded;
    }

    private void decode(Order order, AutoencoderKl vae, Tensor raw, Optional<Trace> trace) {
        Plan plan = order.plan;
        TokenGrid grid = plan.lastGrid();
        Tensor whole = torch.empty(
                new long[] {3, trace.isPresent() ? grid.pixelHeight() : 0, grid.pixelWidth()},
                Placement.FLOAT32_CPU.options(),
                null);
        TileListener listener = (tiles, all) -> order.progress.send(Stage.DECODE, plan.pictures(), tiles, all);
        BandConsumer picture = (firstRow, band) -> {
            order.picture.accept(firstRow, band);
            if (trace.isPresent()) {
                whole.narrow(1, firstRow, band.size(1)).copy_(band);
            }
        };
        if (isShared(order.painter)) {
            decodeTogether(vae, raw, listener, picture);
        } else {
            vae.decode(raw, listener, picture);
        }
        trace.ifPresent(file -> file.image(whole));
    }

    /** Passes on what sampling tells: progress to the caller, tensors to the trace. */
    private record Listener(Plan plan, ProgressReport progress, Optional<Trace> trace) implements SamplingListener {
        @Override
        public void guidanceImage(int step, int steps) {
            progress.send(Stage.GUIDANCE_IMAGE, 1, step, steps);
        }

        @Override
        public void enlarge(int level, int tiles, int allTiles) {
            progress.send(Stage.ENLARGE, level, tiles, allTiles);
        }

        @Override
        public void highResolution(int level, int step, int steps) {
            progress.send(Stage.HIGH_RESOLUTION, level, step, steps);
        }

        @Override
        public void betweenBlocks() {
            ProgressReport.throwIfInterrupted();
        }

        @Override
        public void guidanceLatents(Tensor latents) {
            trace.ifPresent(file -> file.guidanceLatents(latents));
        }

        @Override
        public void schedule(int level, Schedule schedule) {
            trace.ifPresent(file -> file.schedule(level, schedule));
        }

        @Override
        public void latents(int level, int step, Supplier<Tensor> latents) {
            trace.ifPresent(file -> Tensors.run(() -> file.latents(level, step, latents.get())));
        }
    }

    @Override
    public void close() {
        if (leftBehind) {
            closed = true;
            return;
        }
        for (int rank = 0; rank < transformers.length; rank++) {
            Transformers loaded = transformers[rank];
            if (loaded != null) {
                loaded.close();
                transformers[rank] = null;
            }
            PictureSampler.Models own = models[rank];
            if (own != null) {
                own.vae().close();
                models[rank] = null;
            }
        }
        if (!closed) {
            loras.forEach(lora -> lora.lora().close());
        }
        closed = true;
    }
}
