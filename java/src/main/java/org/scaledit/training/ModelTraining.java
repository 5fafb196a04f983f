package org.scaledit.training;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.function.Function;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.ranks.Exchange;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.text.TrainedQueries;
import org.scaledit.text.TrainedTextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.TrainedTransformer;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.TrainedAutoencoder;
import org.scaledit.vae.VaeConfig;

/**
 * Trains a whole model: from scratch first its autoencoder, then its transformer with both text encoders, or with those of another
 * model; one that is trained further keeps its autoencoder. What comes out is a
 * directory in diffusers' layout. A training that was stopped at any moment goes on from its last checkpoint, on a CPU bit for
 * bit as if it had not been stopped.
 */
public final class ModelTraining {
    private static final String GUIDANCE_EMBEDDER = ".guidance_embedder.";
    private static final String T5 = ModelFiles.T5 + ".";
    private static final String T5_NORM = T5 + "encoder.final_layer_norm.weight";

    /** Of a new T5's states, so that a transformer that knows another one is not led far astray at first. */
    private static final double NEW_T5 = 0.1;

    /** Captions that the tokenizers' words are taken from. */
    private static final int CAPTIONS = 20_000;

    /** Pictures that the latents' mean and deviation are measured on. */
    private static final int MEASURED = 64;

    /** What decides about the autoencoder, in the recipe's fields. */
    private static final String VAE_SETTINGS = "vae";

    /** What is trained, in this order. */
    public enum Stage {
        VAE("vae"),
        TRANSFORMER("transformer");

        private final String word;

        Stage(String word) {
            this.word = word;
        }

        /** As it is called in names of files. */
        public String word() {
            return word;
        }
    }

    /**
     * What one run is to do.
     *
     * @param output a folder, which is there: it gets the folder {@code model} and, of each stage, checkpoint, log and so on
     * @param cache for latents: a folder, which is made if it is not there
     * @param sprites the folder of the SVG sets that scenes are composed from
     * @param resume whether to go on from the checkpoints in the output; if not, there must be none
     * @param placement where, and in which precision, it computes; weights are changed in float32
     * @param ranks copies of what is trained, which deal out the batches of a step: each is on a GPU of its own; on a CPU nothing is won
     *     by more than one
     */
    public record Run(
            ModelRecipe recipe,
            Path output,
            Path cache,
            Optional<Path> sprites,
            boolean resume,
            Placement placement,
            int ranks) {
        public Run {
            if (recipe.start().isEmpty()) {
                recipe.vae().training().requireRanks(Stage.VAE.word, ranks);
            }
            recipe.transformer().training().requireRanks(Stage.TRANSFORMER.word, ranks);
        }

        /** The model's directory. */
        public Path model() {
            return output.resolve("model");
        }

        /** {@code vae.checkpoint.safetensors} */
        public Path checkpoint(Stage stage) {
            return output.resolve(stage.word + ".checkpoint.safetensors");
        }

        /** {@code vae.loss.csv}; {@link LossLog#read} reads it. */
        public Path lossLog(Stage stage) {
            return output.resolve(stage.word + ".loss.csv");
        }
    }

    private final Run run;
    private final ModelRecipe recipe;
    private final ModelFiles files;
    private final SampleSource source;
    private final Function<Stage, TrainingListener> listeners;

    private ModelTraining(Run run, Function<Stage, TrainingListener> listeners) {
        this.run = run;
        this.recipe = run.recipe;
        this.files = new ModelFiles(run.model());
        this.listeners = listeners;
        this.source = source();
    }

    private SampleSource source() {
        ModelRecipe.Data data = recipe.data();
        if (data.folder().isPresent()) {
            return new FolderSource(data.folder().get());
        }
        return new SceneSource(
                data.first(),
                data.scenes(),
                data.mix(),
                run.sprites.orElseThrow(
                        () -> new IllegalArgumentException("no sprites given, which data.scenes are composed from")),
                run.placement.cuda());
    }

