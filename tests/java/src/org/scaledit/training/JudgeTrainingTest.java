package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.image.Pixels;
import org.scaledit.judge.Detection;
import org.scaledit.judge.Judge;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.Probe;
import org.scaledit.scenes.Scene;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Drawings;
import org.scaledit.testing.DrawnJudge;

class JudgeTrainingTest {
    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static Path sprites;

    @BeforeAll
    static void draw() throws IOException {
        sprites = Files.createDirectories(shared.resolve("sprites"));
        Drawings.write(sprites);
    }

    private JudgeRecipe recipe(String json) throws IOException {
        Path file = Files.writeString(folder.resolve("judge.json"), json);
        return JudgeRecipe.read(file, DrawnJudge.VOCABULARY);
    }

    private JudgeTraining.Run run(String name, String json, boolean resume, int ranks) throws IOException {
        Path output = Files.createDirectories(folder.resolve(name));
        return new JudgeTraining.Run(recipe(json), output, sprites, resume, Placement.FLOAT32_CPU, ranks);
    }

    private static void assertNear(JudgeTraining.Run run, JudgeTraining.Run expected, double tolerance) {
        List<LossLog.Row> ofOne = LossLog.read(expected.lossLog());
        List<LossLog.Row> rows = LossLog.read(run.lossLog());
        assertThat(rows).hasSameSizeAs(ofOne);
        for (int i = 0; i < rows.size(); i++) {
            assertThat(rows.get(i).loss() / ofOne.get(i).loss()).isBetween(1 - tolerance, 1 + tolerance);
        }
    }

