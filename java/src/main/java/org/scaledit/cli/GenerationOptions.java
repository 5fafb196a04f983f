package org.scaledit.cli;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import org.scaledit.checkpoint.LoraFile;
import picocli.CommandLine.Option;

/** How pictures are made, whatever they show. An option that is not given leaves the request or the model as it was. */
final class GenerationOptions {
    @Option(
            names = "--lora",
            paramLabel = "FILE[:scale]",
            converter = LoraConverter.class,
            description = "LoRA, may be repeated. Scale: 1.")
    private @Nullable List<LoraFile> loras;

    @Option(
            names = "--vae",
            paramLabel = "DIR",
            description = "Another VAE than the checkpoint's (diffusers directory).")
    private @Nullable Path vae;

    @Option(
            names = "--ratio",
            paramLabel = "N",
            description =
                    "How many times smaller the guidance image is: 1, 2, 4 or 8. Default: 4; where a plain size is given, or the"
                            + " model says one, the ratio with which the first guidance image is nearest to it. With 0 there is"
                            + " none, and every window paints for itself: to see what guidance does.")
    private @Nullable Integer ratio;

    @Option(
            names = "--levels",
            paramLabel = "N",
            description =
                    "With 2 the result guides a picture that is larger by the ratio on each side, with 3 that one "
                            + "guides the next; the last is written. With 0 plain FLUX paints the picture, as it paints guidance"
                            + " images. Default: 1.")
    private @Nullable Integer levels;

    @Option(
            names = "--plain-size",
            paramLabel = "N",
            description =
                    "Longer side, in pixels, of pictures that plain FLUX paints well. A guidance image of more than"
                            + " twice that is itself painted under one that is smaller by the ratio, and so on, where sizes are"
                            + " multiples that allow it. Default: any.")
    private @Nullable Integer plainSize;

    @Option(names = "--steps", paramLabel = "N", description = "High-resolution steps. Default: 28.")
    private @Nullable Integer steps;

    @Option(
            names = "--guidance",
            paramLabel = "G",
            description =
                    "Guidance of the high-resolution pass; ignored by a model without guidance embedder. Default: 4.5.")
    private @Nullable Double guidance;

    @Option(
            names = "--clip-prompt",
            paramLabel = "TEXT",
            description = "What CLIP's encoder is told in place of the prompt. Default: the prompt.")
    private @Nullable String clipPrompt;

    @Option(
            names = "--t5-prompt",
            paramLabel = "TEXT",
            description = "Likewise T5's, diffusers' prompt_2. Default: the prompt.")
    private @Nullable String t5Prompt;

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

