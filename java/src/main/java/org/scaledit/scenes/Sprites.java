package org.scaledit.scenes;

import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.ref.SoftReference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Function;
import javax.imageio.ImageIO;
import org.scaledit.file.Reasons;
import org.scaledit.image.ImageException;
import org.scaledit.image.OutputFile;

/**
 * The atlas: the objects' pictures in both styles, each on canvases of 64, 128 … 4096 pixels. A canvas is drawn from the SVG
 * set when it is first asked for and then kept as a PNG, in {@code atlas/} beside the sets; in memory as long as there is
 * room. Used by any number of threads.
 */
public final class Sprites {
    private static final int SMALLEST = 64;
    private static final int LARGEST = 4096;
    private static final int OUTLINE = 256; // pixels along the canvas that outlines and main hues are taken from

    /** A canvas may be enlarged by a third: at 4096 pixels a sprite of 2048 serves where one of 4096 would take 64 MiB. */
    private static final double ENLARGEMENT = 4 / 3.0;

    /**
     * One canvas.
     *
     * @param side of it, in pixels
     */
    record Key(String icon, Style style, int side) {}

    private record Shape(Outline outline, double mainHue) {}

    private final Path folder;
    private final Map<Style, SvgSet> sets = new ConcurrentHashMap<>();
    private final Map<Key, SoftReference<Sprite>> canvases = new ConcurrentHashMap<>();
    private final Map<Key, Shape> shapes = new ConcurrentHashMap<>();

    private Sprites(Path folder) {
        this.folder = folder;
    }

    /**
     * @param folder with {@code noto.json} and {@code fluent-emoji.json}, as {@code tools/sprites} fetches them
     * @throws IllegalArgumentException if one is missing
     */
    public static Sprites open(Path folder) {
        for (Style style : Style.values()) {
            if (!Files.isRegularFile(folder.resolve(file(style)))) {
                throw new IllegalArgumentException("sprites " + folder + " have no " + file(style)
                        + ", expected the SVG sets that tools/sprites fetches");
            }
        }
        return new Sprites(folder);
    }

    private static String file(Style style) {
        return style.set() + ".json";
    }

    Outline outline(SceneObject object, Style style) {
        return shape(object, style).outline;
    }

    double mainHue(SceneObject object, Style style) {
        return shape(object, style).mainHue;
    }

    private Shape shape(SceneObject object, Style style) {
        return shapes.computeIfAbsent(new Key(object.icon(), style, OUTLINE), key -> {
            Sprite sprite = sprite(key);
            Outline outline = Outline.of(sprite);
            if (outline.isEmpty()) {
                throw new ImageException("picture " + object.icon() + " of " + file(style) + " shows nothing");
            }
            return new Shape(outline, sprite.mainHue());
        });
    }

    /** The smallest canvas that serves so many pixels, or the largest that there is. */
    static Key key(SceneObject object, Style style, double pixels) {
        int side = SMALLEST;
        while (side < LARGEST && side * ENLARGEMENT < pixels) {
            side *= 2;
        }
        return new Key(object.icon(), style, side);
    }

    Sprite sprite(Key key) {
        SoftReference<Sprite> there = canvases.get(key);
        Sprite sprite = there == null ? null : there.get();
        if (sprite != null) {
            return sprite;
        }
        // A lock for each sprite: others go on.
        Sprite[] made = new Sprite[1];
        canvases.compute(key, (same, reference) -> {
            Sprite meanwhile = reference == null ? null : reference.get();
            made[0] = meanwhile == null ? load(key) : meanwhile;
            return meanwhile == null ? new SoftReference<>(made[0]) : reference;
        });
        return made[0];
    }

    private Sprite load(Key key) {
        Path file = folder.resolve("atlas")
                .resolve(String.valueOf(key.side))
                .resolve(key.style.set() + "-" + key.icon + ".png");
        return kept(file, key.side).orElseGet(() -> {
            Sprite sprite = new Sprite(key.side, set(key.style).rasterize(key.icon, key.side));
            keep(sprite, file);
            return sprite;
        });
    }

    private SvgSet set(Style style) {
        Function<Style, SvgSet> read = missing -> SvgSet.read(folder.resolve(file(missing)));
        return sets.computeIfAbsent(style, read);
    }

    private static Optional<Sprite> kept(Path file, int side) {
        if (!Files.isRegularFile(file)) {
            return Optional.empty();
        }
        try {
            BufferedImage image = ImageIO.read(file.toFile());
            if (image == null || image.getWidth() != side || image.getHeight() != side) {
                throw new ImageException("sprite " + file + " is no PNG of " + side + " × " + side + " pixels");
            }
            return Optional.of(new Sprite(side, image.getRGB(0, 0, side, side, null, 0, side)));
        } catch (IOException e) {
            throw new ImageException("cannot read sprite " + file + ": " + Reasons.of(e), e);
        }
    }

    /** Premultiplied as it is, so that what is read is bit for bit what was drawn. */
    private static void keep(Sprite sprite, Path file) {
        int side = sprite.side();
        BufferedImage image = new BufferedImage(side, side, BufferedImage.TYPE_INT_ARGB);
        image.setRGB(0, 0, side, side, sprite.argb(), 0, side);
        ByteArrayOutputStream png = new ByteArrayOutputStream();
        try {
            ImageIO.write(image, "png", png);
            Files.createDirectories(file.toAbsolutePath().getParent());
        } catch (IOException e) {
            throw new ImageException("cannot write sprite " + file + ": " + Reasons.of(e), e);
        }
        OutputFile.replace(file, png::writeTo);
    }
}
