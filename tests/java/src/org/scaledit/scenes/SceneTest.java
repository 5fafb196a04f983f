package org.scaledit.scenes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.awt.image.BufferedImage;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.TreeSet;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import javax.imageio.ImageIO;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.image.ImageException;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngText;
import org.scaledit.scenes.Scene.Item;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.testing.Drawings;

class SceneTest {
    private static final Vocabulary VOCABULARY = Vocabulary.standard();
    private static final int SCENES = 2000;

    @TempDir
    static Path folder;

    private static Sprites sprites;
    private static SceneRenderer renderer;
    private static List<Scene> scenes;

    @BeforeAll
    static void compose() throws IOException {
        Drawings.write(folder);
        sprites = Sprites.open(folder);
        renderer = new SceneRenderer(sprites);
        scenes = composed(false, SCENES);
    }

    private static List<Scene> composed(boolean heldOut, int count) {
        Composer composer = new Composer(VOCABULARY, sprites, heldOut);
        return LongStream.range(0, count).mapToObj(composer::compose).toList();
    }

    private static Scene of(Style style, Background background, Item... items) {
        return new Scene(7, style, background, Optional.empty(), List.of(items), "", "");
    }

    @Test
    void aProbeAsksForOneThing() {
        for (boolean heldOut : new boolean[] {false, true}) {
            Composer composer = new Composer(VOCABULARY, sprites, heldOut);
            for (int seed = 0; seed < 100; seed++) {
                Scene one = composer.compose(Probe.ONE, seed);
                Scene two = composer.compose(Probe.TWO, seed);
                Scene count = composer.compose(Probe.COUNT, seed);
                Scene colour = composer.compose(Probe.COLOUR, seed);
                Scene position = composer.compose(Probe.POSITION, seed);
                assertThat(one.items()).hasSize(1);
                assertThat(count.items()).hasSizeBetween(2, 4);
                assertThat(count.items())
                        .extracting(Item::object)
                        .containsOnly(count.items().get(0).object());
                assertThat(two.relation()).isEmpty();
                assertThat(Content.isPairHeldOut(
                                two.items().get(0).object(), two.items().get(1).object()))
                        .isEqualTo(heldOut);
                assertThat(colour.items()).hasSize(1);
                Item coloured = colour.items().get(0);
                assertThat(colour.caption())
                        .contains(coloured.colour().orElseThrow().word() + " ");
                assertThat(coloured.colour().get().isLike(sprites.mainHue(coloured.object(), colour.style())))
                        .isFalse();
                Content.Thing thing = new Content.Thing(coloured.object(), coloured.colour(), Material.NONE);
                assertThat(new Content(Optional.empty(), List.of(thing)).isHeldOut())
                        .isEqualTo(heldOut);
                List<Item> placed = position.items();
                assertThat(placed).hasSize(2);
                assertThat(position.relation()
                                .orElseThrow()
                                .holds(placed.get(0).box(), placed.get(1).box()))
                        .isTrue();
                for (Scene scene : List.of(one, two, count, position)) {
                    assertThat(scene.items()).allMatch(item -> item.colour().isEmpty());
                    assertThat(scene.items()).extracting(Item::material).containsOnly(Material.NONE);
                }
                assertThat(composer.compose(Probe.TWO, seed)).isEqualTo(two);
            }
        }
    }

    @Test
    void aMixSaysHowOftenThereIsWhat() {
        Composer composer = new Composer(VOCABULARY, sprites, false, new Mix(0.1, 0.2, 0.6, 0.1, 0.75));
        List<Scene> mixed =
                LongStream.range(0, SCENES).mapToObj(composer::compose).toList();
        assertThat(mixed.stream().filter(scene -> scene.items().size() == 1).count() / (double) SCENES)
                .isCloseTo(0.1, within(0.03));
        assertThat(mixed.stream().filter(scene -> scene.relation().isPresent()).count() / (double) SCENES)
                .isCloseTo(0.2, within(0.03));
        assertThat(mixed.stream()
                                .filter(scene -> scene.items().size() > 1
                                        && scene.items().stream()
                                                        .map(Item::object)
                                                        .distinct()
                                                        .count()
                                                == 1)
                                .count()
                        / (double) SCENES)
                .isCloseTo(0.6, within(0.04));
        // Of those that are not plain, an object or several of it have none of their own in 0.6 of the scenes.
        assertThat(mixed.stream()
                                .filter(scene -> scene.relation().isEmpty()
                                        && scene.items().get(0).material() != Material.NONE)
                                .count()
                        / (0.8 * SCENES))
                .isCloseTo(0.25 * 0.6, within(0.03));
        assertThat(mixed.get(3)).isEqualTo(composer.compose(3));
    }

