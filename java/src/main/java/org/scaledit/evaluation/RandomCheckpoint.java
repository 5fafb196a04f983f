package org.scaledit.evaluation;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.Dtype;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.checkpoint.Weights;
import org.scaledit.file.Reasons;
import org.scaledit.tensor.Placement;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.VaeConfig;

/**
 * What a picture needs of FLUX.1-dev beside the text encoders and the transformer, in a folder of its own until it is closed:
 * the schedule, and the autoencoder with random weights.
 */
final class RandomCheckpoint implements AutoCloseable {
    private static final Map<String, String> FILES =
            Map.of("model_index.json", """
            {"_class_name": "FluxPipeline"}
            """, "scheduler/scheduler_config.json", """
            {"use_dynamic_shifting": true, "base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5,
             "max_shift": 1.15, "shift": 3.0}
            """, "vae/config.json", """
            {"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
             "down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"], "in_channels": 3,
             "out_channels": 3, "latent_channels": 16, "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 1024,
             "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": false, "use_post_quant_conv": false}
            """);

    private final Path folder;

    RandomCheckpoint() {
        try {
            this.folder = Files.createTempDirectory("scaledit-random-");
        } catch (IOException e) {
            throw new UncheckedIOException("no folder for random weights can be made: " + Reasons.of(e), e);
        }
        try {
            write();
        } catch (IOException e) {
            close();
            throw new UncheckedIOException("random weights cannot be written to " + folder + ": " + Reasons.of(e), e);
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    private void write() throws IOException {
        for (Map.Entry<String, String> file : FILES.entrySet()) {
            Path path = folder.resolve(file.getKey());
            Files.createDirectories(path.getParent());
            Files.writeString(path, file.getValue());
        }
        Path vae = folder.resolve("vae");
        Map<String, long[]> shapes =
                AutoencoderKl.expectedTensors(VaeConfig.of(Config.read(vae.resolve("config.json"))));
        Map<String, Declaration> contents = new LinkedHashMap<>();
        shapes.forEach((name, shape) -> contents.put(name, Declaration.of(Dtype.BF16, shape)));
        try (Weights weights = Weights.random(Placement.BFLOAT16_CPU);
                SafetensorsWriter writer = SafetensorsWriter.create(
                        vae.resolve("diffusion_pytorch_model.safetensors"), contents, Map.of())) {
            shapes.forEach((name, shape) -> writer.write(name, weights.load(name, shape)));
            writer.commit();
        }
    }

    ModelDirectory directory() {
        return ModelDirectory.open(folder);
    }

    @Override
    public void close() {
        try (Stream<Path> paths = Files.walk(folder)) {
            List<Path> insideOut = paths.sorted(Comparator.reverseOrder()).toList();
            for (Path path : insideOut) {
                Files.delete(path);
            }
        } catch (IOException e) {
            throw new UncheckedIOException("random weights in " + folder + " cannot be removed: " + Reasons.of(e), e);
        }
    }
}
