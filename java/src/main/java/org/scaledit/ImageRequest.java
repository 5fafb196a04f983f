package org.scaledit;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.scaledit.sampling.TokenGrid;

/**
 * What picture is wanted. Immutable: every setter returns a changed copy.
 *
 * <p>What is not set is as the model says that it paints best ({@code generation_config.json} in its directory), and where it
 * says nothing as in the paper: 4096 × 4096 pixels, 28 steps at guidance 4.5 under a guidance image of a quarter of the
 * size (28 steps, guidance 3.5), windows of 16 × 16 tokens.
 */
public final class ImageRequest implements Cloneable {

    /** What the high-resolution pass starts from. */
    public enum Init {
        /** Pure noise (the paper). */
        NOISE,
        /** The enlarged guidance image, noised (the first released code); see {@link ImageRequest#strength(double)}. */
        GUIDANCE
    }

    /** Whom the guidance tokens attend to. */
    public enum GuidanceAttention {
        /** All guidance tokens. */
        GLOBAL,
        /** The guidance cells within one cell of their own. */
        LOCAL
    }

    /** What computes attention. */
    public enum AttentionKind {
        /** The native core: {@link #NATIVE_EXACT} at float32 precision, {@link #NATIVE_INT8} at bfloat16. */
        NATIVE,
        /** The native core without quantisation: float32 arithmetic on the CPU, bfloat16 on a GPU. */
        NATIVE_EXACT,
        /** The native core with queries and keys in INT8; on a GPU values in FP8, or FP16 before Ada. */
        NATIVE_INT8,
        /** Torch's attention under a dense boolean mask: the slow twin that the native core is compared with. */
        DENSE
    }

    private String prompt = "";
    private @Nullable String clipPrompt;
    private @Nullable String t5Prompt;
    private @Nullable String negative;
    private OptionalDouble trueGuidance = OptionalDouble.empty();
    private int width = 4096;
    private int height = 4096;
    private OptionalLong seed = OptionalLong.empty();
    private OptionalInt ratio = OptionalInt.empty();
    private OptionalInt chosenRatio = OptionalInt.empty(); // for a picture whose settings are taken
    private int levels = 1;
    private int plainSize = TokenGrid.MOST_PIXELS;
    private int steps = 28;
    private double guidance = 4.5;
    private int guideSteps = 28;
    private double guideGuidance = 3.5;
    private @Nullable Path guideImage;
    private Init init = Init.NOISE;
    private double strength = 18 / 28.0;
    private boolean givesStrength;
    private boolean givesNegative;
    private boolean givesTrueGuidance;
    private int window = 16;
    private int reach = 1;
    private GuidanceAttention guidanceAttention = GuidanceAttention.GLOBAL;
    private boolean guidanceText = true;
    private int guidanceMargin = 3;
    private AttentionKind attention = AttentionKind.NATIVE;
    private OptionalInt textTokens = OptionalInt.empty();
    private @Nullable Path noise;
    private @Nullable Path trace;

    private List<Consumer<ImageRequest>> changes = List.of(); // everything that was set, in this order

    private ImageRequest() {}

    /** A request for this prompt, everything else at its default. */
    public static ImageRequest of(String prompt) {
        return new ImageRequest().prompt(prompt);
    }

    /** The request that a picture of this program was made from, with its seed, read from the PNG's text chunks. */
    public static ImageRequest from(Path png) {
        return Settings.read(png).request();
    }

    /** What the picture shows. */
    public ImageRequest prompt(String prompt) {
        return with(copy -> copy.prompt = checked("prompt", prompt));
    }

    /**
     * What CLIP's encoder is told in place of the prompt: a summary of all of it, where T5's has a state for each token.
     * Diffusers names CLIP's {@code prompt} and T5's {@code prompt_2}. Default: the prompt.
     */
    public ImageRequest clipPrompt(String prompt) {
        return with(copy -> copy.clipPrompt = checked("CLIP prompt", prompt));
    }

    /** What T5's encoder is told in place of the prompt, see {@link #clipPrompt}. Default: the prompt. */
    public ImageRequest t5Prompt(String prompt) {
        return with(copy -> copy.t5Prompt = checked("T5 prompt", prompt));
    }

    /**
     * What the picture is not to show: classifier-free guidance as diffusers has it for FLUX, by {@link #trueGuidance}.
     * Both are given, or neither, unless the model or the picture that the request is from has a true guidance of more than 1.
     * Default: none.
     */
    public ImageRequest negative(String prompt) {
        return with(copy -> {
            copy.negative = checked("negative prompt", prompt);
            copy.givesNegative = true;
        });
    }