    /**
     * Trains. Interrupting the thread stops it before the next batch, with a checkpoint of the steps that were made.
     *
     * @param listeners of each stage
     * @throws CancellationException if the thread is interrupted
     * @throws RuntimeException with one sentence if a file is missing or wrong, cannot be written, is not what a checkpoint was
     *     made with, or if a loss is no number
     */
    public static void run(Run run, Function<Stage, TrainingListener> listeners) {
        PartTraining.on(run.placement, run.ranks, () -> {
            ModelTraining training = new ModelTraining(run, listeners);
            try (SampleSource source = training.source) {
                training.run();
            }
        });
    }

    private void run() {
        Stage first = recipe.start().isPresent() ? Stage.TRANSFORMER : Stage.VAE;
        TrainingCheckpoint.requireStart(run.checkpoint(first), run.model(), run.resume);
        if (recipe.start().isPresent()) {
            if (!run.resume) {
                files.copyVae(recipe.start().get());
            }
        } else if (files.hasVae()) {
            requireSame(Stage.VAE, origin(VAE_SETTINGS));
        } else {
            trainVae();
        }
        trainTransformer();
    }

    private List<String> captions() {
        return IntStream.range(0, Math.min(CAPTIONS, source.size()))
                .parallel()
                .mapToObj(source::caption)
                .toList();
    }

    private Map<String, String> origin(String... parts) {
        return TrainingCheckpoint.origin(recipe.settings(parts), run.placement, source.fingerprint());
    }

    private PartTraining.State state(Stage stage, Map<String, String> origin) {
        return new PartTraining.State(run.checkpoint(stage), run.lossLog(stage), origin);
    }

    /** Begins a stage anew, or goes on with it. */
    private boolean resumes(Stage stage) {
        return run.resume && Files.exists(run.checkpoint(stage));
    }

    /** With random weights; if a model is trained further, only those that it has not. */
    private void begin(ParameterSet parameters) {
        try (InitialWeights random = new InitialWeights(SampleOrder.start(recipe.seed()))) {
            if (recipe.start().isEmpty()) {
                parameters.begin(random);
                return;
            }
            try (StartedWeights start =
                    new StartedWeights(ModelDirectory.open(recipe.start().get()))) {
                boolean distils = recipe.transformer().distillation().isPresent();
                parameters.begin((name, shape) -> {
                    boolean added = name.startsWith(Recognition.PREFIX)
                            || name.startsWith(Layout.PREFIX)
                            || recipe.text().t5Anew() && name.startsWith(T5)
                            || distils && name.contains(GUIDANCE_EMBEDDER);
                    if (added) {
                        Tensor begun = random.of(name, shape);
                        return name.equals(T5_NORM) ? begun.mul(new Scalar(NEW_T5)) : begun;
                    }
                    Tensor started = start.of(name, shape);
                    return name.startsWith(T5)
                            ? TrainedQueries.of(
                                    name.substring(T5.length()),
                                    started,
                                    recipe.text().t5().headDim())
                            : started;
                });
            }
        }
    }

    private void trainVae() {
        TrainingListener listener = listeners.apply(Stage.VAE);
        Ranks.run(run.ranks, run.placement.cuda(), exchange -> trainVae(exchange, listener));
    }

    private void trainVae(Exchange exchange, TrainingListener listener) {
        Map<String, long[]> shapes = AutoencoderKl.expectedTensors(recipe.vae().config(1, 0));
        try (ParameterSet parameters =
                new ParameterSet(shapes, run.placement, recipe.vae().training().mostBatches())) {
            begin(parameters);
            VaeObjective objective =
                    new VaeObjective(recipe.vae(), source, recipe.seed(), parameters.leaves(""), run.placement);
            try (PartTraining<VaeObjective.Batch> training = new PartTraining<>(
                    state(Stage.VAE, origin(VAE_SETTINGS)),
                    recipe.vae().training(),
                    parameters,
                    objective,
                    source,
                    recipe.seed(),
                    exchange,
                    listener)) {
                training.run(resumes(Stage.VAE));
            }
            if (exchange.rank() == 0) {
                Tensors.run(() -> files.vae(measured(parameters.averages("")), parameters.averages("")));
            }
        }
    }

