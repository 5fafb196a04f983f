package org.scaledit.scenes;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.function.Supplier;
import org.scaledit.scenes.Content.Thing;
import org.scaledit.scenes.Scene.Item;

/** Composes scenes: a seed gives the same one for ever. */
public final class Composer {
    private static final double COLOURED = 0.6; // of the objects that come in all colours
    private static final double WITHOUT_MATERIAL = 0.4; // unless a scene is plain
    private static final double SMALLEST = 0.25;
    private static final double[] LARGEST = {0.6, 0.45, 0.36, 0.32}; // of one object, of two …
    private static final double MOST_OVERLAP = 0.15;
    private static final double MARGIN = 0.02;
    private static final double MOST_TURNED = Math.toRadians(10);
    private static final int TRIES = 100_000;

    private final List<SceneObject> objects;
    private final Sprites sprites;
    private final Optional<Boolean> heldOut; // whether scenes are; empty if that does not matter
    private final Mix mix;

    /**
     * @param heldOut whether every scene has a combination that is kept for evaluation, or none has: a tenth of the pairs of
     *     objects, of a colour and an object, and of a relation and two objects
     */
    public Composer(Vocabulary vocabulary, Sprites sprites, boolean heldOut) {
        this(vocabulary, sprites, heldOut, Mix.USUAL);
    }

    /** @param mix how often there is what in a scene that no probe asks for */
    public Composer(Vocabulary vocabulary, Sprites sprites, boolean heldOut, Mix mix) {
        this(vocabulary, sprites, Optional.of(heldOut), mix);
    }

    private Composer(Vocabulary vocabulary, Sprites sprites, Optional<Boolean> heldOut, Mix mix) {
        this.objects = vocabulary.objects();
        this.sprites = sprites;
        this.heldOut = heldOut;
        this.mix = mix;
    }

    /** Of scenes with any combinations, held out or not, all as often as others. */
    public static Composer ofAll(Vocabulary vocabulary, Sprites sprites) {
        return new Composer(vocabulary, sprites, Optional.empty(), Mix.USUAL);
    }

    /** {@code true} or {@code false}, or {@code any}. */
    String heldOut() {
        return heldOut.map(String::valueOf).orElse("any");
    }

    public Scene compose(long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        Style style = drawn(Style.values(), random);
        Background background = drawn(Background.values(), random);
        Mix.Kind kind = mix.kind(random.nextDouble());
        boolean plain = mix.plain() > 0 && random.nextDouble() < mix.plain();
        int count = kind == Mix.Kind.SAME ? several(random) : 1;
        Content content = content(kind, plain, random);
        return scene(seed, style, background, content, count, random);
    }

    /**
     * A scene that asks one thing: its objects are as they were drawn; where it asks for a colour, that is not much like the object's
     * own. One object, or several of it, are no combination: they are the same whether scenes are held out or not.
     */
    public Scene compose(Probe probe, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        Style style = drawn(Style.values(), random);
        Background background = drawn(Background.values(), random);
        int count = probe == Probe.COUNT ? several(random) : 1;
        Content content = content(probe, style, random);
        return scene(seed, style, background, content, count, random);
    }

    private Scene scene(
            long seed, Style style, Background background, Content content, int count, SplittableRandom random) {
        List<Item> items = placed(content, count, style, random);
        Captions.Caption caption = Captions.of(content, count, style, background, random);
        return new Scene(seed, style, background, content.relation(), items, caption.whole(), caption.text());
    }

    private static int several(SplittableRandom random) {
        return 2 + random.nextInt(3);
    }

    private Content content(Mix.Kind kind, boolean plain, SplittableRandom random) {
        return wanted(kind.name(), () -> switch (kind) {
            case ONE, SAME -> new Content(Optional.empty(), things(1, plain, random));
            case TWO -> new Content(Optional.of(drawn(Relation.values(), random)), things(2, plain, random));
            case SEVERAL -> new Content(Optional.empty(), things(3 + random.nextInt(2), plain, random));
        });
    }

    private Content content(Probe probe, Style style, SplittableRandom random) {
        return switch (probe) {
            case ONE, COUNT -> new Content(Optional.empty(), asDrawn(1, random));
            case TWO -> wanted(probe.name(), () -> new Content(Optional.empty(), asDrawn(2, random)));
            case COLOUR ->
                wanted(probe.name(), () -> new Content(Optional.empty(), List.of(recoloured(style, random))));
            case POSITION ->
                wanted(
                        probe.name(),
                        () -> new Content(Optional.of(drawn(Relation.values(), random)), asDrawn(2, random)));
        };
    }

