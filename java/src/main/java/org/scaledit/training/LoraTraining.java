package org.scaledit.training;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.ranks.Exchange;
import org.scaledit.ranks.Ranks;
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

    /**
     * What one run is to do.
     *
     * @param model a FLUX.1 checkpoint in diffusers' layout
     * @param data a folder of pictures and captions; see the README
     * @param cache for latents and text states: a folder, which is made if it is not there
     * @param output the LoRA, {@code ….safetensors}; checkpoint, {@code loss.csv} and so on go beside it
     * @param steps in all, those before a resumption with them; 1 or more
     * @param saveEvery so many steps the checkpoint and the LoRA are written, and at the end
     * @param resume whether to go on from the checkpoint beside the output; if not, there must be none
     * @param placement where, and in which precision, the model computes
     * @param ranks copies of the model, which deal out the samples of a step and train one LoRA: each is on a GPU of its own;
     *     on a CPU nothing is won by more than one
     * @param samples pictures to be made on the way
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
            Placement placement,
            int ranks,
            Optional<Samples> samples) {
        public Run {
            if (steps < 1) {
                throw new IllegalArgumentException("steps is " + steps + ", expected 1 or more");
            }
            if (saveEvery < 1) {
                throw new IllegalArgumentException("save every is " + saveEvery + " steps, expected 1 or more");
            }
            if (ranks < 1) {
                throw new IllegalArgumentException("gpus is " + ranks + ", expected 1 or more");
            }
            if (recipe.accumulate() % ranks != 0) {
                throw new IllegalArgumentException(
                        "accumulate is " + recipe.accumulate() + ", expected a multiple of the " + ranks + " GPUs");
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

        /** The folder of the samples. */
        Path samplesFolder() {
            return output.resolveSibling("samples");
        }

        /** {@code loss.csv}; {@link LossLog#read} reads it. */
        public Path lossLog() {
            return output.resolveSibling("loss.csv");
        }
    }

    /**
     * Pictures that show how far a training has come: {@code samples/step-000500-1.png} beside the LoRA and so on, as large as
     * those in training, always from the same noise.
     *
     * @param every so many steps
     * @param prompts of one picture each
     * @param steps of the high-resolution pass, at {@code guidance}
     * @param guideSteps of the guidance image, at {@code guideGuidance}
     */
    public record Samples(
            long every, List<String> prompts, int steps, double guidance, int guideSteps, double guideGuidance) {
        public Samples {
            prompts = List.copyOf(prompts);
            if (every < 1) {
                throw new IllegalArgumentException("sample every is " + every + " steps, expected 1 or more");
            }
            if (prompts.isEmpty()) {
                throw new IllegalArgumentException("no sample prompt given, expected one at least for samples");
            }
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
            CudaAttention.requireGpus(run.ranks);
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
        long first = 0;
        if (run.resume) {
            try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint())) {
                checkpoint.requireOrigin(origin);
                requireSteps(checkpoint);
                first = checkpoint.steps();
            }
        }
        set.fill(run.samples.map(Samples::prompts).orElse(List.of()), (done, all) -> {
            listener.encoded(done, all);
            TrainingLoop.throwIfInterrupted("while pictures and captions were encoded; what was encoded is kept");
        });
        long made = first;
        double[] losses = new double[recipe.accumulate()];
        Ranks.run(run.ranks, run.placement.cuda(), exchange -> train(set, origin, made, exchange, losses));
    }

    /** What a rank does. */
    private void train(TrainingSet set, Map<String, String> origin, long made, Exchange exchange, double[] losses) {
        try (FluxTransformer plain = FluxTransformer.loadForTraining(model, run.placement);
                Lora start = start(SampleOrder.start(recipe.seed()));
                FluxTransformer trained =
                        plain.withTrainedLora(start, recipe.scope().ofTransformer());
                StepGradients gradients = new StepGradients(recipe, set, trained, exchange, losses)) {
            if (exchange.rank() > 0) {
                for (long step = made + 1; step <= run.steps; step++) {
                    gradients.of(step);
                }
                return;
            }
            try (TrainingSession session = new TrainingSession(run, origin, trained, gradients, listener)) {
                run.samples.ifPresent(
                        samples -> session.paint(new SamplePainter(run, samples, model, plain, trained, set)));
                session.run();
            }
        }
    }

    private int textTokens() {
        return TrainingSet.Encoding.textTokens(recipe.textTokens(), config, model);
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
        Map<String, String> origin =
                TrainingCheckpoint.origin(recipe.settings(textTokens()), run.placement, set.fingerprint());
        origin.put(
                TrainingCheckpoint.MODEL,
                TrainingSet.identity(
                        model, "transformer", "vae", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"));
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
}