    /** A tenth of the colours of objects is held out: whoever composes all has them as often. */
    @Test
    void aComposerOfAllHasCombinationsThatAreHeldOut() {
        Composer composer = Composer.ofAll(VOCABULARY, sprites);
        long heldOut = LongStream.range(0, SCENES)
                .mapToObj(seed -> composer.compose(Probe.COLOUR, seed).items().get(0))
                .map(item -> new Content.Thing(item.object(), item.colour(), Material.NONE))
                .filter(thing -> new Content(Optional.empty(), List.of(thing)).isHeldOut())
                .count();
        assertThat(heldOut).isBetween(SCENES / 20L, SCENES * 3 / 20L);
    }

    @Test
    void aColourIsLikeTheHuesAroundIt() {
        assertThat(Colour.RED.isLike(345)).isTrue();
        assertThat(Colour.RED.isLike(25)).isFalse();
        for (Colour colour : Colour.values()) {
            long like = Arrays.stream(Colour.values())
                    .filter(other -> other.isLike(colour.hue()))
                    .count();
            assertThat(like).as("%s", colour).isEqualTo(1);
        }
    }

    @Test
    void aRelationIsSeenInBoxesThatAreNotExact() {
        Box left = new Box(0, 0.4, 0.2, 0.6);
        Box near = new Box(0.12, 0.45, 0.32, 0.65); // 0.12 apart: less than 0.4 of both widths
        assertThat(Relation.LEFT_OF.holds(left, near)).isFalse();
        assertThat(Relation.LEFT_OF.isSeen(left, near)).isTrue();
        assertThat(Relation.NEXT_TO.isSeen(near, left)).isTrue();
        assertThat(Relation.RIGHT_OF.isSeen(left, near)).isFalse();
        assertThat(Relation.LEFT_OF.isSeen(left, left)).isFalse();
        Box above = new Box(0, 0.25, 0.25, 0.5);
        Box below = new Box(0.125, 0.375, 0.375, 0.625); // on the diagonal
        assertThat(Relation.LEFT_OF.isSeen(above, below)).isTrue();
        assertThat(Relation.ABOVE.isSeen(above, below)).isTrue();
        assertThat(Relation.NEXT_TO.isSeen(above, below)).isFalse();
    }

    @Test
    void aSeedGivesTheSameSceneAndTheSameBytesFromSpritesDrawnAndKept() throws IOException {
        Path other = Files.createDirectory(folder.resolve("other"));
        Drawings.write(other);
        byte[] first = null;
        for (int run = 0; run < 2; run++) {
            Sprites opened = Sprites.open(other);
            Scene scene = new Composer(VOCABULARY, opened, false).compose(5);
            assertThat(scene).isEqualTo(scenes.get(5));
            byte[] picture = new SceneRenderer(opened).render(scene, 200);
            assertThat(picture).isEqualTo(first == null ? renderer.render(scene, 200) : first);
            assertThat(renderer.render(scene, 200, 50, 30))
                    .isEqualTo(Arrays.copyOfRange(picture, 3 * 200 * 50, 3 * 200 * 80));
            first = picture;
        }
        try (var kept = Files.walk(other.resolve("atlas"))) {
            assertThat(kept.filter(file -> file.toString().endsWith(".png"))).isNotEmpty();
        }
    }

    @Test
    void aRectangleIsWhatTheWholePictureHasThere() {
        SplittableRandom random = new SplittableRandom(3);
        for (Scene scene : scenes.subList(0, 120)) {
            int size = random.nextInt(64, 300);
            byte[] picture = renderer.render(scene, size);
            for (int i = 0; i < 6; i++) {
                int firstRow = random.nextInt(size + 1);
                int rows = random.nextInt(size - firstRow + 1);
                int firstColumn = random.nextInt(size + 1);
                int columns = random.nextInt(size - firstColumn + 1);
                byte[] expected = new byte[3 * rows * columns];
                for (int row = 0; row < rows; row++) {
                    int from = 3 * ((firstRow + row) * size + firstColumn);
                    System.arraycopy(picture, from, expected, 3 * row * columns, 3 * columns);
                }
                assertThat(renderer.render(scene, size, firstRow, rows, firstColumn, columns))
                        .as(
                                "rows %d + %d, columns %d + %d of %d of %s",
                                firstRow, rows, firstColumn, columns, size, scene)
                        .isEqualTo(expected);
            }
        }
    }

    /** It is painted band by band. */
    @Test
    void aLargePictureIsWhatItsRowsAre() {
        Scene scene = scenes.get(4);
        byte[] picture = renderer.render(scene, 2048);
        assertThat(renderer.render(scene, 2048, 600, 200))
                .isEqualTo(Arrays.copyOfRange(picture, 3 * 2048 * 600, 3 * 2048 * 800));
    }

