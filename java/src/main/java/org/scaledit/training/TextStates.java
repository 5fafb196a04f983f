package org.scaledit.training;

import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.file.ContentHash;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TextEncoders;

/** What a model's text encoders make of texts, each computed once and then in the cache. */
final class TextStates {
    private static final String STATES = "states";
    private static final String POOLED = "pooled";

    /** Of what is in an entry: another number where that changes. */
    private static final String FORMAT = "1";

    private final ModelDirectory model;
    private final int tokens;
    private final Placement placement;
    private final ExampleCache cache;
    private final String identity;

    /**
     * Reads a part of the encoders' files, for their hash.
     *
     * @param tokens T5's length
     * @param placement of the encoders
     */
    TextStates(ModelDirectory model, int tokens, Placement placement, ExampleCache cache) {
        this.model = model;
        this.tokens = tokens;
        this.placement = placement;
        this.cache = cache;
        this.identity = TrainingSet.identity(model, "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2");
    }

    private String key(String text) {
        return new ContentHash()
                .text("text " + FORMAT)
                .text(identity)
                .text(tokens + " " + placement.dtype())
                .text(text)
                .hex();
    }

    /** Of a text that the cache has; in the caller's scope. */
    Conditioning of(String text) {
        try (Safetensors entry = cache.open(key(text))) {
            return new Conditioning(entry.tensor(STATES), entry.tensor(POOLED));
        }
    }

    /** The texts that the cache lacks, each once, by their keys. */
    SortedMap<String, String> missing(Stream<String> texts) {
        SortedMap<String, String> missing = new TreeMap<>();
        texts.distinct().forEach(text -> {
            String key = key(text);
            if (!cache.has(key)) {
                missing.put(key, text);
            }
        });
        return missing;
    }

    /**
     * Computes what is missing. The encoders are loaded if they are needed, and released.
     *
     * @param inParts loads T5 block by block, for each text anew
     * @param computed runs after each text
     */
    void fill(SortedMap<String, String> missing, boolean inParts, Runnable computed) {
        if (missing.isEmpty()) {
            return;
        }
        try (TextEncoders encoders = TextEncoders.load(model, placement, inParts)) {
            missing.forEach((key, text) -> {
                Tensors.run(() -> {
                    Conditioning conditioning = encoders.encode(text, tokens);
                    cache.put(key, Map.of(STATES, conditioning.states(), POOLED, conditioning.pooled()));
                });
                computed.run();
            });
        }
    }
}
