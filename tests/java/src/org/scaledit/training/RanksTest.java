package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.TreeMap;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.ranks.Exchange;
import org.scaledit.ranks.Ranks;
import org.scaledit.ranks.RanksStoppedException;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.DrawnPictures;
import org.scaledit.testing.Golden;
import org.scaledit.transformer.FluxTransformer;

/** Ranks that share a step's samples, here all on the CPU, make the step of one. */
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RanksTest {
    private static final int ACCUMULATE = 6;
    private static final int STEPS = 5;

    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static Path data;

    @BeforeAll
    static void draw() {
        data = DrawnPictures.in(shared.resolve("data"), 4, 64, 64);
    }

    private static Recipe recipe() {
        return new Recipe(
                64,
                4,
                8,
                8,
                LoraTargets.QKV,
                Recipe.Scope.GUIDANCE,
                OptionalInt.of(8),
                ACCUMULATE,
                Recipe.OptimizerKind.ADAMW,
                1e-3,
                Recipe.Timesteps.LOGIT_NORMAL,
                OptionalDouble.of(0.5),
                OptionalDouble.empty(),
                Recipe.AttentionKind.NATIVE,
                7);
    }

    private LoraTraining.Run run(String name, int ranks, int steps, boolean resume) throws IOException {
        return new LoraTraining.Run(
                Golden.tinyFlux(),
                data,
                shared.resolve("cache"),
                Files.createDirectories(folder.resolve(name)).resolve("lora.safetensors"),
                recipe(),
                steps,
                2,
                resume,
                Placement.FLOAT32_CPU,
                ranks,
                Optional.empty());
    }

    @ParameterizedTest
    @ValueSource(ints = {2, 3, 4})
    void sumsAndSharesAreTheSameOnAllRanks(int ranks) {
        Map<Integer, List<Float>> seen = new ConcurrentHashMap<>();
        Ranks.run(
                ranks,
                false,
                exchange -> Tensors.run(() -> {
                    List<Float> values = new ArrayList<>();
                    for (int round = 0; round < 100; round++) {
                        Tensor tensor = Tensors.of(new float[] {1 + exchange.rank(), round}, 2);
                        exchange.sum(tensor);
                        values.add(Tensors.floats(tensor)[0]);
                        assertThat(Tensors.floats(tensor)[1]).isEqualTo(round * ranks);
                        Tensor own = Tensors.of(new float[] {100 * round + exchange.rank()}, 1);
                        exchange.share(own);
                        values.add(Tensors.floats(own)[0]);
                    }
                    seen.put(exchange.rank(), values);
                }));
        assertThat(seen).hasSize(ranks);
        List<Float> first = seen.getOrDefault(0, List.of());
        assertThat(seen.values()).allMatch(values -> values.equals(first));
        assertThat(first.subList(2, 4)).containsExactly(ranks * (ranks + 1) / 2f, 100f);
    }

    private static TrainingSet trainingSet(ModelDirectory model) {
        TrainingSet set = new TrainingSet(
                Example.of(data),
                new TrainingSet.Encoding(model, 64, 4, 8, Placement.FLOAT32_CPU),
                ExampleCache.in(shared.resolve("cache")));
        set.fill(List.of(), (done, all) -> {});
        return set;
    }

    /** Of the same matrices at the second step, whose other matrix is no longer zero: by name. */
    private static Map<String, float[]> gradients(int ranks) {
        ModelDirectory model = ModelDirectory.open(Golden.tinyFlux());
        TrainingSet set = trainingSet(model);
        Map<String, float[]> found = new TreeMap<>();
        double[] losses = new double[ACCUMULATE];
        Ranks.run(ranks, false, exchange -> {
            try (FluxTransformer plain = FluxTransformer.loadForTraining(model, Placement.FLOAT32_CPU);
                    Lora start = Lora.load(Golden.path("golden/lora/scaledit_lora.safetensors"));
                    FluxTransformer trained =
                            plain.withTrainedLora(start, recipe().scope().ofTransformer());
                    StepGradients gradients = new StepGradients(recipe(), set, trained, exchange, losses)) {
                if (exchange.rank() > 0) { // others get rank 0's matrices
                    Tensors.withoutGradients(() -> Tensors.run(
                            () -> gradients.parameters().values().forEach(parameter -> parameter.mul_(new Scalar(2)))));
                }
                double loss = gradients.of(2);
                if (exchange.rank() == 0) {
                    gradients
                            .parameters()
                            .forEach((name, parameter) -> Tensors.run(() -> found.put(
                                    name, Tensors.floats(parameter.grad().flatten()))));
                    found.put("loss", new float[] {(float) loss});
                }
            }
        });
        return found;
    }

    /** Of a GPU it is known only once they have been read. */
    @Test
    void gradientsThatAreNotWholeChangeNoMatrix() throws IOException {
        Exchange broken = (Exchange) Proxy.newProxyInstance(
                Exchange.class.getClassLoader(), new Class<?>[] {Exchange.class}, (proxy, method, arguments) -> {
                    if (method.getName().equals("requireWhole")) {
                        throw new RanksStoppedException();
                    }
                    return method.invoke(Exchange.ALONE, arguments);
                });
        ModelDirectory model = ModelDirectory.open(Golden.tinyFlux());
        TrainingSet set = trainingSet(model);
        try (FluxTransformer plain = FluxTransformer.loadForTraining(model, Placement.FLOAT32_CPU);
                Lora start = Lora.load(Golden.path("golden/lora/scaledit_lora.safetensors"));
                FluxTransformer trained =
                        plain.withTrainedLora(start, recipe().scope().ofTransformer());
                StepGradients gradients = new StepGradients(recipe(), set, trained, broken, new double[ACCUMULATE]);
                TrainingSession session = new TrainingSession(
                        run("broken", 1, STEPS, false), Map.of(), trained, gradients, SilentListener.NONE)) {
            Map<String, float[]> before = matrices(gradients);
            assertThat(gradients.of(1)).isPositive(); // nobody has read them
            assertThatThrownBy(() -> session.step(1)).isInstanceOf(RanksStoppedException.class);
            Map<String, float[]> after = matrices(gradients);
            before.forEach(
                    (name, values) -> assertThat(after.get(name)).as(name).isEqualTo(values));
        }
    }

    private static Map<String, float[]> matrices(StepGradients gradients) {
        Map<String, float[]> matrices = new TreeMap<>();
        gradients
                .parameters()
                .forEach((name, parameter) -> Tensors.run(() ->
                        matrices.put(name, Tensors.floats(parameter.detach().flatten()))));
        return matrices;
    }

    private static boolean isZero(float[] values) {
        for (float value : values) {
            if (value != 0) {
                return false;
            }
        }
        return true;
    }

    @Test
    void gradientsAreThoseOfOneRankOnTheJoinedBatch() {
        Map<String, float[]> expected = gradients(1);
        assertThat(expected).hasSizeGreaterThan(20);
        for (int ranks : new int[] {2, 3}) {
            Map<String, float[]> found = gradients(ranks);
            assertThat(found.keySet()).isEqualTo(expected.keySet());
            expected.forEach((name, values) -> {
                float[] others = found.getOrDefault(name, new float[0]);
                double squares = 0;
                double differences = 0;
                for (int i = 0; i < values.length; i++) {
                    squares += (double) values[i] * values[i];
                    differences += Math.pow((double) others[i] - values[i], 2);
                }
                assertThat(Math.sqrt(differences)).as(name).isLessThanOrEqualTo(1e-6 * Math.sqrt(squares));
            });
            // But for what is dropped after the last block.
            assertThat(expected.values().stream().filter(RanksTest::isZero)).hasSizeLessThanOrEqualTo(2);
        }
    }

    private static void assertNear(Path lora, Path expected, double limit) {
        try (Lora found = Lora.load(lora);
                Lora one = Lora.load(expected)) {
            assertThat(found.layers().keySet()).isEqualTo(one.layers().keySet());
            one.layers()
                    .forEach((module, layer) -> Tensors.run(() -> {
                        Tensor other = Optional.ofNullable(found.layers().get(module))
                                .orElseThrow()
                                .up();
                        double moved = layer.up().norm().item_double();
                        assertThat(other.sub(layer.up()).norm().item_double())
                                .as(module)
                                .isLessThanOrEqualTo(limit * moved);
                    }));
        }
    }

    @Test
    void aTrainingOfSeveralRanksIsNearThatOfOneAndBitForBitTheSameAgain() throws IOException {
        LoraTraining.Run one = run("one", 1, STEPS, false);
        LoraTraining.run(one, SilentListener.NONE);
        List<LossLog.Row> expected = LossLog.read(one.lossLog());
        for (int ranks : new int[] {2, 3}) {
            LoraTraining.Run several = run("ranks" + ranks, ranks, STEPS, false);
            LoraTraining.run(several, SilentListener.NONE);
            assertNear(several.output(), one.output(), 1e-4);
            List<LossLog.Row> rows = LossLog.read(several.lossLog());
            assertThat(rows).hasSize(STEPS);
            for (int i = 0; i < STEPS; i++) {
                assertThat(rows.get(i).loss() / expected.get(i).loss()).isBetween(1 - 1e-5, 1 + 1e-5);
                assertThat(rows.get(i).gradientNorm() / expected.get(i).gradientNorm())
                        .isBetween(1 - 1e-4, 1 + 1e-4);
            }

            // Stopped after three steps, of which the checkpoint has all, and resumed.
            LoraTraining.Run stopped = run("stopped" + ranks, ranks, STEPS, false);
            assertThatThrownBy(() -> LoraTraining.run(stopped, new SilentListener() {
                        @Override
                        public void stepped(LossLog.Row row, long steps, Pace pace) {
                            if (row.step() == 3) {
                                Thread.currentThread().interrupt();
                            }
                        }
                    }))
                    .isInstanceOf(CancellationException.class);
            assertThat(LossLog.read(stopped.lossLog())).isEqualTo(rows.subList(0, 3));
            LoraTraining.run(run("stopped" + ranks, ranks, STEPS, true), SilentListener.NONE);
            assertThat(stopped.output()).hasSameBinaryContentAs(several.output());
            assertThat(stopped.checkpoint()).hasSameBinaryContentAs(several.checkpoint());
        }
    }

    @Test
    void aTrainingGoesOnWithAnotherNumberOfRanks() throws IOException {
        LoraTraining.Run one = run("one", 1, STEPS, false);
        LoraTraining.run(one, SilentListener.NONE);
        LoraTraining.Run mixed = run("mixed", 1, 2, false);
        LoraTraining.run(mixed, SilentListener.NONE);
        LoraTraining.run(run("mixed", 3, 4, true), SilentListener.NONE);
        LoraTraining.run(run("mixed", 2, STEPS, true), SilentListener.NONE);
        assertNear(mixed.output(), one.output(), 1e-4);
    }

    /** Also when it fails while the others wait, or come to wait later. */
    @ParameterizedTest
    @ValueSource(ints = {0, 1, 2})
    void aRankThatFailsEndsAllOfThem(int failing) {
        List<Integer> ended = Collections.synchronizedList(new ArrayList<>());
        assertThatThrownBy(() -> Ranks.run(3, false, exchange -> {
                    try {
                        Tensors.run(() -> {
                            Tensor tensor = torch.ones(new long[] {4}, Placement.FLOAT32_CPU.options());
                            exchange.sum(tensor);
                            if (exchange.rank() == failing) {
                                throw new TrainingException("the loss is NaN");
                            }
                            exchange.sum(tensor);
                        });
                    } finally {
                        ended.add(exchange.rank());
                    }
                }))
                .isInstanceOf(TrainingException.class)
                .hasMessage("the loss is NaN");
        assertThat(ended).containsExactlyInAnyOrder(0, 1, 2);
    }

    /** Rank 0's thread is that which is interrupted by Ctrl-C. */
    @Test
    void anInterruptEndsRanksThatWait() throws InterruptedException {
        CountDownLatch waiting = new CountDownLatch(1);
        List<Throwable> thrown = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch never = new CountDownLatch(1);
        Thread training = new Thread(() -> {
            try {
                Ranks.run(
                        2,
                        false,
                        exchange -> Tensors.run(() -> {
                            if (exchange.rank() == 1) {
                                waiting.countDown();
                                try {
                                    never.await();
                                } catch (InterruptedException e) {
                                    throw new CancellationException("told to stop");
                                }
                            }
                            exchange.sum(torch.ones(new long[] {4}, Placement.FLOAT32_CPU.options()));
                        }));
            } catch (CancellationException e) {
                thrown.add(e);
            }
        });
        training.start();
        waiting.await();
        training.interrupt();
        training.join();
        assertThat(thrown)
                .hasSize(1)
                .first()
                .extracting(Throwable::getMessage)
                .asString()
                .isEqualTo("stopped while waiting for the other GPUs");
    }

    private static void delete(Path cache) {
        try (Stream<Path> entries = Files.list(cache)) {
            for (Path entry : entries.toList()) {
                Files.delete(entry);
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @Test
    void whatARankFailsAtEndsTheTrainingAndItGoesOnFromItsCheckpoint() throws IOException {
        assertThatThrownBy(() -> run("odd", 4, STEPS, false))
                .hasMessage("accumulate is 6, expected a multiple of the 4 GPUs");
        assertThatThrownBy(() -> run("none", 0, STEPS, false)).hasMessage("gpus is 0, expected 1 or more");
        LoraTraining.Run whole = run("whole", 3, STEPS, false);
        LoraTraining.run(run("first", 1, 1, false), SilentListener.NONE); // fills the cache
        assertThatThrownBy(() -> LoraTraining.run(whole, new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        if (row.step() == 2) {
                            delete(whole.cache());
                        }
                    }
                }))
                .isInstanceOf(CheckpointException.class)
                .hasMessageMatching(whole.cache() + "/[0-9a-f]+\\.safetensors does not exist");
        assertThat(LossLog.read(whole.lossLog())).hasSize(2);
        LoraTraining.run(run("whole", 3, STEPS, true), SilentListener.NONE);
        assertThat(LossLog.read(whole.lossLog())).hasSize(STEPS);
    }
}