    @Test
    void aTensorHasTheSameNumbers() {
        Torch.load();
        Tensors.run(() -> {
            for (Scene scene : scenes.subList(0, 20)) {
                Tensor tensor = renderer.tensor(scene, 150, 20, 70, 30, 100);
                Tensor expected = Pixels.toTensor(renderer.render(scene, 150, 20, 70, 30, 100), 100);
                assertThat(tensor.shape()).containsExactly(3, 70, 100);
                assertThat(Tensors.floats(tensor)).isEqualTo(Tensors.floats(expected));
            }
        });
    }

    @Test
    void noSpriteIsDrawnForARectangleThatItDoesNotReach() throws IOException {
        Path other = Files.createDirectory(folder.resolve("undrawn"));
        Drawings.write(other);
        SceneRenderer fresh = new SceneRenderer(Sprites.open(other));
        SceneObject object = VOCABULARY.objects().get(4);
        Item item = new Item(
                object, Optional.empty(), Material.FELT, false, 0.1, 0.2, 0.2, 0.3, new Box(0.05, 0.05, 0.35, 0.35));
        Scene scene = of(Style.CARTOON, Background.MEADOW, item);
        fresh.render(scene, 1024, 500, 128, 0, 128);
        fresh.render(scene, 1024, 0, 128, 500, 128);
        assertThat(other.resolve("atlas")).doesNotExist();
        fresh.render(scene, 1024, 200, 128, 200, 128);
        assertThat(other.resolve("atlas")).exists();
    }

    @Test
    void scenesOfOtherSeedsDiffer() {
        assertThat(Set.copyOf(scenes)).hasSize(SCENES);
    }

    /** A shadow only darkens: where the colour is another one, there is an object. */
    @Test
    void whatIsSeenOfAnObjectIsInItsBoxAndReachesAllFourSides() {
        int size = 256;
        int seen = 0;
        for (Scene scene : scenes.subList(0, 400)) {
            Item item = scene.items().get(0);
            if (scene.items().size() > 1 || item.material() != Material.NONE) {
                continue;
            }
            byte[] empty = renderer.render(of(scene.style(), Background.PLAIN), size);
            byte[] picture = renderer.render(of(scene.style(), Background.PLAIN, item), size);
            Box found = differing(empty, picture, size);
            Box box = item.box();
            double pixels = 2.0 / size;
            assertThat(found.left()).as(item.toString()).isCloseTo(box.left(), within(pixels));
            assertThat(found.top()).as(item.toString()).isCloseTo(box.top(), within(pixels));
            assertThat(found.right()).as(item.toString()).isCloseTo(box.right(), within(pixels));
            assertThat(found.bottom()).as(item.toString()).isCloseTo(box.bottom(), within(pixels));
            seen++;
        }
        assertThat(seen).isGreaterThan(30);
    }

    private static Box differing(byte[] empty, byte[] picture, int size) {
        int left = size;
        int top = size;
        int right = 0;
        int bottom = 0;
        for (int y = 0; y < size; y++) {
            for (int x = 0; x < size; x++) {
                int at = 3 * (y * size + x);
                // Red, green and blue by their sum, before and after.
                double before = (empty[at] & 255) + (empty[at + 1] & 255) + (empty[at + 2] & 255);
                double after = (picture[at] & 255) + (picture[at + 1] & 255) + (picture[at + 2] & 255);
                boolean other = false;
                for (int c = 0; c < 3; c++) {
                    other |= Math.abs((empty[at + c] & 255) / before - (picture[at + c] & 255) / after) > 0.06;
                }
                if (other) {
                    left = Math.min(left, x);
                    top = Math.min(top, y);
                    right = Math.max(right, x + 1);
                    bottom = Math.max(bottom, y + 1);
                }
            }
        }
        return new Box(left / (double) size, top / (double) size, right / (double) size, bottom / (double) size);
    }