    @Option(
            names = "--guide-guidance",
            paramLabel = "G",
            description = "Guidance of the guidance image; ignored by a model without guidance embedder. Default: 3.5.")
    private @Nullable Double guideGuidance;

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
                    "float32, bfloat16, or fp8 (the transformer's large products, on a GPU). Default: bfloat16 on "
                            + "a GPU and on a CPU that multiplies it (AVX512_BF16), else float32.")
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
            description =
                    "Length of T5's text. Default: 512, or 256 without guidance embedder, or what the model's tokenizer"
                            + " allows if that is less.")
    private @Nullable Integer textTokens;

    void checkFiles() {
        if (vae != null) {
            Arguments.requireExists("VAE", vae);
        }
        if (loras != null) {
            loras.forEach(lora -> Arguments.requireExists("LoRA", lora.file()));
        }
    }

    /** Where the model computes. */
    ScaleDit.Device device() {
        return device == null ? ScaleDit.Device.CPU : device;
    }

    /** The request with what was given. */
    ImageRequest applied(ImageRequest given) {
        ImageRequest request = given;
        request = ratio == null ? request : request.ratio(ratio);
        request = levels == null ? request : request.levels(levels);
        request = plainSize == null ? request : request.plainSize(plainSize);
        request = steps == null ? request : request.steps(steps);
        request = guidance == null ? request : request.guidance(guidance);
        request = clipPrompt == null ? request : request.clipPrompt(clipPrompt);
        request = t5Prompt == null ? request : request.t5Prompt(t5Prompt);
        request = negative == null ? request : request.negative(negative);
        request = trueGuidance == null ? request : request.trueGuidance(trueGuidance);
        request = guideSteps == null ? request : request.guideSteps(guideSteps);
        request = guideGuidance == null ? request : request.guideGuidance(guideGuidance);
        request = init == null ? request : request.init(init);
        request = strength == null ? request : request.strength(strength);
        request = window == null ? request : request.window(window);
        request = reach == null ? request : request.reach(reach);
        request = guidanceAttention == null ? request : request.guidanceAttention(guidanceAttention);
        request = guidanceText == null ? request : request.guidanceText(guidanceText == Switch.ON);
        request = guidanceMargin == null ? request : request.guidanceMargin(guidanceMargin);
        request = attention == null ? request : request.attention(attention);
        request = textTokens == null ? request : request.textTokens(textTokens);
        if (request.levels() == 0) {
            requirePlain();
        }
        if (request.ratio() == 0) {
            requireUnguided();
        }
        if (init == ImageRequest.Init.NOISE && strength != null) {
            throw new IllegalArgumentException(
                    "--strength is given with init noise, expected init guidance, of whose steps it is a share");
        }
        if (request.guideImage().isPresent()) {
            Map<String, @Nullable Object> ofPainted = new LinkedHashMap<>();
            ofPainted.put("guide-steps", guideSteps);
            ofPainted.put("guide-guidance", guideGuidance);
            requireNone(ofPainted, "with a guidance image, expected one of them: yours is taken as it is");
        }
        if (plainSize != null && request.guideImage().isPresent()) {
            throw new IllegalArgumentException(
                    "--plain-size is given with a guidance image, expected one of them: yours is taken as it is");
        }
        return request;
    }

    /** What acts on high resolution alone would be ignored. */
    private void requirePlain() {
        Map<String, @Nullable Object> ofHighResolution = new LinkedHashMap<>();
        ofHighResolution.put("ratio", ratio);
        ofHighResolution.put("plain-size", plainSize);
        ofHighResolution.put("steps", steps);
        ofHighResolution.put("guidance", guidance);
        ofHighResolution.put("init", init);
        ofHighResolution.put("strength", strength);
        ofHighResolution.put("window", window);
        ofHighResolution.put("reach", reach);
        ofHighResolution.put("guidance-attention", guidanceAttention);
        ofHighResolution.put("guidance-text", guidanceText);
        ofHighResolution.put("guidance-margin", guidanceMargin);
        ofHighResolution.put("lora", loras);
        ofHighResolution.put("lora-scope", loraScope);
        requireNone(
                ofHighResolution,
                "with 0 levels, expected 1 or more: a picture of plain FLUX has no high-resolution pass");
    }

    /** What acts on the guidance image alone would be ignored. */
    private void requireUnguided() {
        Map<String, @Nullable Object> ofGuidance = new LinkedHashMap<>();
        ofGuidance.put("plain-size", plainSize);
        ofGuidance.put("guide-steps", guideSteps);
        ofGuidance.put("guide-guidance", guideGuidance);
        ofGuidance.put("strength", strength);
        ofGuidance.put("guidance-attention", guidanceAttention);
        ofGuidance.put("guidance-text", guidanceText);
        ofGuidance.put("guidance-margin", guidanceMargin);
        if (loraScope == null || loraScope == ScaleDit.LoraScope.GUIDANCE) {
            ofGuidance.put("lora", loras); // acts on guidance tokens alone
            ofGuidance.put("lora-scope", loraScope);
        }
        requireNone(ofGuidance, "with ratio 0, expected 1, 2, 4 or 8: there is no guidance image");
    }

    private static void requireNone(Map<String, @Nullable Object> options, String why) {
        options.forEach((name, value) -> {
            if (value != null) {
                throw new IllegalArgumentException("--" + name + " is given " + why);
            }
        });
    }

    /** Opens the model with what was given. */
    void apply(ScaleDit.Builder builder) {
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
    }
}
