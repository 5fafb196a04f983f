package org.scaledit.training;

import java.util.SortedMap;
import java.util.TreeMap;
import java.util.regex.Pattern;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;

/** Which layers of a transformer get a LoRA in training. */
public enum LoraTargets {
    /** Queries, keys and values of the image stream (the paper). */
    QKV("(single_)?transformer_blocks\\.\\d+\\.attn\\.to_[qkv]"),
    /** All that the released code trains: every layer that guidance tokens pass through, but the first of an MLP. */
    RELEASED("x_embedder"
            + "|(single_)?transformer_blocks\\.\\d+\\.attn\\.to_[qkv]"
            + "|transformer_blocks\\.\\d+\\.(norm1\\.linear|attn\\.to_out\\.0|ff\\.net\\.2)"
            + "|single_transformer_blocks\\.\\d+\\.(norm\\.linear|proj_mlp|proj_out)");

    private static final String WEIGHT = ".weight";

    private final Pattern modules;

    LoraTargets(String modules) {
        this.modules = Pattern.compile(modules);
    }

    /** What goes into a layer and what comes out. */
    public record Widths(long in, long out) {}

    /** The layers by their modules' names in diffusers, in the order of these. */
    public SortedMap<String, Widths> of(FluxConfig config) {
        SortedMap<String, Widths> targets = new TreeMap<>();
        FluxTransformer.expectedTensors(config).forEach((name, shape) -> {
            String module = name.endsWith(WEIGHT) ? name.substring(0, name.length() - WEIGHT.length()) : name;
            if (modules.matcher(module).matches() && shape.length == 2) {
                targets.put(module, new Widths(shape[1], shape[0]));
            }
        });
        return targets;
    }
}