    /** They fill its box; of two objects in one place the later one is seen; parts are those of the object itself. */
    @Test
    void sightingsSayWhichObjectACellShowsAndWhichPart() {
        int cells = 64;
        int seen = 0;
        for (Scene scene : scenes.subList(0, 100)) {
            if (scene.items().size() > 1) {
                continue;
            }
            Item item = scene.items().get(0);
            int number = VOCABULARY.objects().indexOf(item.object());
            Sightings sightings = renderer.sightings(scene, VOCABULARY, cells);
            double left = 1;
            double bottom = 0;
            for (int cell = 0; cell < cells * cells; cell++) {
                if (sightings.objects()[cell] == number) {
                    left = Math.min(left, (double) (cell % cells) / cells);
                    bottom = Math.max(bottom, (cell / cells + 1.0) / cells);
                    assertThat(sightings.parts()[cell]).isBetween(0L, Sightings.PARTS - 1L);
                } else {
                    assertThat(sightings.objects()[cell]).isEqualTo(Sightings.background(VOCABULARY));
                    assertThat(sightings.parts()[cell]).isEqualTo(Sightings.NO_PART);
                }
            }
            assertThat(left).isCloseTo(item.box().left(), within(2.5 / cells));
            assertThat(bottom).isCloseTo(item.box().bottom(), within(2.5 / cells));
            seen++;
        }
        assertThat(seen).isGreaterThan(20);

        Item item = upright(scenes.get(0).items().get(0).object(), false);
        Item other = upright(scenes.get(1).items().get(0).object(), true);
        Sightings both = renderer.sightings(of(Style.CARTOON, Background.PLAIN, other, item), VOCABULARY, cells);
        Sightings one = renderer.sightings(of(Style.CARTOON, Background.PLAIN, item), VOCABULARY, cells);
        Sightings mirrored = renderer.sightings(
                of(Style.CARTOON, Background.PLAIN, upright(item.object(), true)), VOCABULARY, cells);
        for (int cell = 0; cell < cells * cells; cell++) {
            int across = cell / cells * cells + cells - 1 - cell % cells;
            assertThat(mirrored.parts()[across]).isEqualTo(one.parts()[cell]);
            if (one.parts()[cell] != Sightings.NO_PART) {
                assertThat(both.objects()[cell]).isEqualTo(one.objects()[cell]);
            }
        }
        assertThat(one.parts()[31 * cells + 31]).isEqualTo(5); // left and above of the middle
        assertThat(one.parts()[32 * cells + 32]).isEqualTo(10);
    }

    /** In the middle, across three quarters of the picture. */
    private static Item upright(SceneObject object, boolean mirrored) {
        return new Item(
                object,
                Optional.empty(),
                Material.NONE,
                mirrored,
                0,
                0.5,
                0.5,
                0.75,
                new Box(0.125, 0.125, 0.875, 0.875));
    }

    @Test
    void objectsAreWhereTheSceneSays() {
        for (Scene scene : scenes) {
            List<Item> items = scene.items();
            for (int i = 0; i < items.size(); i++) {
                Box box = items.get(i).box();
                assertThat(List.of(box.left(), box.top(), 1 - box.right(), 1 - box.bottom()))
                        .allMatch(margin -> margin > 0.019);
                assertThat(Math.max(box.width(), box.height())).isBetween(0.24, 0.7); // 0.25 … 0.6, turned by 10°
                assertThat(Math.abs(items.get(i).angle())).isLessThanOrEqualTo(Math.toRadians(10));
                for (int j = 0; j < i; j++) {
                    assertThat(box.overlap(items.get(j).box())).isLessThan(0.15);
                }
            }
            scene.relation()
                    .ifPresent(relation -> assertThat(relation.holds(
                                    items.get(0).box(), items.get(1).box()))
                            .isTrue());
        }
        assertThat(Relation.LEFT_OF.holds(new Box(0.1, 0.4, 0.3, 0.6), new Box(0.5, 0.4, 0.7, 0.6)))
                .isTrue();
        assertThat(Relation.RIGHT_OF.holds(new Box(0.1, 0.4, 0.3, 0.6), new Box(0.5, 0.4, 0.7, 0.6)))
                .isFalse();
        assertThat(Relation.ABOVE.holds(new Box(0.4, 0.1, 0.6, 0.3), new Box(0.4, 0.5, 0.6, 0.7)))
                .isTrue();
        assertThat(new Box(0, 0, 0.4, 0.2).overlap(new Box(0.3, 0.1, 0.5, 0.3))).isEqualTo(0.25, within(1e-9));
    }

