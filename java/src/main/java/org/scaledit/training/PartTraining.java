package org.scaledit.training;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.attention.CudaAttention;
import org.scaledit.ranks.Exchange;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;

/**
 * The steps that one process makes of the training of a model's part; the moving average of its weights is what comes out.
 * Of several ranks each has all weights and computes the gradients of some of a step's batches; their sum, and so what becomes
 * of the weights, is the same bits in all of them. Rank 0 alone writes.
 *
 * @param <B> what the loss of a batch is computed from
 */
final class PartTraining<B extends AutoCloseable> implements TrainingLoop.Steps, AutoCloseable {
    /** The most that are made before a GPU is waited for. */
    private static final int STEPS_AT_ONCE = 8;

    /** What is trained, and on what. */
    interface Objective<B> {
        /** Makes ready for the batches of a phase. */
        void begin(ModelRecipe.Phase phase);

        /**
         * A batch, made on any thread: a function of its arguments alone.
         *
         * @param count of the samples before its first one
         */
        B batch(ModelRecipe.Batch kind, long count, int[] samples);

        /** What is learnt besides the loss: names. */
        default List<String> otherLosses() {
            return List.of();
        }

        /**
         * Adds the gradients of {@code share} times the loss to those of the parameters; returns the loss and behind it
         * {@link #otherLosses}, no number where the batch has none: {@code [1 + others]} without a graph, in the caller's scope.
         * On a GPU both may still be in its queue.
         */
        Tensor addGradients(B batch, double share);

        /** Writes the part as it is so far. */
        void write();
    }

    /**
     * Where a training leaves its state.
     *
     * @param origin what must be the same when it goes on
     */
    record State(Path checkpoint, Path lossLog, Map<String, String> origin) {}

    private final State state;
    private final ModelRecipe.Training training;
    private final ParameterSet parameters;
    private final Objective<B> objective;
    private final SampleSource source;
    private final long seed;
    private final Exchange exchange;
    private final TrainingListener listener;
    private final Optimizer optimizer;
    private final UnreadSteps unread;
    private final Map<ModelRecipe.Batch, SampleOrder> orders = new HashMap<>();
    private ModelRecipe.@Nullable Phase phase; // of the batches that are being made
    private @Nullable Prefetch<B> batches;

    PartTraining(
            State state,
            ModelRecipe.Training training,
            ParameterSet parameters,
            Objective<B> objective,
            SampleSource source,
            long seed,
            Exchange exchange,
            TrainingListener listener) {
        this.state = state;
        this.training = training;
        this.parameters = parameters;
        this.objective = objective;
        this.source = source;
        this.seed = seed;
        this.exchange = exchange;
        this.listener = listener;
        this.optimizer = training.method() == ModelRecipe.Method.MUON
                ? new Muon(parameters, training.rate(), training.weightDecay())
                : new AdamW(parameters.whole(), training.rate(), training.weightDecay());
        this.unread = new UnreadSteps(parameters.onGpu() ? STEPS_AT_ONCE : 1);
    }

    /** Runs trainings where they compute, once it is certain that they can. */
    static void on(Placement placement, int ranks, Runnable trainings) {
        if (placement.cuda()) {
            CudaAttention.requireGpus(ranks);
            besideGpu(trainings);
        } else {
            Torch.load();
            trainings.run();
        }
    }

    /** Batches are made by as many threads as there are processors: each one's own operations need no others. */
    private static void besideGpu(Runnable trainings) {
        int threads = torch.get_num_threads();
        torch.set_num_threads(1);
        try {
            trainings.run();
        } finally {
            torch.set_num_threads(threads);
        }
    }

    /**
     * Makes the steps that are left.
     *
     * @param resume whether to go on from the checkpoint; if not, the parameters are as they begin
     */
    void run(boolean resume) {
        long first = 0;
        if (resume) {
            try (TrainingCheckpoint checkpoint = TrainingCheckpoint.open(state.checkpoint)) {
                checkpoint.requireOrigin(state.origin);
                checkpoint.restore(parameters.state(), optimizer);
                first = checkpoint.steps();
            }
            parameters.update();
        }
        if (exchange.rank() > 0) {
            for (long step = first + 1; step <= training.steps(); step++) {
                step(step);
            }
            return;
        }
        TrainingLoop.run(
                new TrainingLoop.Length(state.lossLog, training.steps(), training.saveEvery()), first, this, listener);
    }

