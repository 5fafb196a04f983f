package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;
import java.util.function.Function;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Reasons;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.Mix;
import org.scaledit.scenes.Scene;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sightings;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Placement;

/** Scenes, composed and painted whenever one is asked for: those of the seeds {@code first} to {@code first + size − 1}. */
final class SceneSource implements SampleSource {
    /** Of what a seed shows: another number where that changes. */
    private static final String FORMAT = "scenes 1";

    static final Vocabulary VOCABULARY = Vocabulary.standard();

    private final long first;
    private final int size;
    private final Composer composer;
    private final SceneRenderer renderer;
    private final Placement placement;
    private final String fingerprint;

    /**
     * Scenes without combinations that are held out.
     *
     * @param sprites the folder of the SVG sets
     * @param cuda whether they are painted on the GPU of the thread that asks
     */
    SceneSource(long first, int size, Mix mix, Path sprites, boolean cuda) {
        this(
                first,
                size,
                mix.equals(Mix.USUAL) ? "" : " " + mix,
                sprites,
                cuda,
                opened -> new Composer(VOCABULARY, opened, false, mix));
    }

    /** @param kind by which they are told from usual ones in the fingerprint */
    SceneSource(long first, int size, String kind, Path sprites, boolean cuda, Function<Sprites, Composer> composer) {
        Sprites opened = Sprites.open(sprites);
        this.first = first;
        this.size = size;
        this.composer = composer.apply(opened);
        this.renderer = SceneRenderer.on(cuda, opened);
        this.placement = new Placement(torch.ScalarType.Float, cuda);
        try {
            this.fingerprint = new ContentHash()
                    .text(FORMAT + kind + (first == 0 ? "" : " from " + first))
                    .text(String.valueOf(size))
                    .file(sprites.resolve("noto.json"))
                    .file(sprites.resolve("fluent-emoji.json"))
                    .hex();
        } catch (IOException e) {
            throw new TrainingException("cannot read the sprites in " + sprites + ": " + Reasons.of(e), e);
        }
    }

    @Override
    public int size() {
        return size;
    }

    @Override
    public String fingerprint() {
        return fingerprint;
    }

    @Override
    public String name(int sample) {
        return "scene " + (first + sample);
    }

    @Override
    public String caption(int sample) {
        return scene(sample).text();
    }

    @Override
    public Placement placement() {
        return placement;
    }

    /** Of the scene only that part is painted. */
    @Override
    public Tensor picture(int sample, int size, int crop, long place) {
        int firstRow = SampleSource.offset(size, crop, (int) place);
        int firstColumn = SampleSource.offset(size, crop, (int) (place >>> 32));
        return renderer.tensor(scene(sample), size, firstRow, crop, firstColumn, crop);
    }

    @Override
    public Optional<Sightings> sightings(int sample, int cells) {
        return Optional.of(renderer.sightings(scene(sample), VOCABULARY, cells));
    }

    @Override
    public void close() {
        renderer.close();
    }

    /** What the whole picture of a sample shows. */
    Scene scene(int sample) {
        return composer.compose(first + sample);
    }
}