    @Test
    void captionsSayAllAndTextsSomeOfIt() {
        List<String> counts = List.of("", "", "two", "three", "four");
        int withoutAll = 0;
        for (Scene scene : scenes) {
            boolean same = scene.relation().isEmpty()
                    && scene.items().size() > 1
                    && scene.items().stream().map(Item::object).distinct().count() == 1;
            for (Item item : scene.items()) {
                assertThat(item.object().names().stream().map(name -> same ? name.several() : name.one()))
                        .anyMatch(name -> scene.caption().contains(name));
                assertThat(scene.caption()).contains(item.material().word());
                item.colour().ifPresent(colour -> assertThat(scene.caption()).contains(colour.word()));
            }
            if (same) {
                assertThat(scene.caption()).contains(counts.get(scene.items().size()));
            }
            assertThat(scene.background().places())
                    .anyMatch(place -> scene.caption().contains(place));
            assertThat(scene.caption()).contains(scene.style().word()).doesNotContain("{", "[", "  ");
            assertThat(scene.text())
                    .doesNotContain("{", "[", "  ")
                    .doesNotStartWith(" ")
                    .doesNotEndWith(" ");
            assertThat(scene.text().length())
                    .isLessThanOrEqualTo(scene.caption().length());
            withoutAll += scene.text().isEmpty() ? 1 : 0;
        }
        assertThat(share(withoutAll)).isEqualTo(0.1, within(0.02));
        assertThat(scenes.stream().map(Scene::caption))
                .noneMatch(caption -> caption.matches("(?i).*\\ba (?:[aeio]|hour|umb|eel).*"))
                .noneMatch(caption -> caption.matches("(?i).*\\ban (?:[bcdfgj-np-tv-z]|un|UFO).*"));
    }

    @Test
    void twoThousandScenesAreAsTheyAreMeantToBe() {
        assertThat(share(scene -> scene.items().size() == 1)).isEqualTo(0.35, within(0.03));
        assertThat(share(scene -> scene.relation().isPresent())).isEqualTo(0.35, within(0.03));
        assertThat(share(scene -> scene.relation().isEmpty()
                        && scene.items().stream().map(Item::object).distinct().count() > 2))
                .isEqualTo(0.1, within(0.02));
        assertThat(scenes.stream().mapToInt(scene -> scene.items().size()).max())
                .hasValue(4);
        assertThat(share(scene -> scene.style() == Style.CARTOON)).isEqualTo(0.5, within(0.03));
        for (Background background : Background.values()) {
            assertThat(share(scene -> scene.background() == background)).isEqualTo(1 / 8.0, within(0.025));
        }
        List<Item> first = scenes.stream().map(scene -> scene.items().get(0)).toList();
        for (Material material : Material.values()) {
            double share = material == Material.NONE ? 0.4 : 0.12;
            assertThat(share((int) first.stream()
                            .filter(item -> item.material() == material)
                            .count()))
                    .isEqualTo(share, within(0.035));
        }
        assertThat(first.stream().filter(item -> item.colour().isPresent()))
                .allMatch(item -> item.object().coloured())
                .hasSizeGreaterThan(120);
        assertThat(first.stream().map(Item::object).distinct()).hasSizeGreaterThan(180);
        assertThat(share(scene -> scene.items().get(0).mirrored())).isEqualTo(0.5, within(0.04));
    }

    private static double share(Predicate<Scene> condition) {
        return share((int) scenes.stream().filter(condition).count());
    }

    private static double share(int count) {
        return count / (double) SCENES;
    }

    @Test
    void combinationsThatAreHeldOutOccurInScenesForEvaluationAlone() {
        assertThat(scenes).noneMatch(SceneTest::isHeldOut);
        assertThat(composed(true, 500)).allMatch(SceneTest::isHeldOut);
        List<SceneObject> objects = VOCABULARY.objects();
        long pairs = 0;
        for (int i = 0; i < objects.size(); i++) {
            for (int j = 0; j < i; j++) {
                boolean heldOut = Content.isPairHeldOut(objects.get(i), objects.get(j));
                assertThat(Content.isPairHeldOut(objects.get(j), objects.get(i)))
                        .isEqualTo(heldOut);
                pairs += heldOut ? 1 : 0;
            }
        }
        assertThat(pairs / (188 * 187 / 2.0)).isEqualTo(0.1, within(0.01));
        Set<String> colours = new TreeSet<>();
        for (SceneObject object : objects) {
            for (Colour colour : Colour.values()) {
                Content content = new Content(
                        Optional.empty(), List.of(new Content.Thing(object, Optional.of(colour), Material.NONE)));
                if (object.coloured() && content.isHeldOut()) {
                    colours.add(colour + " " + object.icon());
                }
            }
        }
        assertThat(colours.size() / (32 * 8.0)).isEqualTo(0.1, within(0.06));
    }

    private static boolean isHeldOut(Scene scene) {
        List<Content.Thing> things = scene.items().stream()
                .map(item -> new Content.Thing(item.object(), item.colour(), item.material()))
                .distinct()
                .toList();
        return new Content(scene.relation(), things).isHeldOut();
    }