    @Override
    public long samples(long steps) {
        return training.samples(steps);
    }

    @Override
    public List<LossLog.Row> step(long step) {
        TrainingLoop.throwIfInterruptedAfter(step - 1);
        ModelRecipe.Phase current = training.phase(step);
        double share = 1.0 / current.batches().size();
        Prefetch<B> coming = batches(current, step);
        parameters.clearGradients(); // those of a step that was not finished, too
        for (int i = exchange.rank(); i < current.batches().size(); i += exchange.ranks()) {
            int number = i;
            TrainingLoop.throwIfInterruptedAfter(step - 1);
            try (B next = coming.take(TrainingLoop.after(step - 1))) {
                Tensors.run(() -> parameters.noteLosses(number, objective.addGradients(next, share)));
            } catch (RuntimeException e) {
                throw e;
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
            parameters.gather();
        }
        exchange.sum(parameters.summed());
        Tensors.run(() -> {
            Tensor norm = parameters.gradientNorm();
            parameters.shortenGradients(norm, training.clipNorm());
            unread.add(
                    step,
                    optimizer.learningRate(),
                    parameters.losses(
                            current.batches().size(), 1 + otherLosses().size()),
                    norm,
                    number -> name(current, step, number));
        });
        optimizer.step();
        parameters.update();
        parameters.follow(decay(training.average(), step));
        return unread.isFull() ? unread.read() : List.of();
    }

    @Override
    public List<String> otherLosses() {
        return objective.otherLosses();
    }

    @Override
    public List<LossLog.Row> rest() {
        List<LossLog.Row> rows = unread.read();
        exchange.requireWhole();
        return rows;
    }

    /** Of the moving average: it follows faster at the beginning, where it would remember random weights. */
    static double decay(double most, long step) {
        return Math.min(most, (1.0 + step) / (10.0 + step));
    }

    /** Of a step's batch. */
    private String name(ModelRecipe.Phase current, long step, int number) {
        ModelRecipe.Batch kind = current.batches().get(number);
        int first = order(kind).sample(training.samplesBefore(current, step, number));
        return source.name(first) + (kind.count() == 1 ? "" : " and " + (kind.count() - 1) + " others");
    }

    /** Of the samples that a kind of batch is made of. */
    private SampleOrder order(ModelRecipe.Batch kind) {
        return orders.computeIfAbsent(
                kind, each -> new SampleOrder(seed, each.of(source.size()), Recipe.Timesteps.UNIFORM));
    }

    /** This rank's of a phase from a step on. */
    private Prefetch<B> batches(ModelRecipe.Phase current, long step) {
        Prefetch<B> coming = batches;
        if (coming != null && current == phase) {
            return coming;
        }
        endBatches();
        try {
            objective.begin(current);
        } catch (RuntimeException e) {
            TrainingLoop.throwIfInterruptedAfter(step - 1); // a file that was being read is closed by an interrupt
            throw e;
        }
        long before = training.samples(step - 1); // of this step
        int perStep = current.batches().size() / exchange.ranks();
        coming = new Prefetch<>(
                0,
                stepsLeft(current, step) * perStep,
                exchange.ranks(),
                source.placement().shared(),
                number -> {
                    int place = (int) (number % perStep) * exchange.ranks() + exchange.rank();
                    ModelRecipe.Batch kind = current.batches().get(place);
                    long later = number / perStep; // steps
                    long count = before + later * current.samplesPerStep() + current.samples(place);
                    long first = training.samplesBefore(current, step + later, place);
                    int[] samples = LongStream.range(first, first + kind.count())
                            .mapToInt(order(kind)::sample)
                            .toArray();
                    return () -> objective.batch(kind, count, samples);
                });
        phase = current;
        batches = coming;
        return coming;
    }

    private long stepsLeft(ModelRecipe.Phase current, long step) {
        return training.stepsBefore(current) + current.steps() - step + 1;
    }

    private void endBatches() {
        if (batches != null) {
            batches.close();
            batches = null;
        }
    }

    /** The checkpoint first: a part that is older than it is written again in any case. */
    @Override
    public void write(long step) {
        TrainingCheckpoint.write(state.checkpoint, step, state.origin, parameters.state(), optimizer);
        if (step > 0) {
            objective.write();
        }
    }

    @Override
    public void close() {
        endBatches();
        unread.close();
        optimizer.close();
    }
}
