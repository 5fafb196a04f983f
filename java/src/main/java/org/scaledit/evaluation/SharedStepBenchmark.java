package org.scaledit.evaluation;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CoreAttention;
import org.scaledit.attention.CudaAttention;
import org.scaledit.attention.ShardedAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.ranks.Exchange;
import org.scaledit.ranks.Ranks;
import org.scaledit.sampling.Plan.Backend;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;

/** Measures a sampling step that several GPUs compute together, and whole pictures, beside those of one of them. */
public final class SharedStepBenchmark {
    private static final double GUIDANCE = 4.5;

    /**
     * What to measure.
     *
     * @param methods those of Scale-DiT, without training
     * @param sizes pixels along each side of a square picture, multiples of 16
     * @param pictures those of the sizes at which whole pictures are painted, too
     * @param textTokens of each sequence
     * @param warmUp steps that are not counted
     * @param steps that are counted: their median is the result
     */
    public record Plan(
            List<Method> methods, List<Integer> sizes, List<Integer> pictures, int textTokens, int warmUp, int steps) {
        public Plan {
            methods = List.copyOf(methods);
            sizes = List.copyOf(sizes);
            pictures = List.copyOf(pictures);
            StepBenchmark.requireSizes(pictures, sizes);
            for (Method method : methods) {
                if (!method.paints()) {
                    throw new IllegalArgumentException("method " + method.label()
                            + " is asked of several GPUs, expected scaledit, scaledit-fp8 or" + " scaledit-exact");
                }
            }
        }
    }

    private final Optional<ModelDirectory> directory; // empty for FLUX.1-dev's sizes with random weights
    private final Plan plan;
    private final Placement placement;
    private final Hardware hardware;
    private final SharedPictureClock pictureClock;

    // Of each rank, of what is measured now.
    private final double[] exchanging;
    private final long[] bytes;
    private final long[] ringBytes;
    private final long[] peakBytes;

    private SharedStepBenchmark(Optional<ModelDirectory> directory, Plan plan, int ranks, Placement placement) {
        this.directory = directory;
        this.plan = plan;
        this.placement = placement;
        this.hardware = new Hardware(placement.cuda());
        this.pictureClock = new SharedPictureClock(ranks, plan.textTokens);
        this.exchanging = new double[ranks];
        this.bytes = new long[ranks];
        this.ringBytes = new long[ranks];
        this.peakBytes = new long[ranks];
    }

    /**
     * Gets ready: checks the machine and the model's files.
     *
     * @param model a FLUX.1 checkpoint in diffusers' layout; empty for FLUX.1-dev's sizes with random weights
     * @param gpus how many, from the first on; empty: all
     * @param cuda whether on GPUs, in bfloat16, or by ranks that share the CPU, in float32
     * @throws RuntimeException in one sentence: what is missing or wrong
     */
    public static SharedStepBenchmark open(Optional<Path> model, Plan plan, OptionalInt gpus, boolean cuda) {
        if (cuda) {
            CudaAttention.requireGpus(gpus.orElse(1));
        } else {
            Torch.load();
        }
        int ranks = gpus.orElseGet(Cuda::count);
        Placement placement = cuda ? new Placement(torch.ScalarType.BFloat16, true) : Placement.FLOAT32_CPU;
        if (plan.methods.stream().anyMatch(method -> method.form() == Method.Form.FP8)) {
            FluxTransformer.requireFp8(placement);
            MatrixProduct.requireFp8(ranks);
        }
        plan.sizes.forEach(size -> requireWindows(size, ranks));
        Optional<ModelDirectory> directory = model.map(ModelDirectory::open);
        directory.ifPresent(checkpoint -> FluxTransformer.check(checkpoint, List.of(), LoraScope.GUIDANCE));
        return new SharedStepBenchmark(directory, plan, ranks, placement);
    }

    private static void requireWindows(int size, int ranks) {
        int side = TokenGrid.PIXELS_PER_TOKEN * AttentionWindow.DEFAULT.window();
        long windows = TokenGrid.ofPixels(size, size).windows(AttentionWindow.DEFAULT.window());
        if (windows < ranks) {
            throw new IllegalArgumentException("size " + size + " has " + windows + " windows of " + side + " x " + side
                    + " pixels, expected at least one for each of " + ranks + " GPUs");
        }
    }

