package org.scaledit;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.file.Reasons;
import org.scaledit.image.ImageException;
import org.scaledit.sampling.Schedule;
import org.scaledit.tensor.Torch;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.VaeConfig;

/** A few lines on what a file or folder holds. */
final class Description {
    /** How a PNG file begins. */
    private static final byte[] PNG = {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

    private Description() {}

    static String of(Path path) {
        if (Files.isDirectory(path)) {
            return model(path);
        }
        byte[] start = start(path);
        if (Arrays.equals(Arrays.copyOf(start, PNG.length), PNG)) {
            return picture(path);
        }
        // Behind the length of its header, which is JSON. What is called one and is none hears what is wrong with it.
        boolean safetensors = start.length > 8 && start[8] == '{';
        if (safetensors || path.toString().endsWith(".safetensors")) {
            return lora(path);
        }
        throw new IllegalArgumentException(
                path + " is a file of another kind, expected a diffusers folder, a safetensors file or a PNG");
    }

    private static byte[] start(Path file) {
        try (InputStream stream = Files.newInputStream(file)) {
            return stream.readNBytes(9);
        } catch (IOException e) {
            throw new ImageException("cannot read " + file + ": " + Reasons.of(e), e);
        }
    }

    private static String model(Path path) {
        Torch.load();
        ModelDirectory directory = ModelDirectory.open(path);
        FluxConfig transformer = FluxTransformer.check(directory, List.of(), LoraScope.GUIDANCE);
        TextEncoders.check(directory);
        VaeConfig vae = AutoencoderKl.check(directory.part("vae"));
        Pipeline.requireSameLatents(directory, transformer, directory.part("vae"), vae);
        Schedule.check(directory);
        long parameters = FluxTransformer.expectedTensors(transformer).values().stream()
                .mapToLong(Description::elements)
                .sum();
        return String.join(
                System.lineSeparator(),
                "FLUX.1 checkpoint " + path,
                String.format(
                        Locale.ROOT,
                        "transformer: %d double and %d single blocks, %d heads of %d, %.1f M parameters, %s",
                        transformer.doubleBlocks(),
                        transformer.singleBlocks(),
                        transformer.heads(),
                        transformer.headDim(),
                        parameters * 1e-6,
                        transformer.guidanceEmbedder() ? "guidance embedder" : "no guidance embedder"),
                "text: " + transformer.jointWidth() + " wide T5, " + transformer.pooledWidth() + " wide CLIP",
                "VAE: " + vae.latentChannels() + " latent channels, tiles of " + vae.sampleSize() + " pixels",
                "weights: " + formats(directory),
                "settings of its own: " + settings(ModelDefaults.read(path)),
                "every tensor is there and has its shape");
    }

    private static String settings(ModelDefaults defaults) {
        return defaults.settings().isEmpty()
                ? "none"
                : defaults.settings().entrySet().stream()
                        .map(entry -> entry.getKey() + " " + entry.getValue())
                        .collect(Collectors.joining(", "));
    }

    /** In which formats the numbers are, and how many of them. */
    private static String formats(ModelDirectory directory) {
        Map<String, Long> numbers = new TreeMap<>();
        for (String part : ModelDirectory.weighted()) {
            try (Safetensors source = directory.weights(part)) {
                for (String name : source.names()) {
                    String format = source.isQuantised(name)
                            ? "INT8 with a scale for each row"
                            : source.info(name).dtype().name();
                    numbers.merge(format, elements(source.info(name).dimensions()), Long::sum);
                }
            }
        }
        return numbers.entrySet().stream()
                .map(entry -> String.format(Locale.ROOT, "%.2f M in %s", entry.getValue() * 1e-6, entry.getKey()))
                .collect(Collectors.joining(", "));
    }

    private static String lora(Path path) {
        Torch.load();
        try (Lora lora = Lora.load(path)) {
            String ranks = lora.layers().values().stream()
                    .map(layer -> "rank " + layer.rank())
                    .distinct()
                    .collect(Collectors.joining(", "));
            String scales = lora.layers().values().stream()
                    .map(layer -> String.format(Locale.ROOT, "%.4g", layer.scale()))
                    .distinct()
                    .collect(Collectors.joining(", "));
            return String.join(
                    System.lineSeparator(),
                    "LoRA " + path,
                    lora.layers().size() + " layers, " + ranks + ", scale " + scales,
                    String.join(System.lineSeparator(), lora.layers().keySet()));
        }
    }

    private static String picture(Path path) {
        ImageRequest request = ImageRequest.from(path);
        long enlarged = (long) Math.pow(request.ratio(), Math.max(0, request.levels() - 1));
        return String.join(
                System.lineSeparator(),
                "picture " + path + ", " + request.width() * enlarged + " × " + request.height() * enlarged,
                Settings.pretty(path));
    }

    private static long elements(long[] shape) {
        long count = 1;
        for (long size : shape) {
            count *= size;
        }
        return count;
    }
}
