package org.scaledit.training;

import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.scenes.Sightings;
import org.scaledit.tensor.Placement;

/** Square pictures with captions, to train a whole model with. Used by any number of threads until it is closed. */
interface SampleSource extends AutoCloseable {
    int size();

    /** A hash of all pictures and captions, or of what they are made from. */
    String fingerprint();

    /** A sample's name for a message. */
    String name(int sample);

    String caption(int sample);

    /** Where its pictures are made: float32, on the CPU or on the GPU of the thread that asks. */
    default Placement placement() {
        return Placement.FLOAT32_CPU;
    }

    /**
     * Part of a picture.
     *
     * @param size of the whole picture, along each side
     * @param crop of the part likewise, at most {@code size}
     * @param place decides which part, by its bits
     * @return {@code [3, crop, crop]}, in −1 … 1, in the caller's scope
     */
    Tensor picture(int sample, int size, int crop, long place);

    /** The whole picture at this size. */
    default Tensor picture(int sample, int size) {
        return picture(sample, size, size, 0);
    }

    /**
     * What a whole picture shows in each cell of a square grid over it, if that is known.
     *
     * @param cells along each side
     */
    default Optional<Sightings> sightings(int sample, int cells) {
        return Optional.empty();
    }

    @Override
    default void close() {}

    /** The first row, or column, of a part: from 0 to {@code size − crop}. */
    static int offset(int size, int crop, int bits) {
        return Integer.remainderUnsigned(bits, size - crop + 1);
    }
}
