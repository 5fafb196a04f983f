package org.scaledit.text;

import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Both tokenizers of a model, and both of its encoders with weights in training: what {@link TextEncoders} makes of a prompt,
 * of several at once and with its graph.
 */
public final class TrainedTextEncoders implements AutoCloseable {
    private final ClipTokenizer clipTokenizer;
    private final T5Tokenizer t5Tokenizer;
    private final ClipTextEncoder clip;
    private final T5Encoder t5;

    /**
     * @param model has the encoders' configurations and the tokenizers
     * @param clip weights by transformers' names: leaves of torch's autograd, which stay the caller's; {@code t5} likewise
     * @param trained whether T5's are {@link TrainedQueries}; if not, both are as files have them
     */
    public TrainedTextEncoders(
            ModelDirectory model,
            Map<String, Tensor> clip,
            Map<String, Tensor> t5,
            Placement placement,
            boolean trained) {
        this.clip = ClipTextEncoder.of(model, clip, placement);
        this.t5 = T5Encoder.of(model, t5, placement, trained);
        this.clipTokenizer = ClipTokenizer.load(model.part("tokenizer"));
        try {
            this.t5Tokenizer = T5Tokenizer.load(model.part("tokenizer_2"));
        } catch (RuntimeException | Error e) {
            clipTokenizer.close();
            throw e;
        }
    }

    /** Name and shape of every tensor of a CLIP text model with this configuration. */
    public static Map<String, long[]> expectedClipTensors(Config config) {
        return ClipTextEncoder.expectedTensors(config);
    }

    /** Likewise of a T5 encoder. */
    public static Map<String, long[]> expectedT5Tensors(Config config) {
        return T5Encoder.expectedTensors(config);
    }

    /**
     * Some texts as both encoders take them.
     *
     * @param clip ids, {@code [texts][CLIP's tokens]}
     * @param t5 ids, {@code [texts][text tokens]}
     */
    public record Tokens(long[][] clip, long[][] t5) {}

    /**
     * Of as many texts for each encoder.
     *
     * @param textTokens T5's length
     */
    public Tokens tokens(List<String> clipTexts, List<String> t5Texts, int textTokens) {
        return new Tokens(
                clipTexts.stream()
                        .map(text -> clipTokenizer.ids(text, clip.tokens()))
                        .toArray(long[][]::new),
                t5Texts.stream().map(text -> t5Tokenizer.ids(text, textTokens)).toArray(long[][]::new));
    }

    /** Tensors of the caller's scope: {@code [texts, text tokens, joint width]} and {@code [texts, pooled width]}. */
    public Conditioning encode(Tokens tokens) {
        return new Conditioning(
                Tensors.scoped(() -> t5.encode(tokens.t5)), Tensors.scoped(() -> clip.encode(tokens.clip)));
    }

    /** Leaves the weights as they are. */
    @Override
    public void close() {
        clip.close();
        t5.close();
        clipTokenizer.close();
        t5Tokenizer.close();
    }
}
