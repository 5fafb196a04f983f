package org.scaledit.transformer;

import org.bytedeco.pytorch.Tensor;

/**
 * Where a model's layers come from: each is asked for once, by its name in diffusers and its sizes. So the blocks'
 * own code is the only list of what a model consists of.
 */
final class Layers {
    /** Gives the tensor of this name, which must have this shape. */
    @FunctionalInterface
    interface Source {
        Tensor tensor(String name, long... shape);
    }

    private final Source source;
    private final Adapters adapters;
    private final String prefix;
    private final boolean guidancePasses;

    private Layers(Source source, Adapters adapters, String prefix, boolean guidancePasses) {
        this.source = source;
        this.adapters = adapters;
        this.prefix = prefix;
        this.guidancePasses = guidancePasses;
    }

    static Layers of(Source source, Adapters adapters) {
        return new Layers(source, adapters, "", true);
    }

    /** The layers whose names begin with {@code name} and a dot. */
    Layers at(String name) {
        return new Layers(source, adapters, prefix + name + ".", guidancePasses);
    }

    /** The same layers, known never to see a guidance token. */
    Layers withoutGuidance() {
        return new Layers(source, adapters, prefix, false);
    }

    Linear linear(String name, long in, long out) {
        String module = prefix + name;
        return new Linear(
                source.tensor(module + ".weight", out, in),
                source.tensor(module + ".bias", out),
                adapters.lowRank(module, in, out, guidancePasses));
    }

    /** The scale of an RMSNorm: [size]. */
    Tensor scale(String name, long size) {
        return source.tensor(prefix + name + ".weight", size);
    }
}
