package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.file.Reasons;
import org.scaledit.judge.Detector;
import org.scaledit.judge.Exam;
import org.scaledit.judge.Judge;
import org.scaledit.judge.Shares;
import org.scaledit.ranks.Exchange;
import org.scaledit.ranks.Ranks;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Trains a judge of scenes on true renders of all combinations, and examines it on others. A training that was stopped at any moment goes on from its
 * last checkpoint.
 */
public final class JudgeTraining {
    /** As it is called in names of files. */
    public static final String WORD = "judge";

    /**
     * What one run is to do.
     *
     * @param output a folder, which is there: it gets the folder {@code judge}, a checkpoint and a log
     * @param sprites the folder of the SVG sets that scenes are composed from
     * @param resume whether to go on from the checkpoint in the output; if not, there must be none
     * @param placement where, and in which precision, it computes; weights are changed in float32
     * @param ranks copies of what is trained, which deal out the batches of a step: each is on a GPU of its own
     */
    public record Run(JudgeRecipe recipe, Path output, Path sprites, boolean resume, Placement placement, int ranks) {
        public Run {
            recipe.training().requireRanks(WORD, ranks);
        }

        /** The judge's folder, as {@link Judge#open} reads it. */
        public Path judge() {
            return output.resolve(WORD);
        }

        Path checkpoint() {
            return output.resolve(WORD + ".checkpoint.safetensors");
        }

        /** {@link LossLog#read} reads it. */
        public Path lossLog() {
            return output.resolve(WORD + ".loss.csv");
        }

        private Vocabulary vocabulary() {
            return recipe.network().vocabulary();
        }
    }

    private final Run run;
    private final JudgeRecipe recipe;
    private final TrainingListener listener;
    private final SceneSource source;

    private JudgeTraining(Run run, TrainingListener listener) {
        this.run = run;
        this.recipe = run.recipe;
        this.listener = listener;
        // Whoever never sees an orange tulip calls it a red one: a judge knows combinations that are held out from a
        // model.
        this.source = new SceneSource(
                0,
                recipe.scenes(),
                "",
                run.sprites,
                run.placement.cuda(),
                opened -> Composer.ofAll(run.vocabulary(), opened));
    }

    /**
     * Trains and examines. Interrupting the thread stops it before the next batch, with a checkpoint of the steps that were made.
     *
     * @throws CancellationException if the thread is interrupted
     * @throws RuntimeException with one sentence if a file is missing or wrong, cannot be written, is not what a checkpoint was
     *     made with, or if a loss is no number
     */
    public static void run(Run run, TrainingListener listener) {
        PartTraining.on(run.placement, run.ranks, () -> {
            JudgeTraining training = new JudgeTraining(run, listener);
            try (SampleSource source = training.source) {
                training.run();
            }
        });
    }

    private void run() {
        TrainingCheckpoint.requireStart(run.checkpoint(), run.judge(), run.resume);
        Ranks.run(run.ranks, run.placement.cuda(), this::train);
    }

    private void train(Exchange exchange) {
        Map<String, long[]> shapes = recipe.network().expectedTensors();
        try (ParameterSet parameters =
                new ParameterSet(shapes, run.placement, recipe.training().mostBatches())) {
            try (InitialWeights start = new InitialWeights(SampleOrder.start(recipe.seed()))) {
                parameters.begin(start);
            }
            JudgeObjective objective = new JudgeObjective(recipe, source, parameters.leaves(""), run.placement);
            try (PartTraining<JudgeObjective.Batch> training = new PartTraining<>(
                    new PartTraining.State(run.checkpoint(), run.lossLog(), origin()),
                    recipe.training(),
                    parameters,
                    objective,
                    source,
                    recipe.seed(),
                    exchange,
                    listener)) {
                training.run(run.resume);
            }
            if (exchange.rank() == 0) {
                Tensors.run(() -> write(parameters.averages("")));
            }
        }
    }

    private Map<String, String> origin() {
        return TrainingCheckpoint.origin(recipe.settings(), run.placement, source.fingerprint());
    }

    private void write(Map<String, Tensor> weights) {
        Sprites sprites = Sprites.open(run.sprites);
        Judge.Accuracy accuracy =
                new Judge.Accuracy(examined(weights, sprites, false), examined(weights, sprites, true));
        try {
            Files.createDirectories(run.judge());
        } catch (IOException e) {
            throw new TrainingException("folder " + run.judge() + " cannot be made: " + Reasons.of(e), e);
        }
        Judge.write(run.judge(), recipe.network(), weights, accuracy);
    }

    private Shares examined(Map<String, Tensor> weights, Sprites sprites, boolean heldOut) {
        Detector detector = new Detector(recipe.network(), weights, run.placement.with(torch.ScalarType.Float));
        Exam exam = new Exam(new Composer(run.vocabulary(), sprites, heldOut), new SceneRenderer(sprites));
        return exam.of(detector, recipe.network().size(), recipe.exam());
    }
}