    /**
     * How strongly the picture is led away from the {@link #negative} prompt (diffusers' {@code true_cfg_scale} S), in the
     * guidance image and in the high-resolution passes: each step's velocity is {@code negative + S · (positive −
     * negative)}, so it takes two passes of the transformer, one after the other. At 1 the negative prompt says nothing, and
     * it is one. Default: none.
     */
    public ImageRequest trueGuidance(double scale) {
        require(scale >= 1 && Double.isFinite(scale), "true guidance", scale, "a number of 1 or more");
        return with(copy -> {
            copy.trueGuidance = OptionalDouble.of(scale);
            copy.givesTrueGuidance = true;
        });
    }

    /** Pixels, each a multiple of 16 from 16 to 65,536. Default 4096 × 4096. */
    public ImageRequest size(int width, int height) {
        TokenGrid.ofPixels(width, height);
        return choosingRatio(copy -> {
            copy.width = width;
            copy.height = height;
        });
    }

    /** Likewise, the height as it was. */
    public ImageRequest width(int width) {
        TokenGrid.ofPixels(width, height);
        return choosingRatio(copy -> copy.width = width);
    }

    /** Likewise, the width as it was. */
    public ImageRequest height(int height) {
        TokenGrid.ofPixels(width, height);
        return choosingRatio(copy -> copy.height = height);
    }

    /**
     * The same seed, size and settings give the same picture. Default: a new one for every generation. It has no effect beside
     * {@link #noise}, which a picture's request ({@link #from}) may have.
     */
    public ImageRequest seed(long seed) {
        return with(copy -> copy.seed = OptionalLong.of(seed));
    }

    /**
     * How many times smaller than the picture the guidance image is on each side (ρ): 1, 2, 4 or 8. Default 4; with a {@link
     * #plainSize} the one whose first guidance image is nearest to that. With 0 there is none, and every window paints for itself
     * what the text says: to see what guidance does. One that was chosen for a picture is kept by {@link #from} and
     * chosen anew when size, levels, plain size or guide image are set.
     */
    public ImageRequest ratio(int ratio) {
        requireRatio(ratio);
        return choosingRatio(copy -> copy.ratio = OptionalInt.of(ratio));
    }

    /** A picture's settings name one whether or not it was set: if not, it stays while what it was chosen by does. */
    ImageRequest chosenRatio(int ratio) {
        requireRatio(ratio);
        return with(copy -> copy.chosenRatio = OptionalInt.of(ratio));
    }

    private static void requireRatio(int ratio) {
        require(
                ratio == 0 || ratio == 1 || ratio == 2 || ratio == 4 || ratio == 8,
                "ratio",
                ratio,
                "1, 2, 4 or 8, or 0 for no guidance image");
    }

    /**
     * Recursion: with 2 levels the picture of the requested size guides one that is larger by the ratio on each side,
     * which is the result; with 3 that one guides the next, and so on. With 0 the guidance image, of the requested size, is
     * the result: a picture of plain FLUX. Default 1.
     */
    public ImageRequest levels(int levels) {
        require(levels >= 0 && levels <= 8, "levels", levels, "0 to 8");
        return choosingRatio(copy -> copy.levels = levels);
    }

    /**
     * The longer side, in pixels, of pictures that plain FLUX paints well. A guidance image of more than twice that is itself
     * painted under one that is smaller by the ratio, and so on: as many {@link #levels} come before the first one, where sizes
     * are multiples that allow it. Not with a {@link #guideImage}. Default: any size.
     */
    public ImageRequest plainSize(int pixels) {
        require(
                pixels >= 16 && pixels <= TokenGrid.MOST_PIXELS,
                "plain size",
                pixels,
                "16 to " + TokenGrid.MOST_PIXELS);
        return choosingRatio(copy -> copy.plainSize = pixels);
    }

    /** Sampling steps of the high-resolution pass. Default 28. */
    public ImageRequest steps(int steps) {
        require(steps >= 1 && steps <= 1000, "steps", steps, "1 to 1000");
        return with(copy -> copy.steps = steps);
    }

    /** Distilled guidance of the high-resolution pass; ignored by checkpoints without a guidance embedder. Default 4.5. */
    public ImageRequest guidance(double guidance) {
        require(guidance >= 0 && Double.isFinite(guidance), "guidance", guidance, "a number of 0 or more");
        return with(copy -> copy.guidance = guidance);
    }

    /** Sampling steps of the guidance image. Default 28. */
    public ImageRequest guideSteps(int steps) {
        require(steps >= 1 && steps <= 1000, "guide steps", steps, "1 to 1000");
        return with(copy -> copy.guideSteps = steps);
    }

    /** Distilled guidance of the guidance image; ignored by checkpoints without a guidance embedder. Default 3.5. */
    public ImageRequest guideGuidance(double guidance) {
        require(guidance >= 0 && Double.isFinite(guidance), "guide guidance", guidance, "a number of 0 or more");
        return with(copy -> copy.guideGuidance = guidance);
    }

