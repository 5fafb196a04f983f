package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.LoraScope;

/**
 * What decides, beside model and data, which LoRA comes out of so many steps.
 *
 * @param resolution pictures have about {@code resolution²} pixels: a multiple of 16 times the ratio
 * @param ratio how many times smaller the guidance image is on each side: 1, 2, 4 or 8
 * @param rank of each layer's addition, 1 to 1024
 * @param alpha the addition is multiplied by {@code alpha / rank}
 * @param targets the layers that get one
 * @param scope the tokens that it acts on
 * @param textTokens T5's length; empty for the model's own, or what its tokenizer allows if that is less
 * @param accumulate samples of a step, whose gradients' mean the optimizer sees
 * @param learningRate Prodigy's factor, or AdamW's step size
 * @param clipNorm gradients that are longer in all are shortened to this
 * @param average decay of the matrices' moving average, 0 to 0.999999: that is what is written then, and samples are painted with
 * @param attention what computes attention
 */
public record Recipe(
        int resolution,
        int ratio,
        int rank,
        double alpha,
        LoraTargets targets,
        Scope scope,
        OptionalInt textTokens,
        int accumulate,
        OptimizerKind optimizer,
        double learningRate,
        Timesteps timesteps,
        OptionalDouble clipNorm,
        OptionalDouble average,
        AttentionKind attention,
        long seed) {

    /** Which tokens the LoRA acts on; a picture is made with the same one. */
    public enum Scope {
        /** The guidance tokens alone (the paper). */
        GUIDANCE,
        /** All tokens that pass through a layer. */
        ALL,
        /** Q, K and V of image and guidance tokens, everything else of guidance tokens (the released code). */
        RELEASED;

        LoraScope ofTransformer() {
            return switch (this) {
                case GUIDANCE -> LoraScope.GUIDANCE;
                case ALL -> LoraScope.ALL;
                case RELEASED -> LoraScope.RELEASED;
            };
        }
    }

    /** What changes the LoRA along its gradients. */
    public enum OptimizerKind {
        PRODIGY,
        ADAMW;

        /** The paper's for Prodigy, which finds the step size itself. */
        public double defaultLearningRate() {
            return this == PRODIGY ? 1 : 1e-4;
        }
    }

    /** How noise levels are distributed. */
    public enum Timesteps {
        /** The sigmoid of standard normal numbers (the released code). */
        LOGIT_NORMAL,
        /** Uniform between 0 and 1 (the paper). */
        UNIFORM;

        /** The noise level that one is below with this probability, 0 … 1. */
        public double quantile(double probability) {
            return switch (this) {
                case UNIFORM -> probability;
                case LOGIT_NORMAL ->
                    Tensors.compute(() -> torch.special_ndtri(torch.scalar_to_tensor(new Scalar(probability)))
                            .sigmoid()
                            .item_double());
            };
        }
    }

    /** What computes attention and its gradients. */
    public enum AttentionKind {
        /** The native core: in float32 on a CPU, in bfloat16 on a GPU. */
        NATIVE,
        /** Torch under a boolean mask: the slow twin. */
        DENSE
    }

    public Recipe {
        require(ratio == 1 || ratio == 2 || ratio == 4 || ratio == 8, "ratio", ratio, "1, 2, 4 or 8");
        Bucket.of(resolution, ratio); // refuses a resolution that has none
        require(rank >= 1 && rank <= 1024, "rank", rank, "1 to 1024");
        require(alpha > 0 && Double.isFinite(alpha), "alpha", alpha, "a number above 0");
        if (textTokens.isPresent()) {
            requireTextTokens(textTokens.getAsInt());
        }
        require(accumulate >= 1 && accumulate <= 4096, "accumulate", accumulate, "1 to 4096");
        boolean rate = learningRate > 0 && Double.isFinite(learningRate);
        require(rate, "learning rate", learningRate, "a number above 0");
        if (clipNorm.isPresent()) {
            require(clipNorm.getAsDouble() > 0, "clip norm", clipNorm.getAsDouble(), "a number above 0");
        }
        if (average.isPresent()) {
            double decay = average.getAsDouble();
            require(decay >= 0 && decay <= 0.999999, "average", decay, "0 to 0.999999");
        }
    }

    /** Who attends to whom: as a picture is made by default. */
    AttentionWindow window() {
        return AttentionWindow.ofRatio(ratio);
    }

    static void requireTextTokens(int tokens) {
        require(tokens >= 1 && tokens <= 4096, "text tokens", tokens, "1 to 4096");
    }

    static void require(boolean condition, String name, Number given, String expected) {
        if (!condition) {
            throw new IllegalArgumentException(name + " is " + number(given) + ", expected " + expected);
        }
    }

    /** By the names of the command line's options. */
    Map<String, String> settings(int lengthOfText) {
        Map<String, String> settings = new LinkedHashMap<>();
        settings.put("resolution", number(resolution));
        settings.put("ratio", number(ratio));
        settings.put("rank", number(rank));
        settings.put("alpha", number(alpha));
        settings.put("targets", name(targets));
        settings.put("lora-scope", name(scope));
        settings.put("text-tokens", number(lengthOfText));
        settings.put("accumulate", number(accumulate));
        settings.put("optimizer", name(optimizer));
        settings.put("learning-rate", number(learningRate));
        settings.put("timesteps", name(timesteps));
        settings.put("clip-norm", clipNorm.isPresent() ? number(clipNorm.getAsDouble()) : "none");
        if (average.isPresent()) {
            settings.put("average", number(average.getAsDouble()));
        }
        settings.put("attention", name(attention));
        settings.put("seed", number(seed));
        return settings;
    }

    private static String number(Number value) {
        return value instanceof Double real && real == Math.rint(real) && Math.abs(real) < 1e15
                ? String.valueOf(real.longValue())
                : String.valueOf(value);
    }

    private static String name(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT).replace('_', '-');
    }
}
