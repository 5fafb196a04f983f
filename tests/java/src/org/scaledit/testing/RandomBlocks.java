package org.scaledit.testing;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.Dtype;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;

/** Some blocks of FLUX.1-dev's width with random weights, for tests on a GPU. */
public final class RandomBlocks {
    private RandomBlocks() {}

    public static FluxConfig config(int doubleBlocks, int singleBlocks) {
        FluxConfig dev = FluxConfig.DEV;
        return new FluxConfig(
                dev.latentChannels(),
                doubleBlocks,
                singleBlocks,
                dev.heads(),
                dev.headDim(),
                dev.jointWidth(),
                dev.pooledWidth(),
                dev.guidanceEmbedder(),
                dev.axes());
    }

    /** A file of them in bfloat16, half a gigabyte for each block. */
    public static Path write(Path folder, FluxConfig config, long seed) {
        CudaAttention.requireGpu();
        torch.manual_seed(seed);
        Path file = folder.resolve("blocks.safetensors");
        Map<String, SafetensorsWriter.Declaration> contents = new LinkedHashMap<>();
        Map<String, long[]> expected = FluxTransformer.expectedTensors(config);
        expected.forEach((name, shape) -> contents.put(name, SafetensorsWriter.Declaration.of(Dtype.BF16, shape)));
        try (Weights random = Weights.random(Gpu.BFLOAT16);
                SafetensorsWriter writer = SafetensorsWriter.create(file, contents, Map.of())) {
            expected.forEach((name, shape) -> Tensors.run(
                    () -> writer.write(name, random.load(name, shape).cpu())));
            writer.commit();
        }
        Tensors.run(torch::emptyCache);
        return file;
    }
}