    /** A picture of the user's (PNG or JPEG) in place of a generated guidance image. */
    public ImageRequest guideImage(Path image) {
        return choosingRatio(copy -> copy.guideImage = Objects.requireNonNull(image, "guide image"));
    }

    /** What the high-resolution pass starts from. Default: noise. */
    public ImageRequest init(Init init) {
        return with(copy -> copy.init = Objects.requireNonNull(init, "init"));
    }

    /**
     * With {@link Init#GUIDANCE}, the share of the steps that run: the last {@code round(strength · steps)}, ties to
     * even; more than 0, at most 1. Default 18/28.
     */
    public ImageRequest strength(double strength) {
        require(strength > 0 && strength <= 1, "strength", strength, "more than 0 and at most 1");
        return with(copy -> {
            copy.strength = strength;
            copy.givesStrength = true;
        });
    }

    /** Tokens along a window's side: 16, 32 or 64. Default 16. */
    public ImageRequest window(int window) {
        require(window == 16 || window == 32 || window == 64, "window", window, "16, 32 or 64");
        return with(copy -> copy.window = window);
    }

    /** Cells of 8 × 8 tokens around its own that a token sees: 0 is the own window alone. Default 1. */
    public ImageRequest reach(int reach) {
        require(reach >= 0 && reach <= 512, "reach", reach, "0 to 512");
        return with(copy -> copy.reach = reach);
    }

    /** Whom the guidance tokens attend to. Default: all guidance tokens. */
    public ImageRequest guidanceAttention(GuidanceAttention attention) {
        return with(copy -> copy.guidanceAttention = Objects.requireNonNull(attention, "guidance attention"));
    }

    /**
     * Whether the guidance tokens attend to the text, too. Where they do not, their keys and values are computed in the
     * first step of the high-resolution pass and kept: each later step is shorter by them, for memory that a GPU has to
     * have (1.4 GiB at 4096² with FLUX.1). Default true (the paper).
     */
    public ImageRequest guidanceText(boolean attended) {
        return with(copy -> copy.guidanceText = attended);
    }

    /** Guidance tokens around a cell's own region whose cells it attends to. Default 3. */
    public ImageRequest guidanceMargin(int margin) {
        require(margin >= 0 && margin <= 4096, "guidance margin", margin, "0 to 4096");
        return with(copy -> copy.guidanceMargin = margin);
    }

    /** What computes attention. Default: the native core. */
    public ImageRequest attention(AttentionKind attention) {
        return with(copy -> copy.attention = Objects.requireNonNull(attention, "attention"));
    }

    /**
     * T5's length in tokens. Default 512, or 256 for a checkpoint without guidance embedder (schnell), or what its tokenizer
     * allows ({@code model_max_length}) if that is less.
     */
    public ImageRequest textTokens(int tokens) {
        require(tokens >= 1 && tokens <= 4096, "text tokens", tokens, "1 to 4096");
        return with(copy -> copy.textTokens = OptionalInt.of(tokens));
    }

    /**
     * Initial noise from a safetensors file in place of the seed's: {@code guidance_noise} [1, w·h, 64] and
     * {@code noise} [1, W·H, 64], packed, in raster order, float32; for the further levels of a recursion {@code
     * noise_level_2} and so on. Levels that {@link #plainSize} puts before the first one count.
     */
    public ImageRequest noise(Path safetensors) {
        return with(copy -> copy.noise = Objects.requireNonNull(safetensors, "noise"));
    }

    /**
     * Writes what was computed on the way to a safetensors file: {@code text_states} [1, T, d], {@code text_pooled} [1, p],
     * under true guidance {@code negative_text_states} and {@code negative_text_pooled}, {@code guidance_latents} [1, w·h, 64], {@code sigmas} [steps + 1], {@code latents_000} (before the first step),
     * {@code latents_001} … [1, W·H, 64] and {@code image} [3, 16H, 16W] in −1 … 1 before rounding, all float32, tokens
     * in raster order. What further levels of a recursion add is named {@code level_2.latents_000} and so on.
     */
    public ImageRequest trace(Path safetensors) {
        return with(copy -> copy.trace = Objects.requireNonNull(safetensors, "trace"));
    }

    public String prompt() {
        return prompt;
    }

    public Optional<String> clipPrompt() {
        return Optional.ofNullable(clipPrompt);
    }

    public Optional<String> t5Prompt() {
        return Optional.ofNullable(t5Prompt);
    }

    public Optional<String> negative() {
        return Optional.ofNullable(negative);
    }

    public OptionalDouble trueGuidance() {
        return trueGuidance;
    }