    /** A picture of 2,048 pixels that is shrunk to 256 is the one of 256. */
    @ParameterizedTest
    @EnumSource(Background.class)
    void aSceneIsTheSameAtEverySize(Background background) {
        double sum = 0;
        List<Scene> some = scenes.stream()
                .filter(scene -> scene.background() == background)
                .limit(3)
                .toList();
        for (Scene scene : some) {
            sum += difference(renderer.render(scene, 2048), 2048, renderer.render(scene, 256), 256);
        }
        System.out.printf("2048 shrunk to 256 against 256, %s: %.2f of 255%n", background.word(), sum / some.size());
        assertThat(sum / some.size()).isBetween(0.1, 4.0);
    }

    private static double difference(byte[] large, int largeSize, byte[] small, int size) {
        int factor = largeSize / size;
        double sum = 0;
        for (int y = 0; y < size; y++) {
            for (int x = 0; x < size; x++) {
                for (int c = 0; c < 3; c++) {
                    int mean = 0;
                    for (int i = 0; i < factor * factor; i++) {
                        mean += large[3 * ((y * factor + i / factor) * largeSize + x * factor + i % factor) + c] & 255;
                    }
                    sum += Math.abs(mean / (double) (factor * factor) - (small[3 * (y * size + x) + c] & 255));
                }
            }
        }
        return sum / small.length;
    }

    /** Eight times eight pixels of one colour are what an enlargement has. */
    @ParameterizedTest
    @EnumSource(Material.class)
    void materialsHaveDetailToTheLastPixel(Material material) {
        SceneObject object = VOCABULARY.objects().get(4);
        Item item = new Item(object, Optional.empty(), material, false, 0, 0.5, 0.5, 0.8, new Box(0.1, 0.1, 0.9, 0.9));
        int size = 2048;
        byte[] picture = renderer.render(of(Style.CARTOON, Background.PLAIN, item), size);
        int blocks = 0;
        int flat = 0;
        for (int y = 880; y < 1200; y += 8) {
            for (int x = 720; x < 1300; x += 8) {
                int least = 255;
                int most = 0;
                for (int i = 0; i < 64; i++) {
                    int green = picture[3 * ((y + i / 8) * size + x + i % 8) + 1] & 255;
                    least = Math.min(least, green);
                    most = Math.max(most, green);
                }
                blocks++;
                flat += most - least <= 1 ? 1 : 0;
            }
        }
        System.out.printf("flat blocks, %s: %.3f%n", material, flat / (double) blocks);
        if (material != Material.NONE) {
            assertThat(flat / (double) blocks).isLessThan(0.3);
        }
    }

    @ParameterizedTest
    @EnumSource(Colour.class)
    void anObjectGetsItsColour(Colour colour) {
        for (SceneObject object : VOCABULARY.objects().subList(0, 12)) {
            Item item =
                    new Item(object, Optional.of(colour), Material.NONE, false, 0, 0.5, 0.5, 0.9, new Box(0, 0, 1, 1));
            byte[] picture = renderer.render(of(Style.THREE_D, Background.PLAIN, item), 128);
            byte[] empty = renderer.render(of(Style.THREE_D, Background.PLAIN), 128);
            List<float[]> hues = new ArrayList<>();
            for (int at = 0; at < picture.length; at += 3) {
                float[] now = hsb(picture, at);
                if (now[1] > 0.5
                        && Math.abs((picture[at] & 255) - (empty[at] & 255))
                                        + Math.abs((picture[at + 1] & 255) - (empty[at + 1] & 255))
                                > 30) {
                    hues.add(now);
                }
            }
            hues.sort(Comparator.comparing(hue -> hue[0]));
            float[] expected = {0, 27, 52, 122, 178, 216, 275, 336};
            double difference = Math.abs(hues.get(hues.size() / 2)[0] * 360 - expected[colour.ordinal()]);
            assertThat(Math.min(difference, 360 - difference)).as(object.icon()).isLessThan(12);
        }
    }

    private static float[] hsb(byte[] picture, int at) {
        return java.awt.Color.RGBtoHSB(picture[at] & 255, picture[at + 1] & 255, picture[at + 2] & 255, null);
    }

    @Test
    void theVocabularyIsWhole() throws IOException {
        assertThat(VOCABULARY.objects()).hasSize(188);
        assertThat(VOCABULARY.objects().stream().filter(SceneObject::coloured)).hasSize(32);
        List<String> names = VOCABULARY.objects().stream()
                .flatMap(object -> object.names().stream())
                .map(SceneObject.Name::one)
                .collect(Collectors.toList());
        assertThat(names).doesNotHaveDuplicates().allMatch(name -> !name.isBlank());
        assertThatThrownBy(() -> read("a\ta\tas\n")).hasMessage("the vocabulary has 1 objects, expected at least 4");
        assertThatThrownBy(() -> read("a\ta\n"))
                .hasMessage("the vocabulary's line \"a\ta\" has 2 fields, expected icon, name and plural");
    }

