package org.scaledit.transformer;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.attention.Preparation.Norms;
import org.scaledit.tensor.Matrix;
import org.scaledit.transformer.Linear.LowRank;

/**
 * Where a model's layers come from: each is asked for once, by its name in diffusers and its sizes. So the blocks'
 * own code is the only list of what a model consists of.
 */
final class Layers {
    /** Where the tensors come from. */
    interface Source {
        /** The tensor of this name, which must have this shape. */
        Tensor tensor(String name, long... shape);

        /**
         * Of several tensors, which must all have this shape, each one's {@code part}-th of {@code parts} equal parts, one
         * below the other.
         */
        Tensor stacked(List<String> names, int part, int parts, long... shape);

        /** The same of a large product's weights, in the precision in which it is computed. */
        Matrix weights(List<String> names, int part, int parts, long... shape);

        /**
         * Into how many groups of heads, at most, projections are cut. With 0 the layers for queries, keys and values stay
         * three, as they are stored.
         */
        int headGroups();

        /** For the tensors of a block; blocks are numbered in the order in which tokens pass through them. */
        default Source block(int number) {
            return this;
        }

        /** Runs what computes with a block's tensors: until it has ended they are where it computes. */
        default void compute(int number, Runnable work) {
            work.run();
        }
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

    /** A block of the model. */
    FluxModel.Block block(int number, String name, Function<Layers, FluxModel.Block> load) {
        FluxModel.Block block =
                load.apply(new Layers(source.block(number), adapters, prefix + name + ".", guidancePasses));
        return new FluxModel.Block() {
            @Override
            public void forward(Tensor hidden, Pass pass) {
                source.compute(number, () -> block.forward(hidden, pass));
            }

            @Override
            public List<Tensor> forward(List<Tensor> streams, BatchPass pass) {
                return block.forward(streams, pass);
            }
        };
    }

    Linear linear(String name, long in, long out) {
        String module = prefix + name;
        return linear(Matrix.of(source.tensor(module + ".weight", out, in)), module, in, out);
    }

    /** One of the large products of all tokens, which may be in FP8. */
    Linear product(String name, long in, long out) {
        String module = prefix + name;
        return linear(source.weights(List.of(module + ".weight"), 0, 1, out, in), module, in, out);
    }

    private Linear linear(Matrix weight, String module, long in, long out) {
        return new Linear(
                weight,
                source.tensor(module + ".bias", out),
                adapters.lowRank(module, in, out, guidancePasses).stream().toList());
    }

    /** The layers for queries, keys and values: width → width each. */
    HeadProjections heads(String query, String key, String value, FluxConfig config) {
        long width = config.width();
        if (source.headGroups() == 0) {
            return new HeadProjections(List.of(new HeadProjections.Group(Stream.of(query, key, value)
                    .map(name -> product(name, width, width))
                    .toList())));
        }
        int groups = IntStream.rangeClosed(1, source.headGroups())
                .filter(count -> config.heads() % count == 0)
                .max()
                .orElse(1);
        List<String> modules =
                Stream.of(query, key, value).map(name -> prefix + name).toList();
        List<Optional<LowRank>> loras = modules.stream()
                .map(module -> adapters.lowRank(module, width, width, guidancePasses))
                .toList();
        return new HeadProjections(IntStream.range(0, groups)
                .mapToObj(group -> new HeadProjections.Group(List.of(new Linear(
                        source.weights(named(modules, ".weight"), group, groups, width, width),
                        source.stacked(named(modules, ".bias"), group, groups, width),
                        side(loras, group, width / groups)))))
                .toList());
    }

    private static List<String> named(List<String> modules, String suffix) {
        return modules.stream().map(module -> module + suffix).toList();
    }

    /** What LoRAs add to one group's columns of layers whose outputs lie side by side. */
    private List<LowRank> side(List<Optional<LowRank>> loras, int group, long columns) {
        List<LowRank> parts = new ArrayList<>();
        for (int layer = 0; layer < loras.size(); layer++) {
            long firstColumn = layer * columns;
            loras.get(layer)
                    .map(lora -> adapters.columns(lora, group * columns, columns, firstColumn))
                    .ifPresent(parts::add);
        }
        return parts;
    }

    /** The scales of the RMSNorms of queries and keys. */
    Norms norms(String query, String key, FluxConfig config) {
        return new Norms(scale(query, config.headDim()), scale(key, config.headDim()));
    }

    /** The scale of an RMSNorm: [size]. */
    private Tensor scale(String name, long size) {
        return source.tensor(prefix + name + ".weight", size);
    }
}
