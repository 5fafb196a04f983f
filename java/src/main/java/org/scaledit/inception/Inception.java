package org.scaledit.inception;

import java.nio.file.Path;
import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.KerasModel;
import org.scaledit.image.PixelSource;
import org.scaledit.image.Resize;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;

/**
 * The Inception-v3 of nsfwjs (MIT), which {@code tools/inception} fetches. Its features are what its first dense layer takes:
 * the mean over all places of a picture.
 */
public final class Inception implements AutoCloseable {
    /** What features are called in reports. */
    public static final String NAME = "nsfwjs 4.3.0 Inception-v3, 2,048 wide";

    /** Pixels along each side of what it looks at. */
    public static final int SIZE = 299;

    static final int FEATURES = 2048;

    private final Placement placement;
    private final KerasNetwork network;

    private Inception(KerasModel model, Placement placement) {
        this.placement = placement;
        this.network = new KerasNetwork(model, "dense_1", placement);
    }

    /**
     * Opens the network, once it is certain that it can compute.
     *
     * @param folder with {@code model.json} and the files of weights that it names
     * @param cuda whether on a GPU; in float32 there as well
     * @throws CheckpointException in one sentence, if a file is missing or wrong
     * @throws IllegalStateException likewise, if there is no such device
     */
    public static Inception open(Path folder, boolean cuda) {
        if (cuda) {
            Cuda.requireBuild(Optional.empty());
            Cuda.load();
        } else {
            Torch.load();
        }
        Placement placement = new Placement(torch.ScalarType.Float, cuda);
        return Tensors.compute(() -> new Inception(KerasModel.read(folder), placement));
    }

    /** A picture in the network's size, whatever its shape: bicubic, which is antialiased where it shrinks. */
    public static Tensor fit(PixelSource picture) { // -> [3, size, size], −1 … 1, on the CPU
        return Tensors.scoped(() -> Resize.bicubic(picture, SIZE, SIZE)
                .clamp_min(new Scalar(-1.0))
                .clamp_max(new Scalar(1.0))); // it overshoots
    }

    Placement placement() {
        return placement;
    }

    /** Features of pictures, in float32 where the network is. */
    public Tensor features(Tensor pictures) { // [batch, 3, size, size], −1 … 1 -> [batch, features]
        return Tensors.scoped(() -> {
            Tensor unit =
                    placement.place(pictures).add(new Scalar(1.0)).div(new Scalar(2.0)); // 0 … 1, as nsfwjs has it
            return network.run(unit);
        });
    }

    @Override
    public void close() {
        network.close();
    }
}
