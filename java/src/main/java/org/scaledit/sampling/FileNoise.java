package org.scaledit.sampling;

import java.nio.file.Path;
import java.util.Arrays;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.TensorInfo;
import org.scaledit.tensor.Tensors;

/**
 * Noise from a safetensors file: {@code guidance_noise} [1, w·h, 64] and {@code noise} [1, W·H, 64], packed, in raster
 * order; {@code noise_level_2} and so on for the further levels of a recursion.
 */
public final class FileNoise implements Noise {
    private static final int CHANNELS = 64;

    private final Path path;
    private final Safetensors file;

    public FileNoise(Path path) {
        this.path = path;
        this.file = Safetensors.open(path);
    }

    @Override
    public Tensor guidance(TokenGrid grid) {
        return read("guidance_noise", grid);
    }

    @Override
    public Tensor image(int level, TokenGrid grid) {
        return read(level == 1 ? "noise" : "noise_level_" + level, grid);
    }

    @Override
    public void close() {
        file.close();
    }

    private Tensor read(String name, TokenGrid grid) {
        if (!file.names().contains(name)) {
            throw new CheckpointException(
                    path + " has no tensor " + name + ", expected noise of shape " + Arrays.toString(shape(grid)));
        }
        TensorInfo info = file.info(name);
        if (!Arrays.equals(info.dimensions(), shape(grid))) {
            throw new CheckpointException(name + " in " + path + " has shape " + Arrays.toString(info.dimensions())
                    + ", expected " + Arrays.toString(shape(grid)));
        }
        return Tensors.scoped(() -> Tensors.toFloat32(file.tensor(name))
                .view(grid.tokens(), CHANNELS)
                .clone());
    }

    private static long[] shape(TokenGrid grid) {
        return new long[] {1, grid.tokens(), CHANNELS};
    }
}
