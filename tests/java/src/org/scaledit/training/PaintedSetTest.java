package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.image.ImageFile;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngText;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.Latents;
import org.scaledit.vae.TileListener;

/** Sets of small pictures that the tiny model paints from three prompts. */
class PaintedSetTest {
    private static final int COUNT = 5;
    private static final List<String> PROMPTS = List.of("a fox in snow", "\"two\" lighthouses, 猫", "a disc");

    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static Path prompts;
    private static Path whole;

    @BeforeAll
    static void paintWhole() throws IOException {
        prompts = Files.writeString(shared.resolve("prompts.txt"), String.join("\n\n  ", PROMPTS) + "\n");
        whole = Files.createDirectory(shared.resolve("whole"));
        PaintedSet.paint(order(whole), NONE);
    }

    private static PaintedSet.Painting painting(int steps) {
        return new PaintedSet.Painting(64, steps, 3.5, Placement.FLOAT32_CPU, false, false);
    }

    private static PaintedSet.Order order(Path folder, PaintedSet.Shard shard, int count) {
        return new PaintedSet.Order(Golden.tinyFlux(), prompts, count, folder, 7, shard, painting(2));
    }

    private static PaintedSet.Order order(Path folder) {
        return order(folder, PaintedSet.Shard.WHOLE, COUNT);
    }

    /** Hears nothing but what a test wants to. */
    private interface Listener extends PaintedSet.Listener {
        @Override
        default void encoded(int done, int all) {}

        @Override
        default void painted(int done, int all, double perMinute, Duration remaining) {}
    }

    private static final Listener NONE = new Listener() {};

    private Path made(String name) throws IOException {
        return Files.createDirectory(folder.resolve(name));
    }

