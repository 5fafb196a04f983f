package org.scaledit.scenes;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.bindings.PixelRectangle;
import org.scaledit.bindings.SceneItem;
import org.scaledit.bindings.SceneView;
import org.scaledit.scenes.Scene.Item;

/**
 * Paints scenes at any size: every pixel comes from the scene and its place alone. The native core computes them, on a CPU and
 * on a GPU the same. Used by any number of threads. Closing it gives back what it keeps in a GPU's memory; on a CPU that is
 * nothing.
 */
public final class SceneRenderer implements AutoCloseable {
    public static final int SMALLEST = 64;
    public static final int LARGEST = 8192;

    /** Alpha, of 255, of a cell that shows an item. */
    private static final double SEEN = 255 / 4.0;

    private final Sprites sprites;
    private final Painter painter;

    /** Paints on the CPU, with the thread that asks. */
    public SceneRenderer(Sprites sprites) {
        this(sprites, new CpuPainter());
    }

    private SceneRenderer(Sprites sprites, Painter painter) {
        this.sprites = sprites;
        this.painter = painter;
    }

    /**
     * Paints on a CPU, or on the GPU of the thread that asks.
     *
     * @throws IllegalStateException in one sentence, if there is no GPU that it could use
     */
    public static SceneRenderer on(boolean cuda, Sprites sprites) {
        return cuda ? new SceneRenderer(sprites, CudaPainter.create()) : new SceneRenderer(sprites);
    }

    /**
     * @param size pixels along each side, 64 to 8192
     * @return red, green and blue of each pixel, row by row: {@code [size · size · 3]}
     */
    public byte[] render(Scene scene, int size) {
        return render(scene, size, 0, size);
    }

    /**
     * Some rows of the same picture.
     *
     * @return {@code [rows · size · 3]}
     */
    public byte[] render(Scene scene, int size, int firstRow, int rows) {
        return render(scene, size, firstRow, rows, 0, size);
    }

    /**
     * A rectangle of the same picture.
     *
     * @return {@code [rows · columns · 3]}
     */
    public byte[] render(Scene scene, int size, int firstRow, int rows, int firstColumn, int columns) {
        Region region = new Region(size, firstRow, rows, firstColumn, columns);
        return scoped(scene, region, painter::bytes);
    }

    /**
     * The same for a model, where it is painted.
     *
     * @return {@code [3, rows, columns]}, float32 in −1 … 1, in the caller's scope
     */
    public Tensor tensor(Scene scene, int size, int firstRow, int rows, int firstColumn, int columns) {
        Region region = new Region(size, firstRow, rows, firstColumn, columns);
        Tensor picture = painter.empty(region);
        scoped(scene, region, view -> {
            painter.paint(view, SCALEDIT_PIXELS_FLOAT32, picture.data_ptr());
            return true;
        });
        return picture;
    }

    private interface Work<T> {
        T of(SceneView view);
    }

    /** Describes a rectangle of a scene for as long as something is done with it. */
    @SuppressWarnings("try") // the scope works by being open
    private <T> T scoped(Scene scene, Region region, Work<T> work) {
        try (PointerScope scope = new PointerScope()) {
            return work.of(view(scene, region));
        }
    }

    private SceneView view(Scene scene, Region region) {
        SplittableRandom seeds = new SplittableRandom(scene.seed()).split();
        Backdrop backdrop = Backdrop.of(scene.background(), seeds.nextLong());
        List<Item> items = scene.items();
        SceneItem views = new SceneItem(Math.max(1, items.size()));
        Pointer.memset(views, 0, (long) views.sizeof() * Math.max(1, items.size()));
        for (int i = 0; i < items.size(); i++) {
            describe(items.get(i), scene.style(), seeds.nextInt(), region, views.getPointer(i));
        }
        SceneView view = new SceneView()
                .size(region.size())
                .background(backdrop.background())
                .seed(backdrop.seed())
                .items(items.size())
                .item(views);
        describe(region, view.part());
        for (int i = 0; i < backdrop.drawn().length; i++) {
            view.drawn(i, backdrop.drawn()[i]);
        }
        return view;
    }

    /** @param view of zeros */
    private void describe(Item item, Style style, int seed, Region region, SceneItem view) {
        Canvas canvas = new Canvas(item, region.size());
        view.x(item.x())
                .y(item.y())
                .canvas(item.canvas())
                .cosine(canvas.cosine())
                .sine(canvas.sine())
                .mirrored(item.mirrored() ? 1 : 0)
                .material(item.material().number())
                .seed(seed);
        item.colour()
                .ifPresent(colour -> view.recoloured(1)
                        .own_hue(sprites.mainHue(item.object(), style))
                        .hue(colour.hue())
                        .saturation(colour.saturation())
                        .value(colour.value()));
        Region covered = canvas.covered(region);
        if (!covered.isEmpty()) {
            describe(covered, view.seen());
            Sprites.Key key = Sprites.key(item.object(), style, item.canvas() * region.size());
            painter.describe(sprites, key, canvas.pixels(covered, key.side()), view.sprite());
        }
        Region shaded = canvas.shaded(region);
        if (!shaded.isEmpty()) {
            describe(shaded, view.shaded());
            view.shadow_x(canvas.shadowX())
                    .shadow_y(canvas.shadowY())
                    .shadow_darkness(Shadow.DARKNESS)
                    .shadow_deviation(Shadow.BLUR);
            Sprites.Key key = Sprites.key(item.object(), style, Shadow.CANVAS);
            painter.describe(sprites, key, Region.whole(key.side()), view.shadow());
        }
    }

    static void describe(Region region, PixelRectangle view) {
        view.first_row(region.firstRow())
                .rows(region.rows())
                .first_column(region.firstColumn())
                .columns(region.columns());
    }

    /**
     * What the picture shows where. A cell shows an object if a quarter of it is covered, and of several the one that is painted
     * last.
     *
     * @param vocabulary that the objects are of
     * @param cells of a square grid over the picture, along each side
     */
    public Sightings sightings(Scene scene, Vocabulary vocabulary, int cells) {
        long[] objects = new long[cells * cells];
        long[] parts = new long[cells * cells];
        Arrays.fill(objects, Sightings.background(vocabulary));
        Arrays.fill(parts, Sightings.NO_PART);
        for (Item item : scene.items()) {
            int object = vocabulary.objects().indexOf(item.object());
            Canvas canvas = new Canvas(item, cells);
            Sprite sprite = sprites.sprite(Sprites.key(item.object(), scene.style(), 4 * item.canvas() * cells));
            for (int cell = 0; cell < objects.length; cell++) {
                double x = (cell % cells + 0.5) / cells - item.x();
                double y = (cell / cells + 0.5) / cells - item.y();
                if (canvas.alpha(sprite, x, y) > SEEN) {
                    objects[cell] = object;
                    parts[cell] = Sightings.part(canvas.across(x, y), canvas.down(x, y));
                }
            }
        }
        return new Sightings(objects, parts);
    }

    @Override
    public void close() {
        painter.close();
    }

    static void requireSize(int size) {
        if (size < SMALLEST || size > LARGEST) {
            throw new IllegalArgumentException("size is " + size + " pixels, expected " + SMALLEST + " to " + LARGEST);
        }
    }
}