    /** What the results depend on beside the program: names and versions. */
    public Map<String, String> hardware() {
        return hardware.description();
    }

    /**
     * Measures every method at every size, those in FP8 last.
     *
     * @param done sees each measurement as soon as it is there
     * @throws RuntimeException in one sentence, if a size does not fit the GPUs
     */
    public void run(Consumer<SharedMeasurement> done) {
        if (plan.pictures.isEmpty() || directory.isPresent()) {
            run(directory, done);
        } else {
            try (RandomCheckpoint random = new RandomCheckpoint()) {
                run(Optional.of(random.directory()), done);
            }
        }
    }

    /** @param checkpoint with the schedule and the autoencoder, if there are pictures */
    private void run(Optional<ModelDirectory> checkpoint, Consumer<SharedMeasurement> done) {
        Ranks.run(exchanging.length, placement.cuda(), exchange -> measure(exchange, checkpoint, done));
    }

    private void measure(Exchange exchange, Optional<ModelDirectory> checkpoint, Consumer<SharedMeasurement> done) {
        for (Method.Form form : Method.Form.values()) {
            List<Method> methods = plan.methods.stream()
                    .filter(method -> method.form() == form)
                    .toList();
            if (methods.isEmpty()) {
                continue;
            }
            try (FluxTransformer transformer = load(form == Method.Form.FP8)) {
                for (int size : plan.sizes) {
                    for (Method method : methods) {
                        measure(method, size, transformer, checkpoint, exchange, done);
                    }
                }
            }
        }
    }

    private FluxTransformer load(boolean fp8) {
        return directory
                .map(checkpoint -> FluxTransformer.loadForRanks(checkpoint, placement, fp8, exchanging.length))
                .orElseGet(() -> FluxTransformer.randomForRanks(FluxConfig.DEV, placement, fp8, exchanging.length));
    }

    private void measure(
            Method method,
            int size,
            FluxTransformer transformer,
            Optional<ModelDirectory> checkpoint,
            Exchange exchange,
            Consumer<SharedMeasurement> done) {
        TokenGrid grid = TokenGrid.ofPixels(size, size);
        OptionalDouble alone = exchange.rank() == 0 ? alone(method, grid, transformer) : OptionalDouble.empty();
        exchange.meet();
        double together;
        Optional<SharedMeasurement.Pictures> pictures = Optional.empty();
        try {
            together = together(method, grid, transformer, new ProfiledExchange(exchange));
            if (plan.pictures.contains(size)) {
                // Only now, as the autoencoder is no part of a step's memory.
                try (PictureClock clock = new PictureClock(checkpoint.orElseThrow(), placement, hardware)) {
                    pictures = pictures(method, grid, transformer, clock, exchange);
                }
            }
        } catch (RuntimeException e) {
            throw Cuda.isOutOfMemory(e)
                    ? new IllegalStateException(
                            method.label() + " at " + size + " does not fit the memory of GPU " + exchange.rank(), e)
                    : e;
        }
        if (exchange.rank() == 0) {
            done.accept(new SharedMeasurement(
                    method,
                    size,
                    alone,
                    together,
                    Arrays.stream(exchanging).boxed().toList(),
                    Arrays.stream(bytes).max().orElse(0),
                    Arrays.stream(ringBytes).max().orElse(0),
                    Arrays.stream(peakBytes).boxed().toList(),
                    pictures));
        }
        exchange.meet(); // until then the numbers are of this one
    }

    private OptionalDouble alone(Method method, TokenGrid grid, FluxTransformer transformer) {
        try (CoreAttention attention = new CoreAttention(
                plan.textTokens,
                grid.width(),
                grid.height(),
                AttentionWindow.DEFAULT,
                placement.cuda(),
                int8(method))) {
            return OptionalDouble.of(seconds(transformer, attention.layout(), attention, Exchange.ALONE, step -> {}));
        } catch (RuntimeException e) {
            if (Cuda.isOutOfMemory(e)) {
                return OptionalDouble.empty();
            }
            throw e;
        }
    }

