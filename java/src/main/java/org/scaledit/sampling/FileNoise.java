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
    private static final String GUIDANCE = "guidance_noise";

    private final Path path;
    private final Safetensors file;

    private FileNoise(Path path, Safetensors file) {
        this.path = path;
        this.file = file;
    }

    /**
     * Opens a file and checks by its header that it has all that a picture takes.
     *
     * @throws CheckpointException naming the tensor that is missing or has another shape, and what is expected
     */
    public static FileNoise open(Path path, Plan plan) {
        FileNoise noise = new FileNoise(path, Safetensors.open(path));
        try {
            if (plan.guideImage().isEmpty() && (plan.levels() == 0 || plan.isGuided())) {
                noise.check(GUIDANCE, plan.guidanceGrid());
            }
            TokenGrid grid = plan.grid();
            for (int level = 1; level <= plan.levels(); level++) {
                noise.check(image(level), grid);
                grid = level == plan.levels()
                        ? grid
                        : grid.enlarged(plan.window().ratio());
            }
            return noise;
        } catch (RuntimeException e) {
            noise.close();
            throw e;
        }
    }

    private static String image(int level) {
        return level == 1 ? "noise" : "noise_level_" + level;
    }

    @Override
    public Tensor guidance(TokenGrid grid) {
        return read(GUIDANCE, grid);
    }

    @Override
    public Tensor image(int level, TokenGrid grid) {
        return read(image(level), grid);
    }

    @Override
    public void close() {
        file.close();
    }

    private void check(String name, TokenGrid grid) {
        if (!file.names().contains(name)) {
            throw new CheckpointException(
                    path + " has no tensor " + name + ", expected noise of shape " + Arrays.toString(shape(grid)));
        }
        TensorInfo info = file.info(name);
        if (!Arrays.equals(info.dimensions(), shape(grid))) {
            throw new CheckpointException(name + " in " + path + " has shape " + Arrays.toString(info.dimensions())
                    + ", expected " + Arrays.toString(shape(grid)));
        }
    }

    private Tensor read(String name, TokenGrid grid) {
        return Tensors.scoped(() -> Tensors.toFloat32(file.tensor(name))
                .view(grid.tokens(), CHANNELS)
                .clone());
    }

    private static long[] shape(TokenGrid grid) {
        return new long[] {1, grid.tokens(), CHANNELS};
    }
}