    private static List<Path> files(Path folder) throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.filter(Files::isRegularFile).sorted().toList();
        }
    }

    private static void assertSame(Path set, Path expected) throws IOException {
        assertThat(files(set).stream().map(Path::getFileName))
                .isEqualTo(files(expected).stream().map(Path::getFileName).toList());
        for (Path file : files(set)) {
            assertThat(file).hasSameBinaryContentAs(expected.resolve(file.getFileName()));
        }
    }

    @Test
    void aSetHasAPictureForEachNumberAndALineForEachPicture() throws IOException {
        assertThat(files(whole).stream().map(file -> file.getFileName().toString()))
                .containsExactly(
                        "000000.png",
                        "000001.png",
                        "000002.png",
                        "000003.png",
                        "000004.png",
                        "dataset.json",
                        "metadata.jsonl");
        assertThat(Files.readAllLines(whole.resolve("metadata.jsonl")))
                .hasSize(COUNT)
                .startsWith(
                        "{\"file_name\":\"000000.png\",\"text\":\"a fox in snow\"}",
                        "{\"file_name\":\"000001.png\",\"text\":\"\\\"two\\\" lighthouses, 猫\"}")
                .endsWith("{\"file_name\":\"000004.png\",\"text\":\"\\\"two\\\" lighthouses, 猫\"}");
        List<byte[]> pictures = new ArrayList<>();
        for (int i = 0; i < COUNT; i++) {
            Path file = whole.resolve("00000" + i + ".png");
            assertThat(ImageFile.size(file)).isEqualTo(new ImageFile.Size(64, 64));
            assertThat(PngText.read(file, "Description")).isEqualTo(PROMPTS.get(i % 3));
            byte[] bytes = Files.readAllBytes(file);
            assertThat(pictures).noneMatch(other -> Arrays.equals(other, bytes)); // of the same prompt, too
            pictures.add(bytes);
        }
    }

    /** A guidance image is what plain FLUX paints, by {@code generate}: of the same noise, pixel for pixel. */
    @Test
    void aPictureIsTheGuidanceImageOfItsSeed() throws IOException {
        Path trace = folder.resolve("trace.safetensors");
        try (ScaleDit model = ScaleDit.builder(Golden.tinyFlux())
                .precision(ScaleDit.Precision.FLOAT32)
                .load()) {
            model.generate(ImageRequest.of(PROMPTS.get(2))
                    .size(64, 64)
                    .ratio(1)
                    .steps(1)
                    .guideSteps(2)
                    .seed(SampleOrder.picture(7, 2))
                    .trace(trace));
        }
        Pixels expected = new Pixels(64, 64);
        try (Safetensors file = Safetensors.open(trace);
                AutoencoderKl vae = AutoencoderKl.load(
                        ModelDirectory.open(Golden.tinyFlux()).part("vae"), Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                TokenGrid grid = TokenGrid.ofPixels(64, 64);
                Tensor latents = file.tensor("guidance_latents").view(grid.tokens(), 64);
                Tensor raw = Latents.unscale(Latents.unpack(latents, grid.height(), grid.width()), vae.config());
                vae.decode(raw, TileListener.NONE, expected::put);
            });
        }
        Tensors.run(() -> {
            Tensor painted = ImageFile.read(whole.resolve("000002.png"));
            Tensor image = painted.add(new Scalar(1)).mul(new Scalar(127.5)).round();
            float[] values = Tensors.floats(image.permute(1, 2, 0).contiguous());
            for (int y = 0; y < 64; y++) {
                for (int i = 0; i < 3 * 64; i++) {
                    assertThat((int) values[3 * 64 * y + i]).isEqualTo(expected.row(y)[i] & 0xFF);
                }
            }
        });
    }

    @Test
    void shardsInOneFolderOrInSeveralAreTheSetOfOneRun() throws IOException {
        Path one = made("one");
        Path together = made("together");
        for (int shard : new int[] {2, 3, 1}) {
            PaintedSet.paint(order(one, new PaintedSet.Shard(shard, 3), COUNT), NONE);
            Path own = made("shard" + shard);
            List<Integer> done = new ArrayList<>();
            PaintedSet.paint(order(own, new PaintedSet.Shard(shard, 3), COUNT), new Listener() {
                @Override
                public void painted(int pictures, int all, double perMinute, Duration remaining) {
                    done.add(pictures);
                    assertThat(all).isEqualTo(shard == 3 ? 1 : 2);
                    assertThat(perMinute).isPositive();
                }
            });
            assertThat(done).containsExactlyElementsOf(shard == 3 ? List.of(1) : List.of(1, 2));
            assertThat(Files.exists(own.resolve("00000" + (shard - 1) + ".png")))
                    .isTrue();
            for (Path file : files(own)) {
                Files.copy(file, together.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
            }
        }
        assertSame(one, whole);
        assertSame(together, whole);
        List<Integer> encoded = new ArrayList<>();
        PaintedSet.paint(order(together), new Listener() {
            @Override
            public void encoded(int done, int all) {
                encoded.add(done);
            }
        });
        assertThat(encoded).isEmpty(); // as no picture lacks
    }

    /** While it encodes, while it paints, with a picture whose copying was broken off; and it grows. */
    @Test
    void aSetThatIsStoppedAndGoesOnIsTheSetOfOneRun() throws IOException {
        Path stopped = made("stopped");
        assertThatThrownBy(() -> PaintedSet.paint(order(stopped, PaintedSet.Shard.WHOLE, 3), new Listener() {
                    @Override
                    public void encoded(int done, int all) {
                        assertThat(all).isEqualTo(3);
                        Thread.currentThread().interrupt();
                    }
                }))
                .isInstanceOf(CancellationException.class);
        assertThat(Files.readAllLines(stopped.resolve("metadata.jsonl"))).hasSize(3);
        assertThatThrownBy(() -> PaintedSet.paint(order(stopped), new Listener() {
                    @Override
                    public void encoded(int done, int all) {
                        assertThat(all).isEqualTo(2); // the first one is kept
                    }

                    @Override
                    public void painted(int done, int all, double perMinute, Duration remaining) {
                        if (done == 2) {
                            Thread.currentThread().interrupt();
                        }
                    }
                }))
                .isInstanceOf(CancellationException.class)
                .hasMessage("the painting was stopped; the same command goes on");
        assertThat(files(stopped)).hasSize(4);
        assertThat(Example.of(stopped).stream().map(Example::name)).containsExactly("000000.png", "000001.png");

        Path damaged = stopped.resolve("000000.png");
        byte[] bytes = Files.readAllBytes(damaged);
        Files.write(damaged, Arrays.copyOf(bytes, bytes.length - 1));
        List<Integer> done = new ArrayList<>();
        PaintedSet.paint(order(stopped), new Listener() {
            @Override
            public void painted(int pictures, int all, double perMinute, Duration remaining) {
                done.add(pictures);
            }
        });
        assertThat(done).containsExactly(2, 3, 4, 5);
        assertSame(stopped, whole);
        PaintedSet.paint(order(stopped, PaintedSet.Shard.WHOLE, 2), NONE); // takes nothing away
        assertSame(stopped, whole);
    }

    @Test
    void trainingReadsItAndTakesTheStatesOfItsPrompts() {
        ModelDirectory model = ModelDirectory.open(Golden.tinyFlux());
        List<Example> examples = Example.of(whole);
        assertThat(examples)
                .hasSize(COUNT)
                .element(3)
                .extracting(Example::caption)
                .isEqualTo(PROMPTS.get(0));
        TrainingSet set = new TrainingSet(
                examples,
                new TrainingSet.Encoding(model, 64, 4, 512, Placement.FLOAT32_CPU),
                ExampleCache.in(whole.resolve("training-cache")));
        List<Integer> all = new ArrayList<>();
        set.fill(List.of(), (done, missing) -> all.add(missing));
        assertThat(all).hasSize(COUNT).containsOnly(COUNT); // latents alone
        Tensors.run(() -> assertThat(set.inputs(4).image().shape()).containsExactly(16, 64));
    }

    private void assertRefused(PaintedSet.Order order, String sentence) {
        assertThatThrownBy(() -> PaintedSet.paint(order, NONE))
                .isInstanceOf(RuntimeException.class)
                .hasMessage(sentence);
    }

    @Test
    void anotherSetsFolderIsRefused() throws IOException {
        String set = "the set in " + whole + " was painted ";
        PaintedSet.Shard all = PaintedSet.Shard.WHOLE;
        Path tiny = Golden.tinyFlux();
        assertRefused(
                new PaintedSet.Order(tiny, prompts, COUNT, whole, 8, all, painting(2)),
                set + "with seed 7, expected the same instead of 8");
        assertRefused(
                new PaintedSet.Order(tiny, prompts, COUNT, whole, 7, all, painting(3)),
                set + "with steps 2, expected the same instead of 3");
        assertRefused(
                new PaintedSet.Order(
                        tiny,
                        prompts,
                        COUNT,
                        whole,
                        7,
                        all,
                        new PaintedSet.Painting(64, 2, 3.5, Placement.BFLOAT16_CPU, false, false)),
                set + "with precision float32, expected the same instead of bfloat16");
        Path more = Files.writeString(folder.resolve("more.txt"), String.join("\n", PROMPTS) + "\na tree");
        assertRefused(new PaintedSet.Order(tiny, more, COUNT, whole, 7, all, painting(2)), set + "from other prompts");
        Path other = folder.resolve("model");
        try (Stream<Path> parts = Files.walk(tiny)) {
            for (Path file : parts.toList()) {
                Files.copy(file, other.resolve(tiny.relativize(file).toString()));
            }
        }
        Files.writeString(other.resolve("scheduler/more.json"), "{}");
        assertRefused(
                new PaintedSet.Order(other, prompts, COUNT, whole, 7, all, painting(2)), set + "by another model");
        Path full = made("full");
        Files.writeString(full.resolve("metadata.jsonl"), "");
        assertRefused(
                order(full),
                "folder " + full + " has files but no dataset.json, expected an empty folder, or one of this set");
        Files.writeString(full.resolve("dataset.json"), "{");
        assertRefused(order(full), full.resolve("dataset.json") + " is no JSON, expected that of this set");
    }

    @Test
    void promptsThatAreNoneAreRefused() throws IOException {
        Path file = Files.writeString(folder.resolve("empty.txt"), "\n \n");
        PaintedSet.Order order = new PaintedSet.Order(
                Golden.tinyFlux(), file, COUNT, made("set"), 7, PaintedSet.Shard.WHOLE, painting(2));
        assertRefused(order, "prompts " + file + " has no prompt, expected one on each line");
        Files.write(file, new byte[] {(byte) 0xFF, '\n'});
        assertRefused(order, "cannot read prompts " + file + ": it is not UTF-8");
        Files.delete(file);
        assertRefused(order, "cannot read prompts " + file + ": there is no such file or folder");
    }

    @ParameterizedTest
    @CsvSource({"0,1,1/1", "2,1,1/1", "1,0,1/1", "5,4,1/4 to 4/4"})
    void aShardThatThereIsNotIsRefused(int number, int of, String expected) {
        assertThatThrownBy(() -> new PaintedSet.Shard(number, of))
                .hasMessageStartingWith("shard is " + number + "/" + of + ", expected " + expected);
    }
}
