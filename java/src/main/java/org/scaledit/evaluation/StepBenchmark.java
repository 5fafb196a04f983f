package org.scaledit.evaluation;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalLong;
import java.util.function.BiFunction;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.CudaAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;

/**
 * Measures a sampling step: its time, that of its bare matrix products in the same run, and its memory. And whole pictures:
 * their time, stage by stage.
 */
public final class StepBenchmark implements AutoCloseable {
    static final double SIGMA = 0.7;
    private static final double GUIDANCE = 4.5;

    /** A step that takes longer is measured once, at its first run: no warm-up, no profile. */
    private static final double SLOW_SECONDS = 30;

    /**
     * What to measure.
     *
     * @param sizes pixels along each side of a square picture, multiples of 16
     * @param pictures those of the sizes at which the methods of Scale-DiT paint a whole picture, too
     * @param textTokens of each sequence
     * @param warmUp steps that are not counted
     * @param steps that are counted: their median is the result
     * @param profile whether one more step tells where its time goes
     */
    public record Plan(
            List<Method> methods,
            List<Integer> sizes,
            List<Integer> pictures,
            int textTokens,
            int warmUp,
            int steps,
            boolean profile) {
        public Plan {
            methods = List.copyOf(methods);
            sizes = List.copyOf(sizes);
            pictures = List.copyOf(pictures);
            sizes.forEach(size -> TokenGrid.ofPixels(size, size));
            requireDistinct("methods", methods.stream().map(Method::label).toList());
            requireDistinct("sizes", sizes);
            requireDistinct("pictures", pictures);
            requireSizes(pictures, sizes);
            if (!pictures.isEmpty() && !methods.isEmpty() && methods.stream().noneMatch(Method::paints)) {
                throw new IllegalArgumentException(
                        "pictures are painted by the methods of Scale-DiT alone, expected one of" + " them beside "
                                + methods.stream().map(Method::label).collect(Collectors.joining(", ")));
            }
            require(textTokens >= 1 && textTokens <= 4096, "text tokens", textTokens, "1 to 4096");
            require(warmUp >= 1 && warmUp <= 1000, "warm-up steps", warmUp, "1 to 1000");
            require(steps >= 1 && steps <= 1000, "steps", steps, "1 to 1000");
        }

        /** The same of other methods. */
        public Plan with(List<Method> others) {
            return new Plan(others, sizes, pictures, textTokens, warmUp, steps, profile);
        }

        private static void requireDistinct(String name, List<?> given) {
            if (new HashSet<>(given).size() < given.size()) {
                throw new IllegalArgumentException(name + " are " + given + ", expected each of them once");
            }
        }

        private static void require(boolean condition, String name, int given, String expected) {
            if (!condition) {
                throw new IllegalArgumentException(name + " is " + given + ", expected " + expected);
            }
        }
    }

    /** @throws IllegalArgumentException if pictures are of a size that is not measured */
    static void requireSizes(List<Integer> pictures, List<Integer> sizes) {
        if (!sizes.containsAll(pictures)) {
            throw new IllegalArgumentException("pictures are " + pictures + ", expected some of the sizes " + sizes);
        }
    }

    private final FluxConfig config;
    private final Placement placement;
    private final boolean low;
    private final Hardware hardware;
    private final Optional<ModelDirectory> directory; // empty for random weights
    private final Function<Method.Form, FluxTransformer> load;
    private Optional<FluxTransformer> loaded = Optional.empty();
    private Method.Form form = Method.Form.PLAIN; // of what is loaded

    private StepBenchmark(
            FluxConfig config,
            Placement placement,
            boolean low,
            Optional<ModelDirectory> directory,
            Function<Method.Form, FluxTransformer> load) {
        this.config = config;
        this.placement = placement;
        this.low = low;
        this.hardware = new Hardware(placement.cuda());
        this.directory = directory;
        this.load = load;
    }

    /**
     * Gets ready to load what is to be measured: weights, in bfloat16 or in FP8, are loaded when a method needs them and
     * stay until one needs the others.
     *
     * @param model a FLUX.1 checkpoint in diffusers' layout; empty for FLUX.1-dev's sizes with random weights
     * @param cuda whether on the first GPU, in bfloat16, or on the CPU, in float32
     * @param low whether the weights of the transformer's blocks stay on the host, which is for a GPU alone
     * @throws RuntimeException in one sentence: what a GPU lacks, or the file and tensor that are missing or wrong
     */
    public static StepBenchmark open(Optional<Path> model, boolean cuda, boolean low) {
        if (low) {
            FluxTransformer.requireLowMemory(cuda);
        }
        if (cuda) {
            CudaAttention.requireGpu();
        } else {
            Torch.load();
        }
        Placement placement = cuda ? new Placement(torch.ScalarType.BFloat16, true) : Placement.FLOAT32_CPU;
        return model.map(ModelDirectory::open)
                .map(directory -> new StepBenchmark(
                        FluxTransformer.check(directory, List.of(), LoraScope.GUIDANCE),
                        placement,
                        low,
                        Optional.of(directory),
                        form -> form == Method.Form.TRAINING
                                ? FluxTransformer.loadForTraining(directory, placement)
                                : FluxTransformer.load(directory, placement, form == Method.Form.FP8, low)))
                .orElseGet(() -> new StepBenchmark(
                        FluxConfig.DEV,
                        placement,
                        low,
                        Optional.empty(),
                        form -> form == Method.Form.TRAINING
                                ? FluxTransformer.randomForTraining(FluxConfig.DEV, placement)
                                : FluxTransformer.random(FluxConfig.DEV, placement, form == Method.Form.FP8, low)));
    }

