package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Path;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Reasons;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.tensor.Tensors;

/** Scenes, composed and painted whenever one is asked for: those of the seeds 0 to {@code size − 1}. */
final class SceneSource implements SampleSource {
    /** Of what a seed shows: another number where that changes. */
    private static final String FORMAT = "scenes 1";

    private final int size;
    private final Composer composer;
    private final SceneRenderer renderer;
    private final String fingerprint;

    /** @param sprites the folder of the SVG sets */
    SceneSource(int size, Path sprites) {
        Sprites opened = Sprites.open(sprites);
        this.size = size;
        this.composer = new Composer(Vocabulary.standard(), opened, false);
        this.renderer = new SceneRenderer(opened);
        try {
            this.fingerprint = new ContentHash()
                    .text(FORMAT)
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
        return "scene " + sample;
    }

    @Override
    public String caption(int sample) {
        return composer.compose(sample).text();
    }

    /** Of the scene only that part is painted. */
    @Override
    public Tensor picture(int sample, int size, int crop, long place) {
        int firstRow = SampleSource.offset(size, crop, (int) place);
        int firstColumn = SampleSource.offset(size, crop, (int) (place >>> 32));
        byte[] part = renderer.render(composer.compose(sample), size, firstRow, crop, firstColumn, crop);
        return Tensors.scoped(() -> {
            Tensor bytes = torch.empty(new long[] {crop, crop, 3}, new TensorOptions(torch.ScalarType.Byte), null);
            new BytePointer(bytes.data_ptr()).put(part);
            return Tensors.toFloat32(bytes)
                    .div(new Scalar(127.5))
                    .sub(new Scalar(1.0))
                    .permute(2, 0, 1)
                    .contiguous();
        });
    }
}
