package org.scaledit.cli;

import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code scaledit generate}. An option that is not given leaves the model's or the request's own default, or --from's value. */
@Command(
        name = "generate",
        description = "Makes a picture from a prompt.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class GenerateCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 18;

    /** Pixels along a side: a sixteenth of the tokens of 4096. */
    private static final int EMBEDDED_ON_CPU = 1024;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(arity = "0..1", paramLabel = "PROMPT", description = "What the picture shows.")
    private @Nullable String prompt;

    @Option(
            names = "--model",
            paramLabel = "DIR",
            description =
                    "FLUX.1 checkpoint, a diffusers directory. Default: the small model that is embedded. What its"
                            + " generation_config.json says replaces the defaults below.")
    private @Nullable Path model;

    @Option(
            names = "--lora",
            paramLabel = "FILE[:scale]",
            converter = LoraOption.Converter.class,
            description = "LoRA, may be repeated. Scale: 1.")
    private @Nullable List<LoraOption> loras;

    @Option(
            names = "--vae",
            paramLabel = "DIR",
            description = "Another VAE than the checkpoint's (diffusers directory).")
    private @Nullable Path vae;

    @Option(
            names = "--width",
            paramLabel = "N",
            description = "Pixels, a multiple of 16. Default: 4096, or 1024 of the embedded model on a CPU.")
    private @Nullable Integer width;

    @Option(names = "--height", paramLabel = "N", description = "Likewise.")
    private @Nullable Integer height;

    @Option(
            names = "--ratio",
            paramLabel = "N",
            description = "How many times smaller the guidance image is: 1, 2, 4 or 8. Default: 4.")
    private @Nullable Integer ratio;

    @Option(
            names = "--levels",
            paramLabel = "N",
            description =
                    "With 2 the result guides a picture that is larger by the ratio on each side, with 3 that one "
                            + "guides the next; the last is written. Default: 1.")
    private @Nullable Integer levels;

    @Option(names = "--steps", paramLabel = "N", description = "High-resolution steps. Default: 28.")
    private @Nullable Integer steps;

    @Option(names = "--guidance", paramLabel = "G", description = "Guidance of the high-resolution pass. Default: 4.5.")
    private @Nullable Double guidance;

    @Option(
            names = "--negative",
            paramLabel = "PROMPT",
            description = "What the picture is not to show; with --true-guidance.")
    private @Nullable String negative;

    @Option(
            names = "--true-guidance",
            paramLabel = "S",
            description =
                    "How strongly it is led away from --negative: two passes a step, the velocity is negative + S *"
                            + " (positive - negative); 1 is one pass without it.")
    private @Nullable Double trueGuidance;

    @Option(names = "--guide-steps", paramLabel = "N", description = "Steps of the guidance image. Default: 28.")
    private @Nullable Integer guideSteps;

    @Option(names = "--guide-guidance", paramLabel = "G", description = "Guidance of the guidance image. Default: 3.5.")
    private @Nullable Double guideGuidance;

    @Option(
            names = "--guide-image",
            paramLabel = "FILE",
            description = "PNG or JPEG to use in place of a generated guidance image.")
    private @Nullable Path guideImage;

    @Option(
            names = "--init",
            paramLabel = "KIND",
            description = "Start from 'noise' or from the enlarged 'guidance' image. Default: noise.")
    private ImageRequest.@Nullable Init init;

    @Option(
            names = "--strength",
            paramLabel = "S",
            description = "With --init guidance, the share of the steps that run. Default: 0.643.")
    private @Nullable Double strength;

    @Option(names = "--window", paramLabel = "N", description = "Tokens along a window: 16, 32 or 64. Default: 16.")
    private @Nullable Integer window;

    @Option(
            names = "--reach",
            paramLabel = "N",
            description = "Cells of 8x8 tokens around its own that a token sees; 0: its window alone. Default: 1.")
    private @Nullable Integer reach;

    @Option(
            names = "--guidance-attention",
            paramLabel = "KIND",
            description = "Guidance tokens attend to each other 'global' or 'local'. Default: global.")
    private ImageRequest.@Nullable GuidanceAttention guidanceAttention;

    @Option(
            names = "--guidance-text",
            paramLabel = "on|off",
            description = "Guidance tokens attend to the text, too. 'off' computes theirs once instead of at each step,"
                    + " for memory. Default: on.")
    private @Nullable Switch guidanceText;

    @Option(
            names = "--guidance-margin",
            paramLabel = "N",
            description = "Guidance tokens seen around a cell's own region. Default: 3.")
    private @Nullable Integer guidanceMargin;

    @Option(
            names = "--lora-scope",
            paramLabel = "KIND",
            description = "LoRA layers act on 'guidance' tokens, on 'all', or as in the 'released' code. "
                    + "Default: guidance.")
    private ScaleDit.@Nullable LoraScope loraScope;

    @Option(
            names = "--attention",
            paramLabel = "KIND",
            converter = AttentionOption.class,
            description =
                    "'native' (exact at float32 precision, INT8 at bfloat16), 'native-exact', 'native-int8', or 'dense' "
                            + "(torch, slow). Default: native.")
    private ImageRequest.@Nullable AttentionKind attention;

    @Option(
            names = "--precision",
            paramLabel = "KIND",
            description =
                    "float32, bfloat16, or fp8 (the transformer's large products, on a GPU). Default: float32 on a CPU, "
                            + "bfloat16 on a GPU.")
    private ScaleDit.@Nullable Precision precision;

    @Option(names = "--device", paramLabel = "KIND", description = "cpu or cuda (an NVIDIA GPU). Default: cpu.")
    private ScaleDit.@Nullable Device device;

    @Option(
            names = "--memory",
            paramLabel = "KIND",
            description =
                    "normal, or low (on a GPU: the transformer's blocks stay in the host's memory, each comes while the one "
                            + "before it computes). Low costs time where a step is shorter than the copy of all blocks: of "
                            + "FLUX.1-dev 15 GB in fp8, 24 in bfloat16. Default: normal.")
    private ScaleDit.@Nullable Memory memory;

    @Option(
            names = "--text-tokens",
            paramLabel = "N",
            description = "Length of T5's text. Default: 512, or 256 without guidance embedder.")
    private @Nullable Integer textTokens;

    @Option(names = "--seed", paramLabel = "N", description = "The same seed gives the same picture. Default: random.")
    private @Nullable Long seed;

    @Option(
            names = "--noise",
            paramLabel = "FILE",
            description = "Initial noise, a safetensors file with guidance_noise [1, w*h, 64] and noise [1, W*H, 64].")
    private @Nullable Path noise;

    @Option(names = "--trace", paramLabel = "FILE", description = "Write states and latents to a safetensors file.")
    private @Nullable Path trace;

    @Option(
            names = "--from",
            paramLabel = "PNG",
            description = "Take prompt and all settings from a picture that this program made; options given beside it "
                    + "replace its own.")
    private @Nullable Path from;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "FILE",
            description = "The PNG to write. Default: scaledit.png.")
    private Path output = Path.of("scaledit.png");

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() throws Exception {
        checkFiles();
        ImageRequest request = request();
        ScaleDit.Builder builder = model();
        try (CleanInterrupt interrupt = new CleanInterrupt();
                ScaleDit scaleDit = builder.load();
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            scaleDit.generatePng(request, output, display);
        }
        return 0;
    }

    private void checkFiles() {
        requireExists("picture", from);
        requireExists("model", model);
        requireExists("VAE", vae);
        requireExists("guide image", guideImage);
        requireExists("noise", noise);
        if (loras != null) {
            loras.forEach(lora -> requireExists("LoRA", lora.file()));
        }
        Arguments.requireWritable(output);
        if (trace != null) {
            Arguments.requireWritable(trace);
        }
    }

    private static void requireExists(String what, @Nullable Path file) {
        if (file != null) {
            Arguments.requireExists(what, file);
        }
    }

    private ImageRequest request() {
        ImageRequest request = from == null ? null : ImageRequest.from(from);
        if (prompt != null) {
            request = request == null ? ImageRequest.of(prompt) : request.prompt(prompt);
        }
        if (request == null) {
            throw new ParameterException(spec.commandLine(), "No prompt given, expected PROMPT or --from PNG");
        }
        if (model == null && from == null && device != ScaleDit.Device.CUDA) {
            request = request.size(EMBEDDED_ON_CPU, EMBEDDED_ON_CPU);
        }
        request = width == null ? request : request.width(width);
        request = height == null ? request : request.height(height);
        request = ratio == null ? request : request.ratio(ratio);
        request = levels == null ? request : request.levels(levels);
        request = steps == null ? request : request.steps(steps);
        request = guidance == null ? request : request.guidance(guidance);
        request = negative == null ? request : request.negative(negative);
        request = trueGuidance == null ? request : request.trueGuidance(trueGuidance);
        request = guideSteps == null ? request : request.guideSteps(guideSteps);
        request = guideGuidance == null ? request : request.guideGuidance(guideGuidance);
        request = guideImage == null ? request : request.guideImage(guideImage);
        request = init == null ? request : request.init(init);
        request = strength == null ? request : request.strength(strength);
        request = window == null ? request : request.window(window);
        request = reach == null ? request : request.reach(reach);
        request = guidanceAttention == null ? request : request.guidanceAttention(guidanceAttention);
        request = guidanceText == null ? request : request.guidanceText(guidanceText == Switch.ON);
        request = guidanceMargin == null ? request : request.guidanceMargin(guidanceMargin);
        request = attention == null ? request : request.attention(attention);
        request = textTokens == null ? request : request.textTokens(textTokens);
        request = seed == null ? request : request.seed(seed);
        request = noise == null ? request : request.noise(noise);
        return trace == null ? request : request.trace(trace);
    }

    private ScaleDit.Builder model() {
        ScaleDit.Builder builder;
        if (model != null) {
            builder = from == null
                    ? ScaleDit.builder(model)
                    : ScaleDit.builderFrom(from).model(model);
        } else {
            builder = from == null ? ScaleDit.builderEmbedded() : ScaleDit.builderFrom(from);
        }
        if (loras != null) {
            builder.withoutLoras();
            loras.forEach(lora -> builder.lora(lora.file(), lora.scale()));
        }
        if (loraScope != null) {
            builder.loraScope(loraScope);
        }
        if (vae != null) {
            builder.vae(vae);
        }
        if (precision != null) {
            builder.precision(precision);
        }
        if (device != null) {
            builder.device(device);
        }
        if (memory != null) {
            builder.memory(memory);
        }
        return builder;
    }
}