    /** The configuration with which latents have, over all channels, mean 0 and deviation 1. */
    private VaeConfig measured(Map<String, Tensor> weights) {
        int size = Collections.min(recipe.vae().pictureSizes());
        Placement wide = run.placement.with(torch.ScalarType.Float);
        TrainedAutoencoder vae = new TrainedAutoencoder(recipe.vae().config(1, 0), weights, wide);
        int count = Math.min(MEASURED, source.size());
        double[] sums = new double[2];
        Tensors.withoutGradients(() -> {
            for (int sample = 0; sample < count; sample++) {
                Tensor picture = source.picture(sample, size);
                Tensors.run(() -> {
                    Tensor mean = vae.encode(picture.unsqueeze(0)).mean();
                    sums[0] += mean.mean().item_double() / count;
                    sums[1] += mean.square().mean().item_double() / count;
                });
                picture.close();
            }
        });
        double deviation = Math.sqrt(Math.max(1e-12, sums[1] - sums[0] * sums[0]));
        return recipe.vae().config(1 / deviation, sums[0]);
    }

    private void requireSame(Stage stage, Map<String, String> origin) {
        try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(run.checkpoint(stage))) {
            checkpoint.requireOrigin(origin);
        }
    }

    private void trainTransformer() {
        if (!resumes(Stage.TRANSFORMER)) {
            files.begin(recipe, this::captions);
        }
        TrainingListener listener = listeners.apply(Stage.TRANSFORMER);
        boolean resumes = resumes(Stage.TRANSFORMER);
        Ranks.run(run.ranks, run.placement.cuda(), exchange -> trainTransformer(exchange, resumes, listener));
    }

    private void trainTransformer(Exchange exchange, boolean resumes, TrainingListener listener) {
        ModelDirectory model = ModelDirectory.open(run.model());
        Map<String, long[]> shapes = new LinkedHashMap<>();
        put(
                shapes,
                ModelFiles.TRANSFORMER,
                FluxTransformer.expectedTensors(recipe.transformer().config()));
        Map<String, long[]> clip = TrainedTextEncoders.expectedClipTensors(model.config(ModelFiles.CLIP));
        Map<String, long[]> t5 = TrainedTextEncoders.expectedT5Tensors(model.config(ModelFiles.T5));
        boolean frozen = recipe.text().frozen().isPresent();
        if (!frozen) {
            put(shapes, ModelFiles.CLIP, clip);
            put(shapes, ModelFiles.T5, t5);
        }
        if (recipe.transformer().recognition().isPresent()) {
            Recognition.expectedTensors(recipe.transformer().config().width())
                    .forEach((name, shape) -> shapes.put(Recognition.PREFIX + name, shape));
        }
        recipe.transformer()
                .layout()
                .ifPresent(layout -> Layout.expectedTensors(
                                layout, recipe.text().t5().width())
                        .forEach((name, shape) -> shapes.put(Layout.PREFIX + name, shape)));
        String vae = TrainingSet.identity(model, ModelFiles.VAE);
        Map<String, String> origin = origin("text", "transformer");
        if (!frozen) {
            origin.put("text.t5.queries", "scaled"); // see TrainedQueries
        }
        origin.put(
                TrainingCheckpoint.MODEL,
                vae
                        + TrainingSet.identity(model, ModelFiles.CLIP_TOKENIZER, ModelFiles.T5_TOKENIZER)
                        + (frozen ? TrainingSet.identity(model, ModelFiles.CLIP, ModelFiles.T5) : "")
                        + recipe.start()
                                .map(start -> TrainingSet.identity(
                                        ModelDirectory.open(start),
                                        ModelFiles.TRANSFORMER,
                                        ModelFiles.CLIP,
                                        ModelFiles.T5))
                                .orElse(""));
        int losses = 1 + TransformerObjective.otherLosses(recipe.transformer()).size(); // of a batch
        boolean muon = recipe.transformer().training().method() == ModelRecipe.Method.MUON;
        try (ParameterSet parameters = new ParameterSet(
                muon ? Muon.ordered(shapes) : shapes,
                run.placement,
                recipe.transformer().training().mostBatches() * losses)) {
            begin(parameters);
            FluxConfig taught = recipe.transformer().config().withoutGuidanceEmbedder();
            boolean distils = recipe.transformer().distillation().isPresent();
            try (FrozenWeights teacher = FrozenWeights.of(
                            distils,
                            distils ? ModelDirectory.open(recipe.start().orElseThrow()) : model,
                            ModelFiles.TRANSFORMER,
                            FluxTransformer.expectedTensors(taught),
                            run.placement);
                    FrozenWeights clipWeights = FrozenWeights.of(frozen, model, ModelFiles.CLIP, clip, run.placement);
                    FrozenWeights t5Weights = FrozenWeights.of(frozen, model, ModelFiles.T5, t5, run.placement);
                    TrainedTextEncoders encoders = new TrainedTextEncoders(
                            model,
                            frozen ? clipWeights.tensors : parameters.leaves(ModelFiles.CLIP + "."),
                            frozen ? t5Weights.tensors : parameters.leaves(T5),
                            run.placement,
                            !frozen);
                    TransformerObjective objective = new TransformerObjective(
                            recipe,
                            source,
                            parameters,
                            recipe.transformer()
                                    .distillation()
                                    .map(distillation -> new Teacher(
                                            new TrainedTransformer(taught, teacher.tensors, run.placement, false),
                                            distillation,
                                            encoders,
                                            recipe.text().tokens(),
                                            run.placement)),
                            encoders,
                            files,
                            kind -> latents(model, vae, kind, exchange, listener),
                            run.placement);
                    PartTraining<TransformerObjective.Batch> training = new PartTraining<>(
                            state(Stage.TRANSFORMER, origin),
                            recipe.transformer().training(),
                            parameters,
                            objective,
                            source,
                            recipe.seed(),
                            exchange,
                            listener)) {
                training.run(resumes);
            }
        }
    }

    /**
     * A part's weights that are not trained.
     *
     * @param weights that own the tensors; none for a part that is trained
     */
    private record FrozenWeights(Optional<Weights> weights, Map<String, Tensor> tensors) implements AutoCloseable {

        static FrozenWeights of(
                boolean frozen, ModelDirectory model, String part, Map<String, long[]> shapes, Placement placement) {
            if (!frozen) {
                return new FrozenWeights(Optional.empty(), Map.of());
            }
            Weights weights = Weights.of(model.weights(part), placement);
            try {
                Map<String, Tensor> tensors = new LinkedHashMap<>();
                shapes.forEach((name, shape) -> tensors.put(name, weights.load(name, shape)));
                return new FrozenWeights(Optional.of(weights), tensors);
            } catch (RuntimeException | Error e) {
                weights.close();
                throw e;
            }
        }

        @Override
        public void close() {
            weights.ifPresent(Weights::close);
        }
    }

    private static void put(Map<String, long[]> shapes, String part, Map<String, long[]> ofPart) {
        ofPart.forEach((name, shape) -> shapes.put(part + "." + name, shape));
    }

    /** Of a kind of batch, filled. The autoencoder is in memory for that alone. */
    private LatentSet latents(
            ModelDirectory model,
            String identity,
            ModelRecipe.Batch kind,
            Exchange exchange,
            TrainingListener listener) {
        LatentSet latents = new LatentSet(
                source, kind.of(source.size()), kind.size(), identity, run.placement, ExampleCache.in(run.cache));
        VaeConfig config = VaeConfig.of(model.config(ModelFiles.VAE));
        try {
            Tensors.run(() -> {
                Map<String, Tensor> weights = new LinkedHashMap<>();
                try (Safetensors file = model.weights(ModelFiles.VAE)) {
                    AutoencoderKl.expectedTensors(config)
                            .forEach((name, shape) -> weights.put(name, run.placement.place(file.tensor(name))));
                    latents.fill(
                            new TrainedAutoencoder(config, weights, run.placement), config, exchange, (done, all) -> {
                                if (exchange.rank() == 0) {
                                    listener.encoded(done, all);
                                }
                                TrainingLoop.throwIfInterrupted(LatentSet.WHEN);
                            });
                }
            });
            return latents;
        } catch (RuntimeException | Error e) {
            latents.close();
            throw e;
        }
    }
}