    /** The first content of this composer's kind. */
    private Content wanted(String kind, Supplier<Content> drawn) {
        for (int i = 0; i < TRIES; i++) {
            Content content = drawn.get();
            if (heldOut.isEmpty() || content.isHeldOut() == heldOut.get()) {
                return content;
            }
        }
        throw new IllegalStateException("the vocabulary has no scene of kind " + kind
                + (heldOut.orElseThrow()
                        ? " with a combination that is held out"
                        : " without combinations that are held out"));
    }

    private Thing recoloured(Style style, SplittableRandom random) {
        List<SceneObject> coloured =
                objects.stream().filter(SceneObject::coloured).toList();
        for (int i = 0; i < TRIES; i++) {
            SceneObject object = coloured.get(random.nextInt(coloured.size()));
            Colour colour = drawn(Colour.values(), random);
            if (!colour.isLike(sprites.mainHue(object, style))) {
                return new Thing(object, Optional.of(colour), Material.NONE);
            }
        }
        throw new IllegalStateException("the vocabulary has no object that a colour changes");
    }

    /** As they were drawn, all different. */
    private List<Thing> asDrawn(int count, SplittableRandom random) {
        return things(count, false, random).stream()
                .map(thing -> new Thing(thing.object(), Optional.empty(), Material.NONE))
                .toList();
    }

    /**
     * All different.
     *
     * @param plain whether none has another material than its own
     */
    private List<Thing> things(int count, boolean plain, SplittableRandom random) {
        List<SceneObject> left = new ArrayList<>(objects);
        List<Thing> things = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            SceneObject object = left.remove(random.nextInt(left.size()));
            Optional<Colour> colour = object.coloured() && random.nextDouble() < COLOURED
                    ? Optional.of(drawn(Colour.values(), random))
                    : Optional.empty();
            Material material = plain || random.nextDouble() < WITHOUT_MATERIAL
                    ? Material.NONE
                    : Material.values()[1 + random.nextInt(Material.values().length - 1)];
            things.add(new Thing(object, colour, material));
        }
        return things;
    }

    private static <T> T drawn(T[] values, SplittableRandom random) {
        return values[random.nextInt(values.length)];
    }

    private List<Item> placed(Content content, int count, Style style, SplittableRandom random) {
        List<Thing> things = new ArrayList<>();
        content.things().forEach(thing -> {
            for (int i = 0; i < count; i++) {
                things.add(thing);
            }
        });
        double largest = LARGEST[things.size() - 1];
        for (int i = 0; i < TRIES; i++) {
            double common = between(SMALLEST, largest, random);
            List<Item> items = new ArrayList<>();
            for (Thing thing : things) {
                double size = count > 1 ? common : between(SMALLEST, largest, random);
                items.add(item(thing, style, size, random));
            }
            if (isClear(content, items)) {
                return items;
            }
        }
        throw new IllegalStateException("no place was found for " + things);
    }

    /** At any place where all of it is in the picture. */
    private Item item(Thing thing, Style style, double size, SplittableRandom random) {
        Outline outline = sprites.outline(thing.object(), style);
        boolean mirrored = random.nextBoolean();
        double angle = between(-MOST_TURNED, MOST_TURNED, random);
        double canvas = size / outline.extent();
        Box turned = outline.box(angle, mirrored);
        double x = between(MARGIN - canvas * turned.left(), 1 - MARGIN - canvas * turned.right(), random);
        double y = between(MARGIN - canvas * turned.top(), 1 - MARGIN - canvas * turned.bottom(), random);
        Box box = new Box(
                x + canvas * turned.left(),
                y + canvas * turned.top(),
                x + canvas * turned.right(),
                y + canvas * turned.bottom());
        return new Item(thing.object(), thing.colour(), thing.material(), mirrored, angle, x, y, canvas, box);
    }

    private static boolean isClear(Content content, List<Item> items) {
        for (int i = 0; i < items.size(); i++) {
            for (int j = 0; j < i; j++) {
                if (items.get(i).box().overlap(items.get(j).box()) >= MOST_OVERLAP) {
                    return false;
                }
            }
        }
        return content.relation()
                .map(relation -> relation.holds(items.get(0).box(), items.get(1).box()))
                .orElse(true);
    }

    private static double between(double least, double most, SplittableRandom random) {
        return least + (most - least) * random.nextDouble();
    }
}