    /** What the results depend on beside the program: names, versions, where the weights are. */
    public Map<String, String> hardware() {
        Map<String, String> description = new LinkedHashMap<>(hardware.description());
        description.put("memory", low ? "low" : "normal");
        return description;
    }

    /** Why a method cannot be measured here whatever the size, in one sentence; empty if it can. */
    public Optional<String> lacking(Method method) {
        if (method == Method.DENSE_CUDNN && !placement.cuda()) {
            return Optional.of("cuDNN is for a GPU alone");
        }
        if (method == Method.TRAINING && low) {
            return Optional.of("memory low is for sampling alone");
        }
        if (method.form() == Method.Form.FP8) {
            try {
                FluxTransformer.requireFp8(placement);
            } catch (IllegalArgumentException | UnsupportedOperationException e) {
                return Optional.of(firstLine(e));
            }
        }
        return Optional.empty();
    }

    /**
     * Measures every method at every size, those in FP8 last: the GPU has to hold one set of weights at a time. What does
     * not fit its memory is a measurement that says so.
     *
     * @param done sees each measurement as soon as it is there
     * @return size by size, each in the plan's order
     */
    public List<Measurement> run(Plan plan, Consumer<Measurement> done) {
        List<Measurement> measurements = new ArrayList<>();
        for (Method.Form ofMethods : Method.Form.values()) {
            for (int size : plan.sizes) {
                plan.methods.stream()
                        .filter(method -> method.form() == ofMethods)
                        .forEach(method -> {
                            Measurement measurement = withPicture(plan, measure(plan, method, size));
                            measurements.add(measurement);
                            done.accept(measurement);
                        });
            }
        }
        measurements.sort(Comparator.comparingInt((Measurement measurement) -> plan.sizes.indexOf(measurement.size()))
                .thenComparingInt(measurement -> plan.methods.indexOf(measurement.method())));
        return measurements;
    }

    private Measurement measure(Plan plan, Method method, int size) {
        TokenGrid grid = TokenGrid.ofPixels(size, size);
        long tokens = 0;
        try {
            tokens = Sequence.tokens(method, plan.textTokens, grid);
            lacking(method).ifPresent(reason -> {
                throw new UnsupportedOperationException(reason);
            });
            Measurement.Result result = measure(plan, method, grid, transformer(method.form()));
            return new Measurement(method, size, tokens, Optional.of(result), Optional.empty());
        } catch (RuntimeException | OutOfMemoryError e) {
            // One that does not fit or that the GPU has no kernel for is a result, too: the others go on.
            return new Measurement(method, size, tokens, Optional.empty(), Optional.of(sentence(e)));
        }
    }

    private Measurement withPicture(Plan plan, Measurement measured) {
        Method method = measured.method();
        if (measured.result().isEmpty() || !plan.pictures.contains(measured.size()) || !method.paints()) {
            return measured;
        }
        TokenGrid grid = TokenGrid.ofPixels(measured.size(), measured.size());
        try {
            return measured.with(picture(plan, method, grid, transformer(method.form())));
        } catch (RuntimeException | OutOfMemoryError e) {
            return measured.withoutPicture(sentence(e));
        }
    }

    private Measurement.Picture picture(Plan plan, Method method, TokenGrid grid, FluxTransformer transformer) {
        hardware.forgetPeak();
        if (directory.isPresent()) {
            return picture(plan, method, grid, transformer, directory.get());
        }
        try (RandomCheckpoint random = new RandomCheckpoint()) {
            return picture(plan, method, grid, transformer, random.directory());
        }
    }

    private Measurement.Picture picture(
            Plan plan, Method method, TokenGrid grid, FluxTransformer transformer, ModelDirectory checkpoint) {
        try (PictureClock clock = new PictureClock(checkpoint, placement, hardware)) {
            return clock.measure(transformer, method, plan.textTokens, grid, PictureClock.Hands.ALONE);
        }
    }

    private static String sentence(Throwable failure) {
        boolean outOfMemory = failure instanceof OutOfMemoryError || Cuda.isOutOfMemory(failure);
        return outOfMemory ? Measurement.OUT_OF_MEMORY : firstLine(failure);
    }

