package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Interrupts;
import org.scaledit.file.Reasons;
import org.scaledit.image.ImageFile;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Tensors;

/** The pictures of a folder, cropped to squares around their middle. */
final class FolderSource implements SampleSource {
    private final List<Example> examples;
    private final String fingerprint;

    /** @throws TrainingException naming what is wrong with the folder */
    FolderSource(Path folder) {
        this.examples = Example.of(folder);
        ContentHash hash = new ContentHash();
        for (Example example : examples) {
            try {
                hash.text(example.name()).file(example.image()).text(example.caption());
            } catch (IOException e) {
                Interrupts.throwIfInterrupted("reading " + example.image(), e);
                throw new TrainingException("cannot read the picture " + example.image() + ": " + Reasons.of(e), e);
            }
        }
        this.fingerprint = hash.hex();
    }

    @Override
    public int size() {
        return examples.size();
    }

    @Override
    public String fingerprint() {
        return fingerprint;
    }

    @Override
    public String name(int sample) {
        return examples.get(sample).image().toString();
    }

    @Override
    public String caption(int sample) {
        return examples.get(sample).caption();
    }

    @Override
    public Tensor picture(int sample, int size, int crop, long place) {
        return Tensors.scoped(() -> new Bucket(TokenGrid.ofPixels(size, size))
                .fit(ImageFile.read(examples.get(sample).image()))
                .narrow(1, SampleSource.offset(size, crop, (int) place), crop)
                .narrow(2, SampleSource.offset(size, crop, (int) (place >>> 32)), crop)
                .contiguous());
    }
}
