package org.scaledit.transformer;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Lora;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.Linear.LowRank;

/**
 * The LoRAs put on a model: hands each layer its part, and finds out which parts no layer asked for. Or a LoRA in
 * training, whose matrices are leaves of torch's autograd.
 */
final class Adapters implements AutoCloseable {
    private final List<ScaledLora> loras;
    private final LoraScope scope;
    private final Placement placement;
    private final boolean training;
    private final SortedMap<String, Lora.Layer> trained = new TreeMap<>();
    private final Set<String> asked = new HashSet<>();
    private final List<String> warnings = new ArrayList<>();
    private final List<Tensor> made = new ArrayList<>();

    Adapters(List<ScaledLora> loras, LoraScope scope, Placement placement) {
        this(loras, scope, placement, false);
    }

    private Adapters(List<ScaledLora> loras, LoraScope scope, Placement placement, boolean training) {
        this.loras = loras;
        this.scope = scope;
        this.placement = placement;
        this.training = training;
    }

    /** Of copies of a LoRA's matrices, in float32 whatever the model's precision. */
    static Adapters training(Lora lora, LoraScope scope, Placement placement) {
        return new Adapters(List.of(new ScaledLora(lora, 1)), scope, placement.with(torch.ScalarType.Float), true);
    }

    static Adapters none() {
        return new Adapters(List.of(), LoraScope.GUIDANCE, Placement.FLOAT32_CPU);
    }

    /**
     * What the LoRAs add to a layer: the sum of several is one of the sum of their ranks.
     *
     * @param guidancePasses whether guidance tokens ever pass through the layer
     */
    Optional<LowRank> lowRank(String module, long in, long out, boolean guidancePasses) {
        asked.add(module);
        List<ScaledLora> acting = loras.stream()
                .filter(lora -> lora.lora().layers().containsKey(module))
                .toList();
        if (acting.isEmpty()) {
            return Optional.empty();
        }
        acting.forEach(lora -> requireShape(lora.lora(), module, in, out));
        boolean guidanceOnly = scope.guidanceOnly(module);
        if (guidanceOnly && !guidancePasses) {
            acting.forEach(lora -> warnings.add("LoRA " + lora.lora().file() + " has no effect on " + module
                    + ": the scope reaches guidance tokens alone, which never pass through it"));
            return Optional.empty();
        }
        return Optional.of(training ? trained(module, guidanceOnly) : sum(acting, module, guidanceOnly));
    }

    private LowRank sum(List<ScaledLora> acting, String module, boolean guidanceOnly) {
        return new LowRank(
                kept(Tensors.outlive(() -> down(acting, module))),
                kept(Tensors.outlive(() -> up(acting, module))),
                1,
                guidanceOnly,
                0);
    }

    private LowRank trained(String module, boolean guidanceOnly) {
        Lora.Layer start = layer(loras.get(0), module);
        Lora.Layer leaves = new Lora.Layer(leaf(start.down()), leaf(start.up()), start.scale());
        trained.put(module, leaves);
        return new LowRank(leaves.down(), leaves.up(), leaves.scale(), guidanceOnly, 0);
    }

    private Tensor leaf(Tensor start) {
        Tensor leaf = kept(Tensors.outlive(() -> placed(start).clone()));
        leaf.set_requires_grad(true);
        return leaf;
    }

    /** The leaves by module, in the order of their names; empty where nothing is trained. */
    SortedMap<String, Lora.Layer> trained() {
        return Collections.unmodifiableSortedMap(trained);
    }

    /**
     * What a layer's LoRAs add to some of its columns.
     *
     * @param first of these columns in the layer's output
     * @param firstColumn of these columns where they shall be added
     */
    LowRank columns(LowRank whole, long first, long count, long firstColumn) {
        Tensor rows = kept(Tensors.outlive(() -> whole.up().narrow(0, first, count)));
        return new LowRank(whole.down(), rows, whole.scale(), whole.guidanceOnly(), firstColumn);
    }

    private Tensor kept(Tensor tensor) {
        made.add(tensor);
        return tensor;
    }

    /** [sum of ranks, in] */
    private Tensor down(List<ScaledLora> acting, String module) {
        return placed(Tensors.concatenate(
                0, acting.stream().map(lora -> layer(lora, module).down()).toArray(Tensor[]::new)));
    }

    /** [out, sum of ranks] */
    private Tensor up(List<ScaledLora> acting, String module) {
        return placed(Tensors.concatenate(
                1,
                acting.stream()
                        .map(lora -> layer(lora, module)
                                .up()
                                .mul(new Scalar(
                                        lora.scale() * layer(lora, module).scale())))
                        .toArray(Tensor[]::new)));
    }

    private Tensor placed(Tensor tensor) {
        return new Tensor(placement.place(tensor));
    }

    private static Lora.Layer layer(ScaledLora lora, String module) {
        return Optional.ofNullable(lora.lora().layers().get(module)).orElseThrow();
    }

    private static void requireShape(Lora lora, String module, long in, long out) {
        Lora.Layer layer = layer(new ScaledLora(lora, 1), module);
        boolean fits = layer.down().size(1) == in && layer.up().size(0) == out;
        if (!fits) {
            throw new CheckpointException("the layer of " + module + " in " + lora.file() + " has shapes "
                    + Tensors.shape(layer.down()) + " and " + Tensors.shape(layer.up()) + ", expected [rank, " + in
                    + "] and [" + out + ", rank]");
        }
    }

    /** @throws CheckpointException naming a LoRA's layer that no layer of the model asked for */
    void requireAllAsked() {
        for (ScaledLora lora : loras) {
            for (String module : lora.lora().layers().keySet()) {
                if (!asked.contains(module)) {
                    throw new CheckpointException(
                            lora.lora().file() + " has a layer for " + module + ", which the model does not have");
                }
            }
        }
    }

    /** One sentence for each layer of a LoRA that can have no effect. */
    List<String> warnings() {
        return List.copyOf(warnings);
    }

    @Override
    public void close() {
        made.forEach(Tensor::close);
        made.clear();
    }
}
