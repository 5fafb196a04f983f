package org.scaledit.benchmarks;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.checkpoint.Dtype;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxTransformer;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Writes down what a block of a model hands to attention, for benchmarks that cannot run the model. */
@Command(
        name = "bench attention-inputs",
        mixinStandardHelpOptions = true,
        description = "Writes queries, keys and values of one block, normed and rotated, in bfloat16 and Hilbert order,"
                + " with the geometry's options as metadata. Noise stands in for the guidance image.")
final class AttentionInputs implements Callable<Integer> {
    private static final AttentionWindow WINDOW = AttentionWindow.DEFAULT;
    private static final int TEXT_TOKENS = 512;
    private static final double GUIDANCE = 4.5;
    private static final List<String> NAMES = List.of("query", "key", "value");

    @Parameters(paramLabel = "FILE", description = "The safetensors file to write.")
    private Path file = Path.of("");

    @Option(names = "--model", description = "A FLUX.1 checkpoint. Default: ${DEFAULT-VALUE}.")
    private Path model = Path.of("tests/fixtures/tiny-flux");

    @Option(names = "--prompt", defaultValue = "a lighthouse at dusk", description = "Default: ${DEFAULT-VALUE}.")
    private String prompt = "";

    @Option(names = "--width", defaultValue = "1024", description = "Pixels. Default: ${DEFAULT-VALUE}.")
    private int width;

    @Option(names = "--height", defaultValue = "1024", description = "Pixels. Default: ${DEFAULT-VALUE}.")
    private int height;

    @Option(names = "--block", defaultValue = "1", description = "Counted from 0. Default: ${DEFAULT-VALUE}.")
    private int block;

    public static void main(String[] arguments) {
        CommandLine command = new CommandLine(new AttentionInputs());
        command.setExecutionExceptionHandler((error, failed, parsed) -> {
            failed.getErr().println(failed.getCommandName() + ": " + error.getMessage());
            return 1;
        });
        System.exit(command.execute(arguments));
    }

    @Override
    public Integer call() {
        Torch.load();
        TokenGrid grid = TokenGrid.ofPixels(width, height);
        ModelDirectory directory = ModelDirectory.open(model);
        Tensors.run(() -> {
            try (Geometry geometry = Geometry.windowed(TEXT_TOKENS, grid.width(), grid.height(), WINDOW);
                    Recorder recorder =
                            new Recorder(new NativeAttention(geometry, NativeAttention.Arithmetic.FLOAT32))) {
                attend(directory, grid, geometry, recorder);
                if (recorder.blocks <= block) {
                    throw new IllegalArgumentException(
                            "block is " + block + ", expected 0 to " + (recorder.blocks - 1) + " as " + model + " has");
                }
            }
        });
        return 0;
    }

    /** The first step of a high-resolution pass, with nothing but the attention's inputs kept. */
    private void attend(ModelDirectory directory, TokenGrid grid, Geometry geometry, Attention attention) {
        SeededNoise noise = new SeededNoise(1);
        Tensor latents = geometry.layout().arrangeImage(noise.image(1, grid));
        Tensor guidance = geometry.layout().arrangeGuidance(noise.guidance(grid.guidance(WINDOW.ratio())));
        try (TextEncoders encoders = TextEncoders.load(directory, Placement.FLOAT32_CPU);
                Conditioning text = encoders.encode(prompt, TEXT_TOKENS);
                FluxTransformer transformer = FluxTransformer.load(directory, Placement.FLOAT32_CPU);
                Denoiser denoiser = transformer.denoiser(
                        geometry.layout(),
                        attention,
                        FluxTransformer.NTK_THETA,
                        text.states(),
                        text.pooled(),
                        GUIDANCE,
                        guidance)) {
            denoiser.velocity(latents, 1, () -> {});
        }
    }

    /** Writes the inputs of one of the calls that it passes on. */
    private final class Recorder implements Attention {
        private final Attention attention;
        private int blocks;

        Recorder(Attention attention) {
            this.attention = attention;
        }

        @Override
        public Tensor attend(Tensor query, Tensor key, Tensor value) {
            if (blocks++ == block) {
                write(List.of(query, key, value));
            }
            return attention.attend(query, key, value);
        }

        @Override
        public void close() {
            attention.close();
        }
    }

    private void write(List<Tensor> tensors) {
        Map<String, Declaration> contents = new LinkedHashMap<>();
        NAMES.forEach(name ->
                contents.put(name, Declaration.of(Dtype.BF16, tensors.get(0).shape())));
        Map<String, String> options = Map.of(
                "text_tokens", String.valueOf(TEXT_TOKENS),
                "image_width", String.valueOf(width / TokenGrid.PIXELS_PER_TOKEN),
                "image_height", String.valueOf(height / TokenGrid.PIXELS_PER_TOKEN),
                "ratio", String.valueOf(WINDOW.ratio()),
                "window", String.valueOf(WINDOW.window()),
                "reach", String.valueOf(WINDOW.reach()),
                "guidance_margin", String.valueOf(WINDOW.guidanceMargin()));
        try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, options)) {
            for (int i = 0; i < NAMES.size(); i++) {
                writer.write(NAMES.get(i), tensors.get(i));
            }
            writer.commit();
        }
    }
}
