package org.scaledit.training;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.PeftLora;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.vae.AutoencoderKl;

/**
 * Trains a LoRA on pictures with captions (Scale-DiT, arXiv 2510.16325): flow matching on the picture, guided by its own
 * small copy; the model's weights stay as they are. A training that was stopped at any moment goes on from its last checkpoint,
 * on a CPU bit for bit as if it had not been stopped.
 */
public final class LoraTraining {
    private static final String LORA_SUFFIX = ".safetensors";
    private static final double WEIGHT_DECAY = 0.01;

    /**
     * What one run is to do.
     *
     * @param model a FLUX.1 checkpoint in diffusers' layout
     * @param data a folder of pictures and captions; see the README
     * @param cache for latents and text states: a folder, which is made if it is not there
     * @param output the LoRA, {@code ….safetensors}; checkpoint, {@code loss.csv} and so on go beside it
     * @param steps in all, those before a resumption with them; 0 or more
     * @param saveEvery so many steps the checkpoint and the LoRA are written, and at the end
     * @param resume whether to go on from the checkpoint beside the output; if not, there must be none
     * @param placement where, and in which precision, the model computes
     */
    public record Run(
            Path model,
            Path data,
            Path cache,
            Path output,
            Recipe recipe,
            long steps,
            long saveEvery,
            boolean resume,
            Placement placement) {
        public Run {
            if (steps < 1) {
                throw new IllegalArgumentException("steps is " + steps + ", expected 1 or more");
            }
            if (saveEvery < 1) {
                throw new IllegalArgumentException("save every is " + saveEvery + " steps, expected 1 or more");
            }
            String name = output.getFileName().toString();
            if (!name.endsWith(LORA_SUFFIX) || name.equals(LORA_SUFFIX)) {
                throw new IllegalArgumentException(
                        "output is " + output + ", expected a name that ends in " + LORA_SUFFIX);
            }
        }

        /** {@code lora.checkpoint.safetensors} of {@code lora.safetensors}. */
        public Path checkpoint() {
            String name = output.getFileName().toString();
            return output.resolveSibling(
                    name.substring(0, name.length() - LORA_SUFFIX.length()) + ".checkpoint" + LORA_SUFFIX);
        }

        /** {@code loss.csv}; {@link LossLog#read} reads it. */
        public Path lossLog() {
            return output.resolveSibling("loss.csv");
        }
    }

    private final Run run;
    private final Recipe recipe;
    private final TrainingListener listener;
    private final ModelDirectory model;
    private final FluxConfig config;

    private LoraTraining(Run run, TrainingListener listener) {
        this.run = run;
        this.recipe = run.recipe;
        this.listener = listener;
        GradientAttention.require(recipe.attention(), run.placement);
        if (run.placement.cuda()) {
            CudaAttention.requireGpu();
        } else {
            Torch.load();
        }
        this.model = ModelDirectory.open(run.model);
        TextEncoders.check(model);
        AutoencoderKl.check(model.part("vae"));
        this.config = FluxTransformer.check(model, List.of(), recipe.scope().ofTransformer());
    }

    /**
     * Trains. Interrupting the thread stops it before the next sample, with a checkpoint of the steps that were made.
     *
     * @throws CancellationException if the thread is interrupted
     * @throws RuntimeException with one sentence if a file is missing or wrong, cannot be written, is not what the checkpoint
     *     was made with, or if a loss is no number
     */
    public static void run(Run run, TrainingListener listener) {
        new LoraTraining(run, listener).run();
    }