    /** That of this form; closes the other one first, as a GPU need not have memory for both. */
    private FluxTransformer transformer(Method.Form wanted) {
        if (loaded.isEmpty() || form != wanted) {
            close();
            loaded = Optional.of(load.apply(wanted));
            form = wanted;
        }
        return loaded.get();
    }

    private static String firstLine(Throwable failure) {
        String message = String.valueOf(failure.getMessage());
        return message.lines().findFirst().orElse(message);
    }

    private Measurement.Result measure(Plan plan, Method method, TokenGrid grid, FluxTransformer transformer) {
        hardware.forgetPeak();
        OptionalLong weights = hardware.allocatedBytes(); // the GPU's copy of a geometry is above them
        try (Sequence sequence = Sequence.of(method, plan.textTokens, grid, placement.cuda())) {
            if (method != Method.TRAINING) {
                return measure(plan, sequence, transformer, weights, SamplingStep::new, 1);
            }
            try (Lora lora = TrainingStep.lora(config);
                    FluxTransformer trained = transformer.withTrainedLora(lora, LoraScope.GUIDANCE)) {
                return measure(
                        plan,
                        sequence,
                        trained,
                        weights,
                        (denoiser, latents) -> new TrainingStep(denoiser, latents, sequence.attention()),
                        TrainingStep.PASSES);
            }
        }
    }

    /** What is measured. */
    interface Step {
        void run();

        /** The same once more, telling where its time goes. */
        void run(Profile profile);
    }

    private record SamplingStep(Denoiser denoiser, Tensor latents) implements Step {
        @Override
        public void run() {
            Tensors.run(() -> denoiser.velocity(latents, SIGMA, () -> {}));
        }

        @Override
        public void run(Profile profile) {
            Tensors.run(() -> denoiser.profiledVelocity(latents, SIGMA, profile::begin));
        }
    }

    /** @param passes how often a step goes through all matrix products */
    private Measurement.Result measure(
            Plan plan,
            Sequence sequence,
            FluxTransformer transformer,
            OptionalLong weights,
            BiFunction<Denoiser, Tensor, Step> of,
            int passes) {
        List<Double> seconds = new ArrayList<>();
        Map<String, Double> parts = new LinkedHashMap<>();
        OptionalLong peak = Tensors.compute(() -> {
            Tensor latents = random(sequence.layout().imageTokens(), config.latentChannels());
            try (Denoiser denoiser = denoiser(sequence, transformer)) {
                Step step = of.apply(denoiser, latents);
                double first = hardware.seconds(step::run);
                boolean slow = first > SLOW_SECONDS;
                if (slow) {
                    seconds.add(first);
                } else {
                    for (int i = 1; i < plan.warmUp; i++) {
                        step.run();
                    }
                    for (int i = 0; i < plan.steps; i++) {
                        seconds.add(hardware.seconds(step::run));
                    }
                }
                OptionalLong most = hardware.peakBytes();
                if (plan.profile && !slow) {
                    parts.putAll(profile(step));
                }
                return most;
            }
        });
        MatrixProducts products = MatrixProducts.of(config, sequence.layout());
        return new Measurement.Result(
                Hardware.median(seconds),
                Collections.min(seconds),
                seconds.size(),
                bare(products, transformer.fp8(), passes),
                products.operations() * passes,
                peak.isPresent() ? OptionalLong.of(peak.getAsLong() - weights.orElseThrow()) : peak,
                peak,
                parts,
                Optional.empty());
    }

    private Map<String, Double> profile(Step step) {
        try (Profile profile = new Profile(hardware.cuda())) {
            step.run(profile);
            return profile.end(hardware);
        }
    }

    private OptionalDouble bare(MatrixProducts products, boolean fp8, int passes) {
        hardware.forgetPeak();
        try {
            return OptionalDouble.of(passes * products.seconds(placement, fp8, hardware));
        } catch (RuntimeException e) {
            if (Cuda.isOutOfMemory(e)) {
                return OptionalDouble.empty();
            }
            throw e;
        }
    }

    /** Noise stands in for the text and the guidance image: time and memory do not depend on them. */
    private Denoiser denoiser(Sequence sequence, FluxTransformer transformer) {
        TokenLayout layout = sequence.layout();
        return Tensors.compute(() -> {
            Tensor text = random(layout.textTokens(), config.jointWidth());
            Tensor pooled = random(config.pooledWidth());
            return layout.guidanceTokens() == 0
                    ? transformer.denoiser(
                            layout, sequence.attention(), FluxTransformer.NTK_THETA, text, pooled, GUIDANCE)
                    : transformer.denoiser(
                            layout,
                            sequence.attention(),
                            FluxTransformer.NTK_THETA,
                            text,
                            pooled,
                            GUIDANCE,
                            random(layout.guidanceTokens(), config.latentChannels()));
        });
    }

    private Tensor random(long... shape) {
        return torch.randn(shape, placement.with(torch.ScalarType.Float).options());
    }

    @Override
    public void close() {
        loaded.ifPresent(FluxTransformer::close);
        loaded = Optional.empty();
    }
}
