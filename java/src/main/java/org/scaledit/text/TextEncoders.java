package org.scaledit.text;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.function.Consumer;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Placement;

/** A prompt's whole way: both tokenizers and both encoders of a FLUX.1 checkpoint. */
public final class TextEncoders implements AutoCloseable {
    private final Deque<Runnable> closing = new ArrayDeque<>();
    private final ClipTokenizer clipTokenizer;
    private final T5Tokenizer t5Tokenizer;
    private final ClipTextEncoder clip;
    private final T5Encoder t5;

    private TextEncoders(ModelDirectory model, Placement placement, boolean inParts) {
        try {
            clipTokenizer = own(ClipTokenizer.load(model.part("tokenizer")), ClipTokenizer::close);
            t5Tokenizer = own(T5Tokenizer.load(model.part("tokenizer_2")), T5Tokenizer::close);
            clip = own(ClipTextEncoder.load(model, placement), ClipTextEncoder::close);
            t5 = own(T5Encoder.load(model, placement, inParts), T5Encoder::close);
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    /** @throws org.scaledit.checkpoint.CheckpointException if a part is missing, damaged or of another kind */
    public static TextEncoders load(ModelDirectory model, Placement placement) {
        return load(model, placement, false);
    }

    /**
     * The same with a choice for memory.
     *
     * @param inParts loads the weights of one of T5's blocks at a time and frees them after it, for each prompt anew: of
     *     T5-XXL 0.4 GB in bfloat16 instead of 9.5
     */
    public static TextEncoders load(ModelDirectory model, Placement placement, boolean inParts) {
        return new TextEncoders(model, placement, inParts);
    }

    /**
     * Refuses encoders that {@link #load} would refuse, without reading a weight or a tokenizer.
     *
     * @throws org.scaledit.checkpoint.CheckpointException if a part is missing, damaged or of another kind
     */
    public static void check(ModelDirectory model) {
        model.part("tokenizer");
        model.part("tokenizer_2");
        ClipTextEncoder.check(model);
        T5Encoder.check(model);
        mostTokens(model);
    }

    /**
     * How many of T5's tokens the model's tokenizer allows ({@code model_max_length}); any number if it says nothing. FLUX.1's
     * says 512.
     *
     * @throws org.scaledit.checkpoint.CheckpointException if it allows none
     */
    public static int mostTokens(ModelDirectory model) {
        Path file = model.part("tokenizer_2").resolve("tokenizer_config.json");
        if (Files.notExists(file)) {
            return Integer.MAX_VALUE;
        }
        Config config = Config.read(file);
        double most = config.number("model_max_length", Integer.MAX_VALUE);
        config.require(most >= 1, "model_max_length", most, "1 or more");
        return (int) most; // some say 1e30
    }

    /** Width of {@link Conditioning#states}. */
    public int jointWidth() {
        return t5.width();
    }

    /** Width of {@link Conditioning#pooled}. */
    public int pooledWidth() {
        return clip.width();
    }

    /**
     * Encodes a prompt of any length: what exceeds CLIP's tokens or T5's is cut off.
     *
     * @param textTokens T5's length: 512, or 256 for a checkpoint without a guidance embedder, or {@link #mostTokens} if that
     *     is less
     * @return tensors of the caller's scope, in the placement of the encoders
     */
    public Conditioning encode(String prompt, int textTokens) {
        return encode(prompt, prompt, textTokens);
    }

    /** Likewise, each encoder what it is told. */
    public Conditioning encode(String clipPrompt, String t5Prompt, int textTokens) {
        if (textTokens < 1) {
            throw new IllegalArgumentException("text tokens are " + textTokens + ", expected at least 1");
        }
        return new Conditioning(
                t5.encode(t5Tokenizer.ids(t5Prompt, textTokens)),
                clip.encode(clipTokenizer.ids(clipPrompt, clip.tokens())));
    }

    private <P> P own(P part, Consumer<P> close) {
        closing.push(() -> close.accept(part));
        return part;
    }

    @Override
    public void close() {
        while (!closing.isEmpty()) {
            closing.pop().run();
        }
    }
}