    /** And nearly so when two ranks share the batches of a step, and in bfloat16. */
    @Test
    void aRunThatIsStoppedAndResumedIsBitForBitTheOneThatIsNot() throws IOException {
        String few = DrawnJudge.CONFIG
                .replace("\"batch\": 16, \"steps\": 600", "\"batch\": 2, \"accumulate\": 2, \"steps\": 5")
                .replace("\"warmup_steps\": 50", "\"warmup_steps\": 2")
                .replace("\"exam\": 40", "\"exam\": 2");
        JudgeTraining.Run whole = run("whole", few, false, 1);
        JudgeTraining.run(whole, SilentListener.NONE);
        assertThatThrownBy(() -> JudgeTraining.run(run("stopped", few, false, 1), new SilentListener() {
                    @Override
                    public void stepped(LossLog.Row row, long steps, Pace pace) {
                        if (row.step() == 3) {
                            Thread.currentThread().interrupt();
                        }
                    }
                }))
                .isInstanceOf(CancellationException.class);
        JudgeTraining.Run stopped = run("stopped", few, true, 1);
        JudgeTraining.run(stopped, SilentListener.NONE);
        for (String file : List.of("judge/model.safetensors", "judge/config.json", "judge.loss.csv")) {
            assertThat(Files.mismatch(
                            whole.output().resolve(file), stopped.output().resolve(file)))
                    .as("%s", file)
                    .isEqualTo(-1);
        }
        JudgeTraining.Run shared = run("shared", few, false, 2);
        JudgeTraining.run(shared, SilentListener.NONE);
        assertNear(shared, whole, 1e-4);
        JudgeTraining.Run float32 = run("bfloat16", few, false, 1);
        JudgeTraining.Run bfloat16 =
                new JudgeTraining.Run(float32.recipe(), float32.output(), sprites, false, Placement.BFLOAT16_CPU, 1);
        JudgeTraining.run(bfloat16, SilentListener.NONE);
        assertNear(bfloat16, whole, 0.05);
        assertThatThrownBy(() -> run("whole", few, false, 3))
                .hasMessage("a step of a phase of judge has 2 batches, expected a multiple of the 3 GPUs");
        assertThatThrownBy(() -> JudgeTraining.run(run("whole", few, false, 1), SilentListener.NONE))
                .isInstanceOf(TrainingException.class)
                .hasMessageContaining("judge.checkpoint.safetensors exists, expected a folder without");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "'\"size\": 64, \"channels\"' | '\"size\": 66, \"channels\"' |"
                        + " 'has network.size 66, expected a multiple of 8, as channels has 3 levels that halve it'",
                "'[16, 32, 32]' | '[16, 30]' | 'has network.channels [16, 30], expected multiples of groups, 4, one at"
                        + " least'",
                "'[16, 32, 32]' | '[4, 4, 4, 4, 4, 4, 4]' | 'has network.channels [4, 4, 4, 4, 4, 4, 4], expected at most"
                        + " 6 levels'",
                "'{\"size\": 64, \"batch\"' | '{\"size\": 128, \"batch\"' | 'has training.phases 128, expected"
                        + " network.size, 64'",
                "'\"blur\": 0.2' | '\"blur\": 2' | 'has augmentation.blur 2.0, expected a number from 0.0 to 1.0'",
                "'\"exam\": 40' | '\"exams\": 40' | 'has no field exam, expected a non-negative integer'"
            })
    void whatIsWrongInARecipeIsNamed(String right, String wrong, String message) {
        assertThat(DrawnJudge.CONFIG).contains(right);
        assertThatThrownBy(() -> recipe(DrawnJudge.CONFIG.replace(right, wrong)))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder.resolve("judge.json") + " " + message);
    }

    @Test
    void theRecipeOfTheRepositoryIsRead() {
        Path file = Path.of("../../tools/demo-model/judge.json");
        JudgeRecipe read = JudgeRecipe.read(file, Vocabulary.standard());
        assertThat(read.network().grid()).isEqualTo(16);
        long weights = read.network().expectedTensors().values().stream()
                .mapToLong(shape -> LongStream.of(shape).reduce(1, Math::multiplyExact))
                .sum();
        assertThat(weights).isBetween(1_000_000L, 4_000_000L);
    }

    /** Four objects, half a minute: it finds them on pictures that it has not seen, also on larger ones. */
    @Test
    void aJudgeFindsWhatItWasTrainedOn() throws IOException {
        JudgeTraining.Run run = run("judge", DrawnJudge.CONFIG, false, 1);
        JudgeTraining.run(run, SilentListener.NONE);
        try (Judge judge = Judge.open(run.judge(), Placement.FLOAT32_CPU)) {
            assertThat(judge.accuracy().usual().of().get(Probe.ONE)).isGreaterThan(0.9);
            assertThat(judge.accuracy().heldOut().overall()).isGreaterThan(0.6);
            Sprites opened = Sprites.open(sprites);
            Composer composer = new Composer(DrawnJudge.VOCABULARY, opened, true);
            int found = 0;
            for (int seed = 0; seed < 20; seed++) {
                Scene scene = composer.compose(Probe.ONE, 5000 + seed);
                byte[] rgb = new SceneRenderer(opened).render(scene, 128);
                List<Detection> seen = Tensors.compute(() -> judge.detect(Pixels.toTensor(rgb, 128)));
                Scene.Item item = scene.items().get(0);
                found += seen.size() == 1
                                && seen.get(0).object().equals(item.object())
                                && seen.get(0).box().overlap(item.box()) > 0.7
                        ? 1
                        : 0;
            }
            assertThat(found).isGreaterThan(16);
            Tensor small = Tensors.of(new float[3 * 32 * 64], 3, 32, 64);
            assertThatThrownBy(() -> judge.detect(small))
                    .hasMessage("the picture has 64 × 32 pixels, expected at least 64 × 64, which the judge looks at");
            small.close();
        }
        Files.writeString(
                run.judge().resolve("config.json"),
                Files.readString(run.judge().resolve("config.json")).replace("\"tulip\"", "\"unicorns\""));
        assertThatThrownBy(() -> Judge.open(run.judge(), Placement.FLOAT32_CPU))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(
                        run.judge().resolve("config.json") + " has objects unicorns, expected objects of scenes alone");
    }
}