    private Optional<SharedMeasurement.Pictures> pictures(
            Method method, TokenGrid grid, FluxTransformer transformer, PictureClock clock, Exchange exchange) {
        Optional<Measurement.Picture> alone = Optional.empty();
        if (exchange.rank() == 0) {
            try {
                alone = Optional.of(
                        clock.measure(transformer, method, plan.textTokens, grid, PictureClock.Hands.ALONE));
            } catch (RuntimeException e) {
                if (!Cuda.isOutOfMemory(e)) {
                    throw e;
                }
            }
        }
        exchange.meet();
        Optional<Measurement.Picture> ofOne = alone;
        return pictureClock
                .measure(clock, transformer, method, grid, exchange)
                .map(ofAll -> new SharedMeasurement.Pictures(ofOne, ofAll));
    }

    private double together(Method method, TokenGrid grid, FluxTransformer transformer, ProfiledExchange exchange) {
        int rank = exchange.rank();
        if (placement.cuda()) {
            Tensors.run(() -> torch_cuda.getAllocator().resetPeakStats((byte) rank));
        }
        try (ShardedAttention attention = new ShardedAttention(
                plan.textTokens,
                grid.width(),
                grid.height(),
                AttentionWindow.DEFAULT,
                placement.cuda(),
                int8(method),
                exchange)) {
            TokenLayout layout = attention.layout();
            FluxConfig config = transformer.config();
            TokenGrid guidance = grid.guidance(AttentionWindow.DEFAULT.ratio());
            long keyAndValue = 2 * config.width() * torch.elementSize(placement.dtype());
            ringBytes[rank] =
                    (grid.tokens() - layout.imageTokens() + guidance.tokens() - layout.guidanceTokens()) * keyAndValue;
            double seconds = seconds(transformer, layout, attention, exchange, step -> {
                try (Profile profile = new Profile(placement.cuda())) {
                    exchange.tell(profile);
                    step.run();
                    bytes[rank] = exchange.bytes() / (config.doubleBlocks() + config.singleBlocks());
                    exchanging[rank] = profile.end(hardware).getOrDefault(ProfiledExchange.EXCHANGE, 0.0);
                } finally {
                    exchange.tellNobody();
                }
            });
            peakBytes[rank] = placement.cuda()
                    ? Tensors.compute(() ->
                            torch.getDeviceStats((byte) rank).allocated_bytes().peak())
                    : 0;
            exchange.meet();
            return seconds;
        }
    }

    private static boolean int8(Method method) {
        return method.backend() == Backend.NATIVE_INT8;
    }

    /**
     * The median of the steps, from when all ranks begin until all have ended.
     *
     * @param last is given one more step to run
     */
    private double seconds(
            FluxTransformer transformer,
            TokenLayout layout,
            Attention attention,
            Exchange exchange,
            Consumer<Runnable> last) {
        List<Double> seconds = new ArrayList<>();
        Tensors.run(() -> {
            FluxConfig config = transformer.config();
            Tensor latents = random(layout.imageTokens(), config.latentChannels());
            try (Denoiser denoiser = transformer.denoiser(
                    layout,
                    attention,
                    FluxTransformer.NTK_THETA,
                    random(layout.textTokens(), config.jointWidth()),
                    random(config.pooledWidth()),
                    GUIDANCE,
                    random(layout.guidanceTokens(), config.latentChannels()))) {
                Runnable step = () -> {
                    exchange.meet();
                    Tensors.run(() -> denoiser.velocity(latents, StepBenchmark.SIGMA, () -> {}));
                    hardware.await();
                    exchange.meet();
                };
                for (int i = 0; i < plan.warmUp; i++) {
                    step.run();
                }
                for (int i = 0; i < plan.steps; i++) {
                    exchange.meet();
                    long begun = System.nanoTime();
                    step.run();
                    seconds.add((System.nanoTime() - begun) * 1e-9);
                }
                last.accept(step);
            }
        });
        return Hardware.median(seconds);
    }

    private Tensor random(long... shape) {
        return torch.randn(shape, placement.with(torch.ScalarType.Float).options());
    }
}