    /** The negative prompt where it has an effect. */
    Optional<String> effectiveNegative() {
        return negative().filter(text -> trueGuidance.orElse(1) > 1);
    }

    public int width() {
        return width;
    }

    public int height() {
        return height;
    }

    public OptionalLong seed() {
        return seed;
    }

    public int ratio() {
        if (chosenRatio.isPresent()) {
            return chosenRatio.getAsInt();
        }
        boolean plainSizeDecides = levels > 0 && guideImage == null && plainSize < TokenGrid.MOST_PIXELS;
        return ratio.orElseGet(
                () -> plainSizeDecides ? TokenGrid.ofPixels(width, height).ratioFor(plainSize) : TokenGrid.RATIO);
    }

    /** Whether the ratio is one that nobody has set. */
    boolean choosesRatio() {
        return chosenRatio.isPresent() || ratio.isEmpty();
    }

    public int levels() {
        return levels;
    }

    public int plainSize() {
        return plainSize;
    }

    public int steps() {
        return steps;
    }

    public double guidance() {
        return guidance;
    }

    public int guideSteps() {
        return guideSteps;
    }

    public double guideGuidance() {
        return guideGuidance;
    }

    public Optional<Path> guideImage() {
        return Optional.ofNullable(guideImage);
    }

    public Init init() {
        return init;
    }

    public double strength() {
        return strength;
    }

    public int window() {
        return window;
    }

    public int reach() {
        return reach;
    }

    public GuidanceAttention guidanceAttention() {
        return guidanceAttention;
    }

    public boolean guidanceText() {
        return guidanceText;
    }

    public int guidanceMargin() {
        return guidanceMargin;
    }

    public AttentionKind attention() {
        return attention;
    }

    public OptionalInt textTokens() {
        return textTokens;
    }

    public Optional<Path> noise() {
        return Optional.ofNullable(noise);
    }

    public Optional<Path> trace() {
        return Optional.ofNullable(trace);
    }

    /** All settings, as JSON in one line: those that a picture carries. */
    @Override
    public String toString() {
        return Settings.text(this);
    }

    /** A prompt goes into the PNG's text, where some characters cannot stand. */
    private static String checked(String name, String prompt) {
        Objects.requireNonNull(prompt, name);
        int nul = prompt.indexOf('\0');
        require(nul < 0, "character " + nul + " of the " + name, "NUL", "text");
        require(StandardCharsets.UTF_8.newEncoder().canEncode(prompt), name, "half a surrogate pair", "valid Unicode");
        return prompt;
    }

    /** A picture that was made without a negative prompt is made so again, whatever the model would take. */
    ImageRequest withoutNegative() {
        return with(copy -> {
            copy.negative = null;
            copy.trueGuidance = OptionalDouble.empty();
        });
    }

    /** A picture's settings name what was in force, whoever set it: what has no effect beside the rest is no mistake. */
    ImageRequest recorded() {
        return with(copy -> {
            copy.givesStrength = false;
            copy.givesNegative = false;
            copy.givesTrueGuidance = false;
        });
    }

    /**
     * What was set here, and for everything else what the other request has.
     *
     * @throws IllegalArgumentException if something was set here which would be ignored
     */
    ImageRequest over(ImageRequest defaults) {
        ImageRequest result = defaults;
        for (Consumer<ImageRequest> change : changes) {
            result = result.with(change);
        }
        if (givesStrength && result.init == Init.NOISE) {
            throw new IllegalArgumentException(
                    "strength is given with init noise, expected init guidance, of whose steps it is a share");
        }
        boolean ignored = givesNegative
                && !givesTrueGuidance
                && result.effectiveNegative().isEmpty();
        if (ignored || (result.negative != null && result.trueGuidance.isEmpty())) {
            throw new IllegalArgumentException(
                    "a negative prompt is given without true guidance, expected both or neither");
        }
        if (result.negative == null && result.trueGuidance.isPresent()) {
            throw new IllegalArgumentException(
                    "true guidance is given without a negative prompt, expected both or neither");
        }
        return result;
    }

    /** A change of the ratio, or of what it is chosen by. */
    private ImageRequest choosingRatio(Consumer<ImageRequest> change) {
        return with(change.andThen(copy -> copy.chosenRatio = OptionalInt.empty()));
    }

    private ImageRequest with(Consumer<ImageRequest> change) {
        try {
            ImageRequest copy = (ImageRequest) clone();
            change.accept(copy);
            copy.changes = Stream.concat(changes.stream(), Stream.of(change)).toList();
            return copy;
        } catch (CloneNotSupportedException e) {
            throw new AssertionError(e);
        }
    }

    private static void require(boolean condition, String name, Object given, String expected) {
        if (!condition) {
            throw new IllegalArgumentException(name + " is " + given + ", expected " + expected);
        }
    }
}