    private void run() {
        requireStart();
        TrainingSet set = new TrainingSet(
                Example.of(run.data),
                new TrainingSet.Encoding(model, recipe.resolution(), recipe.ratio(), textTokens(), run.placement),
                ExampleCache.in(run.cache));
        Map<String, String> origin = origin(set);
        if (run.resume) {
            try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint())) {
                checkpoint.requireOrigin(origin);
                requireSteps(checkpoint);
            }
        }
        set.fill(List.of(), (done, all) -> {
            listener.encoded(done, all);
            throwIfInterrupted("while pictures and captions were encoded; what was encoded is kept");
        });
        SampleOrder order = new SampleOrder(recipe.seed(), set.size(), recipe.timesteps());
        try (FluxTransformer plain = FluxTransformer.load(model, run.placement);
                Lora start = start(order.lora());
                FluxTransformer trained =
                        plain.withTrainedLora(start, recipe.scope().ofTransformer());
                Session session = new Session(set, order, origin, trained)) {
            session.run();
        }
    }

    private int textTokens() {
        return recipe.textTokens().orElse(config.textTokens());
    }

    /** Neither overwrites a training nor resumes one that is not there. */
    private void requireStart() {
        if (run.resume && !Files.exists(run.checkpoint())) {
            throw new TrainingException("there is no " + run.checkpoint() + " to resume from");
        }
        for (Path file : List.of(run.checkpoint(), run.lossLog(), run.output)) {
            if (!run.resume && Files.exists(file)) {
                throw new TrainingException(
                        file + " exists, expected a folder without another training's files: resume that"
                                + " one, or remove it, or choose another output");
            }
        }
    }

    private void requireSteps(TrainingCheckpoint checkpoint) {
        if (checkpoint.steps() > run.steps) {
            throw new TrainingException(run.checkpoint() + " has made " + checkpoint.steps()
                    + " steps, expected no more than the " + run.steps + " to be made");
        }
    }

    /** All that decides what a step does. */
    private Map<String, String> origin(TrainingSet set) {
        Map<String, String> origin = new LinkedHashMap<>(recipe.settings(textTokens()));
        origin.put("precision", run.placement.dtype() == torch.ScalarType.Float ? "float32" : "bfloat16");
        origin.put(
                TrainingCheckpoint.MODEL,
                TrainingSet.identity(
                        model, "transformer", "vae", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"));
        origin.put(TrainingCheckpoint.DATA, set.fingerprint());
        return origin;
    }

    /** PEFT's "gaussian" start: the first matrix normal with deviation 1 / rank, the second one zero. */
    private Lora start(long seed) {
        SortedMap<String, Lora.Layer> layers = new TreeMap<>();
        Tensors.run(() -> {
            Generator generator = torch.createCPUGenerator(seed);
            recipe.targets().of(config).forEach((module, widths) -> {
                Tensor down = torch.randn(
                        new long[] {recipe.rank(), widths.in()},
                        new GeneratorOptional(generator),
                        Placement.FLOAT32_CPU.options());
                Tensor up = torch.zeros(new long[] {widths.out(), recipe.rank()}, Placement.FLOAT32_CPU.options());
                layers.put(
                        module,
                        new Lora.Layer(
                                Tensors.keep(down.mul_(new Scalar(1.0 / recipe.rank()))),
                                Tensors.keep(up),
                                recipe.alpha() / recipe.rank()));
            });
        });
        return new Lora(run.output, layers);
    }

    private static void throwIfInterrupted(String when) {
        if (Thread.interrupted()) {
            throw new CancellationException("the training was stopped " + when);
        }
    }

    /** The steps of one process. */
    private final class Session implements AutoCloseable {
        private final TrainingSet set;
        private final SampleOrder order;
        private final Map<String, String> origin;
        private final FluxTransformer trained;
        private final Map<String, Tensor> parameters = new LinkedHashMap<>(); // leaves of autograd
        private final Optimizer optimizer;
        private final FlowMatching loss;

        Session(TrainingSet set, SampleOrder order, Map<String, String> origin, FluxTransformer trained) {
            this.set = set;
            this.order = order;
            this.origin = origin;
            this.trained = trained;
            trained.trainedLayers().forEach((module, layer) -> {
                parameters.put(module + ".lora_A.weight", layer.down());
                parameters.put(module + ".lora_B.weight", layer.up());
            });
            this.optimizer = switch (recipe.optimizer()) {
                case PRODIGY -> {
                    Prodigy.Settings usual = Prodigy.Settings.DEFAULT;
                    yield new Prodigy(
                            parameters,
                            new Prodigy.Settings(
                                    recipe.learningRate(),
                                    WEIGHT_DECAY,
                                    usual.biasCorrection(),
                                    usual.safeguardWarmup(),
                                    usual.start()));
                }
                case ADAMW -> new AdamW(parameters, recipe.learningRate(), WEIGHT_DECAY);
            };
            AttentionWindow usual = AttentionWindow.DEFAULT;
            AttentionWindow window = new AttentionWindow(
                    recipe.ratio(),
                    usual.window(),
                    usual.reach(),
                    usual.guidanceMargin(),
                    usual.guidanceAttention(),
                    usual.guidanceSeesText());
            this.loss = new FlowMatching(trained, recipe.attention(), window);
        }

        void run() {
            long first = run.resume ? resumed() : 0;
            if (!run.resume) {
                save(0); // so that whatever comes can be resumed
            }
            try (LossLog log = first == 0 ? LossLog.begin(run.lossLog()) : LossLog.resume(run.lossLog(), first)) {
                steps(first, log);
            }
        }

        private long resumed() {
            try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint())) {
                checkpoint.restore(parameters, optimizer);
                return checkpoint.steps();
            }
        }

        private void steps(long first, LossLog log) {
            long begun = System.nanoTime();
            long saved = first;
            for (long step = first + 1; step <= run.steps; step++) {
                LossLog.Row row;
                try {
                    row = step(step);
                } catch (CancellationException e) {
                    finish(step - 1, saved, log);
                    throw e;
                }
                log.add(row);
                listener.stepped(row, run.steps, pace(step - first, run.steps - step, System.nanoTime() - begun));
                if (step % run.saveEvery == 0 && step < run.steps) {
                    finish(step, saved, log);
                    saved = step;
                }
            }
            finish(run.steps, -1, log);
        }

        private void finish(long step, long saved, LossLog log) {
            if (step != saved) {
                log.force();
                save(step);
            }
        }

        private TrainingListener.Pace pace(long made, long left, long nanoseconds) {
            double seconds = nanoseconds * 1e-9 / made;
            return new TrainingListener.Pace(
                    recipe.accumulate() / seconds, Duration.ofMillis((long) (1000 * seconds * left)));
        }

        /** The mean of several samples' gradients, and what the optimizer makes of it. */
        private LossLog.Row step(long step) {
            clearGradients(); // those of a step that was not finished, too
            double sum = 0;
            for (int i = 0; i < recipe.accumulate(); i++) {
                throwIfInterrupted("after " + (step - 1) + " steps; --resume goes on from there");
                sum += sample((step - 1) * recipe.accumulate() + i, step);
            }
            double norm = gradientNorm();
            if (!Double.isFinite(norm)) {
                throw new TrainingException("the gradients are no numbers at step " + step);
            }
            recipe.clipNorm().ifPresent(most -> clip(norm, most));
            double rate = optimizer.learningRate();
            optimizer.step();
            return new LossLog.Row(step, sum / recipe.accumulate(), rate, norm);
        }

        /** @param count of the samples before this one */
        private double sample(long count, long step) {
            int sample = order.sample(count);
            TokenGrid grid = set.bucket(sample).grid();
            double value = Tensors.compute(() -> loss.addGradients(
                    grid,
                    set.inputs(sample),
                    new FlowMatching.Noising(order.sigma(count), SeededNoise.draw(order.noise(count), grid)),
                    1.0 / recipe.accumulate()));
            if (!Double.isFinite(value)) {
                throw new TrainingException("the loss of " + set.name(sample) + " is " + value + " at step " + step
                        + ", expected a number");
            }
            return value;
        }

        private void clearGradients() {
            Tensors.run(() -> parameters.values().forEach(parameter -> {
                if (parameter.grad().defined()) {
                    parameter.mutable_grad().zero_();
                }
            }));
        }

        private double gradientNorm() {
            double squares = 0;
            for (Tensor parameter : parameters.values()) {
                double norm = Tensors.compute(() ->
                        parameter.grad().to(torch.ScalarType.Double).norm().item_double());
                squares += norm * norm;
            }
            return Math.sqrt(squares);
        }

        private void clip(double norm, double most) {
            if (norm > most) {
                Scalar factor = new Scalar(most / norm);
                Tensors.run(() -> parameters
                        .values()
                        .forEach(parameter -> parameter.mutable_grad().mul_(factor)));
            }
        }

        /** The checkpoint first: a LoRA that is older than it is written again in any case. */
        private void save(long step) {
            TrainingCheckpoint.write(run.checkpoint(), step, origin, parameters, optimizer);
            if (step > 0) {
                Map<String, String> metadata = new LinkedHashMap<>();
                origin.forEach((name, value) -> metadata.put("scaledit." + name, value));
                metadata.put("scaledit.steps", String.valueOf(step));
                PeftLora.write(run.output, trained.trainedLayers(), metadata);
                listener.saved(step);
            }
        }

        @Override
        public void close() {
            loss.close();
            optimizer.close();
        }
    }
}