    private static Vocabulary read(String lines) throws IOException {
        return Vocabulary.read(new ByteArrayInputStream(lines.getBytes(StandardCharsets.UTF_8)));
    }

    @Test
    void aFolderIsThatOfHuggingFace() throws IOException {
        Path out = Files.createDirectory(folder.resolve("scenes"));
        SceneFolder.write(out, new Composer(VOCABULARY, sprites, false), renderer, new SceneFolder.Order(40, 12, 96));
        List<String> lines = Files.readAllLines(out.resolve("metadata.jsonl"));
        assertThat(lines).hasSize(12);
        for (int i = 0; i < lines.size(); i++) {
            JsonNode json = new ObjectMapper().readTree(lines.get(i));
            Scene scene = scenes.get(40 + i);
            assertThat(json.get("file_name").asText()).isEqualTo(String.format(Locale.ROOT, "%08d.png", i));
            assertThat(json.get("text").asText()).isEqualTo(scene.text().isEmpty() ? scene.caption() : scene.text());
            assertThat(json.get("caption").asText()).isEqualTo(scene.caption());
            assertThat(json.get("seed").asLong()).isEqualTo(40 + i);
            assertThat(json.get("style").asText()).isEqualTo(scene.style().word());
            assertThat(json.get("background").asText())
                    .isEqualTo(scene.background().word());
            assertThat(json.get("relation").asText(""))
                    .isEqualTo(scene.relation().map(Relation::words).orElse(""));
            int counted = 0;
            for (JsonNode count : json.get("counts")) {
                counted += count.get("count").asInt();
            }
            assertThat(counted).isEqualTo(scene.items().size());
            for (int j = 0; j < scene.items().size(); j++) {
                JsonNode object = json.get("objects").get(j);
                Item item = scene.items().get(j);
                assertThat(object.get("object").asText())
                        .isEqualTo(item.object().name());
                assertThat(object.get("colour").asText(""))
                        .isEqualTo(item.colour().map(Colour::word).orElse(""));
                assertThat(object.get("material").asText(""))
                        .isEqualTo(item.material().word());
                assertThat(object.get("box").get(0).asDouble())
                        .isEqualTo(item.box().left(), within(1e-5));
                assertThat(object.get("box").get(3).asDouble())
                        .isEqualTo(item.box().bottom(), within(1e-5));
            }
            Path file = out.resolve(json.get("file_name").asText());
            assertThat(PngText.read(file, "Description")).isEqualTo(scene.caption());
            BufferedImage read = ImageIO.read(file.toFile());
            byte[] picture = renderer.render(scene, 96);
            assertThat(read.getRGB(50, 60) & 0xFFFFFF)
                    .isEqualTo((picture[3 * (60 * 96 + 50)] & 255) << 16
                            | (picture[3 * (60 * 96 + 50) + 1] & 255) << 8
                            | picture[3 * (60 * 96 + 50) + 2] & 255);
        }
    }

    @Test
    void aFolderHasPicturesOfTheSameScenesAlone() throws IOException {
        Path out = Files.createDirectory(folder.resolve("same"));
        writeTo(out, false, new SceneFolder.Order(40, 2, 64));
        writeTo(out, false, new SceneFolder.Order(40, 2, 64)); // once more
        writeTo(out, false, new SceneFolder.Order(40, 3, 64)); // it grows
        assertThat(Files.readAllLines(out.resolve("metadata.jsonl"))).hasSize(3);

        String composed = "the scenes in " + out + " were composed with ";
        refused(out, false, new SceneFolder.Order(41, 3, 64), composed + "seed 40, expected the same instead of 41");
        refused(out, false, new SceneFolder.Order(40, 3, 96), composed + "size 64, expected the same instead of 96");
        refused(
                out,
                true,
                new SceneFolder.Order(40, 3, 64),
                composed + "held-out false, expected the same instead of true");
        refused(
                out,
                false,
                new SceneFolder.Order(40, 2, 64),
                "folder " + out + " has 00000002.png beside the 2 scenes, expected none but theirs");
        assertThat(Files.readAllLines(out.resolve("metadata.jsonl"))).hasSize(3);

        Path used = Files.createDirectory(folder.resolve("used"));
        Files.writeString(used.resolve("fox.txt"), "a fox");
        refused(
                used,
                false,
                new SceneFolder.Order(40, 1, 64),
                "folder " + used + " has files but no scenes.json, expected an empty folder, or one of these scenes");
        Path noJson = Files.createDirectory(folder.resolve("no-json"));
        Path broken = Files.writeString(noJson.resolve("scenes.json"), "{");
        refused(noJson, false, new SceneFolder.Order(40, 1, 64), broken + " is no JSON, expected that of these scenes");
    }

