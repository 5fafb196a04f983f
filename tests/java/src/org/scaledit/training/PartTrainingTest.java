package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Torch;

/** Of a weight that learns nothing: which samples it is given. */
class PartTrainingTest {
    private static final int SAMPLES = 12;
    private static final int FEW = 8;
    private static final long SEED = 5;

    /** Two sizes in each step, then one alone. */
    private static final List<ModelRecipe.Phase> PHASES = List.of(
            new ModelRecipe.Phase(
                    List.of(
                            new ModelRecipe.Batch(32, 1, 0),
                            new ModelRecipe.Batch(32, 1, 0),
                            new ModelRecipe.Batch(64, 2, FEW),
                            new ModelRecipe.Batch(64, 2, FEW)),
                    SAMPLES),
            new ModelRecipe.Phase(Collections.nCopies(2, new ModelRecipe.Batch(32, 1, 0)), 3));

    @TempDir
    private Path folder;

    @BeforeAll
    static void load() {
        Torch.load();
    }

    /** @param count of the samples before the first of these */
    private record Given(int size, long count, int[] samples) implements AutoCloseable {
        @Override
        public void close() {}
    }

    private static final SampleSource SOURCE = new SampleSource() {
        @Override
        public int size() {
            return SAMPLES;
        }

        @Override
        public String fingerprint() {
            return "twelve";
        }

        @Override
        public String name(int sample) {
            return String.valueOf(sample);
        }

        @Override
        public String caption(int sample) {
            return "";
        }

        @Override
        public Tensor picture(int sample, int size, int crop, long place) {
            throw new UnsupportedOperationException();
        }
    };

    /** By the count of the samples before each batch. */
    private Map<Long, Given> given(int ranks) {
        Map<Long, Given> given = new ConcurrentSkipListMap<>();
        ModelRecipe.Training recipe =
                new ModelRecipe.Training(1e-3, 0.1, 1, 0, 0.9, 1, 100, ModelRecipe.Method.ADAMW, PHASES);
        Ranks.run(ranks, false, exchange -> {
            try (ParameterSet parameters =
                    new ParameterSet(Map.of("weight", new long[] {2}), Placement.FLOAT32_CPU, recipe.mostBatches())) {
                Tensor weight = parameters.leaves("").values().iterator().next();
                PartTraining.Objective<Given> objective = new PartTraining.Objective<>() {
                    @Override
                    public void begin(ModelRecipe.Phase phase) {}

                    @Override
                    public Given batch(ModelRecipe.Batch kind, long count, int[] samples) {
                        Given batch = new Given(kind.size(), count, samples);
                        given.put(count, batch);
                        return batch;
                    }

                    @Override
                    public Tensor addGradients(Given batch, double share) {
                        weight.sum().mul(new Scalar(share)).backward();
                        return torch.ones(new long[] {1}, Placement.FLOAT32_CPU.options());
                    }

                    @Override
                    public void write() {}
                };
                Path log = folder.resolve("ranks" + ranks + ".csv");
                try (PartTraining<Given> training = new PartTraining<>(
                        new PartTraining.State(folder.resolve("ranks" + ranks + ".safetensors"), log, Map.of()),
                        recipe,
                        parameters,
                        objective,
                        SOURCE,
                        SEED,
                        exchange,
                        SilentListener.NONE)) {
                    training.run(false);
                }
            }
        });
        return given;
    }

    private static int[] inOrder(Map<Long, Given> given, int size, long before) {
        return given.values().stream()
                .filter(batch -> batch.size == size && batch.count < before)
                .flatMapToInt(batch -> Arrays.stream(batch.samples))
                .toArray();
    }

    @Test
    void eachSizeHasEverySampleOnceInAnEpoch() {
        Map<Long, Given> one = given(1);
        Map<Long, Given> two = given(2);
        long ofPhase = 6L * SAMPLES;
        for (Map<Long, Given> given : List.of(one, two)) {
            int[] all = inOrder(given, 32, ofPhase);
            assertThat(all).hasSize(2 * SAMPLES);
            for (int epoch = 0; epoch < 2; epoch++) {
                assertThat(Arrays.copyOfRange(all, epoch * SAMPLES, (epoch + 1) * SAMPLES))
                        .containsExactlyInAnyOrder(IntStream.range(0, SAMPLES).toArray());
            }
            int[] few = inOrder(given, 64, ofPhase);
            assertThat(few).hasSize(4 * SAMPLES);
            for (int epoch = 0; epoch < 4 * SAMPLES / FEW; epoch++) {
                assertThat(Arrays.copyOfRange(few, epoch * FEW, (epoch + 1) * FEW))
                        .containsExactlyInAnyOrder(IntStream.range(0, FEW).toArray());
            }
        }
        assertThat(two.keySet()).isEqualTo(one.keySet());
        one.forEach((count, batch) -> assertThat(two)
                .extractingByKey(count)
                .extracting(given -> given.samples)
                .isEqualTo(batch.samples));
    }

    /** What decides about noise is the count of all samples, and of one size alone it decides about these, too. */
    @Test
    void aPhaseOfOneSizeGoesOnByTheCountOfAllSamples() {
        Map<Long, Given> given = given(2);
        long ofPhase = 6L * SAMPLES;
        SampleOrder order = new SampleOrder(SEED, SAMPLES, Recipe.Timesteps.UNIFORM);
        assertThat(given.keySet().stream().filter(count -> count >= ofPhase))
                .containsExactlyElementsOf(
                        LongStream.range(ofPhase, ofPhase + 6).boxed().toList());
        given.forEach((count, batch) -> {
            if (count >= ofPhase) {
                assertThat(batch.samples).containsExactly(order.sample(count));
            }
        });
    }
}