    private static void writeTo(Path out, boolean heldOut, SceneFolder.Order order) {
        SceneFolder.write(out, new Composer(VOCABULARY, sprites, heldOut), renderer, order);
    }

    private static void refused(Path out, boolean heldOut, SceneFolder.Order order, String sentence) {
        assertThatThrownBy(() -> writeTo(out, heldOut, order))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(sentence);
    }

    @Test
    void anInterruptLeavesWholePicturesAlone() throws Exception {
        Path out = Files.createDirectory(folder.resolve("cancelled"));
        CompletableFuture<Throwable> outcome = new CompletableFuture<>();
        Thread worker = new Thread(() -> {
            try {
                SceneFolder.write(
                        out, new Composer(VOCABULARY, sprites, false), renderer, new SceneFolder.Order(0, 500, 512));
                outcome.complete(new AssertionError("it ran to its end"));
            } catch (Throwable e) {
                outcome.complete(e);
            }
        });
        worker.start();
        while (!Files.exists(out.resolve("00000001.png"))) {
            Thread.sleep(1);
        }
        worker.interrupt();
        assertThat(outcome.get()).isInstanceOf(CancellationException.class).hasMessage("the scenes were cancelled");
        try (var files = Files.list(out).filter(file -> !file.endsWith("scenes.json"))) {
            for (Path file : files.toList()) {
                assertThat(file.getFileName().toString()).matches("\\d{8}\\.png");
                assertThat(ImageIO.read(file.toFile()).getWidth()).isEqualTo(512);
            }
        }
    }

    @Test
    void whatCannotBeIsOneSentence() throws IOException {
        assertThatThrownBy(() -> renderer.render(scenes.get(0), 63))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("size is 63 pixels, expected 64 to 8192");
        assertThatThrownBy(() -> renderer.render(scenes.get(0), 64, 60, 5, 0, 64))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("rows are 60 to 65, expected some of 64");
        assertThatThrownBy(() -> renderer.render(scenes.get(0), 64, 0, 64, -1, 3))
                .hasMessage("columns are -1 to 2, expected some of 64");
        assertThatThrownBy(() -> new SceneFolder.Order(0, 1, 8193))
                .hasMessage("size is 8193 pixels, expected 64 to 8192");
        assertThatThrownBy(() -> new SceneFolder.Order(0, 0, 64)).hasMessage("count is 0, expected at least 1");
        assertThatThrownBy(() -> new SceneFolder.Order(Long.MAX_VALUE, 2, 64))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("seed is 9223372036854775807, expected at most 9223372036854775806 for 2 pictures");

        Path broken = Files.createDirectory(folder.resolve("broken"));
        assertThatThrownBy(() -> Sprites.open(broken))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "sprites " + broken + " have no noto.json, expected the SVG sets that tools/sprites fetches");
        Path noto = broken.resolve("noto.json");
        Files.writeString(broken.resolve("fluent-emoji.json"), "{}");
        Files.writeString(noto, "{\"icons\": {\"bat\": {\"body\": \"\"}, \"bear\": {\"body\": \"<g\"}}}");
        Sprites sparse = Sprites.open(broken);
        assertThatThrownBy(() -> sparse.outline(object("ant"), Style.CARTOON))
                .isInstanceOf(ImageException.class)
                .hasMessage(noto + " has no picture ant");
        assertThatThrownBy(() -> sparse.outline(object("bat"), Style.CARTOON))
                .hasMessage("picture bat of noto.json shows nothing");
        assertThatThrownBy(() -> sparse.outline(object("bear"), Style.CARTOON))
                .hasMessage("picture bear of " + noto + " is no SVG that can be drawn");
        Files.writeString(noto, "{");
        assertThatThrownBy(() -> Sprites.open(broken).outline(object("cat"), Style.CARTOON))
                .isInstanceOf(ImageException.class)
                .hasMessageStartingWith("cannot read " + noto + " as a set of SVG pictures: ");
        Path kept = broken.resolve("atlas/256/noto-cow.png");
        Files.createDirectories(kept.getParent());
        Files.writeString(kept, "no picture");
        assertThatThrownBy(() -> Sprites.open(broken).outline(object("cow"), Style.CARTOON))
                .hasMessage("sprite " + kept + " is no PNG of 256 × 256 pixels");
    }

    private static SceneObject object(String icon) {
        return VOCABULARY.objects().stream()
                .filter(object -> object.icon().equals(icon))
                .findFirst()
                .orElseThrow();
    }
}
