package org.scaledit.training;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.function.BiPredicate;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * All weights of what is trained, side by side in one tensor of float32, as are their gradients and their moving average: what
 * an optimizer does with them is a few operations, however many they are. What computes sees leaves of torch's autograd with
 * their names and shapes, in the precision of the computation.
 */
final class ParameterSet implements AutoCloseable {
    /** Of a weight's first number, in numbers: products read 16 bytes at a time. */
    private static final long ALIGNMENT = 64;

    private final Placement placement;
    private final Tensor values; // [all], float32
    private final Tensor average; // likewise
    private final Tensor summed; // [all + losses], float32: gradients, and behind them the losses that they are of
    private final Tensor gradients; // [all]
    private final Tensor losses; // [losses], those of a batch beside each other
    private final Tensor working; // in the computation's precision; the values themselves if that is float32
    private final Tensor workingGradients; // likewise
    private final Map<String, Place> places = new LinkedHashMap<>();
    private final Map<String, Tensor> leaves = new LinkedHashMap<>();

    private record Place(long offset, long[] shape) {
        private long count() {
            long count = 1;
            for (long size : shape) {
                count *= size;
            }
            return count;
        }

        /** Whether another one of the same shape begins where this one ends. */
        private boolean isBefore(Place next) {
            return next.offset == offset + count() && Arrays.equals(next.shape, shape);
        }

        private Tensor of(Tensor all) {
            return all.narrow(0, offset, count()).view(shape);
        }
    }

    /**
     * All zero.
     *
     * @param shapes of the weights by name
     * @param placement of the computation
     * @param losses the most that are noted of a step
     */
    ParameterSet(Map<String, long[]> shapes, Placement placement, int losses) {
        this.placement = placement;
        long all = 0;
        for (Map.Entry<String, long[]> entry : shapes.entrySet()) {
            Place place = new Place(all, entry.getValue());
            places.put(entry.getKey(), place);
            all += (place.count() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
        Placement wide = placement.with(torch.ScalarType.Float);
        long[] shape = {all};
        this.values = zeros(wide, shape);
        this.summed = zeros(wide, new long[] {all + losses});
        this.gradients = Tensors.outlive(() -> summed.narrow(0, 0, values.numel()));
        this.losses = Tensors.outlive(() -> summed.narrow(0, values.numel(), losses));
        this.average = zeros(wide, shape);
        boolean same = placement.equals(wide);
        this.working = same ? Tensors.keep(values) : zeros(placement, shape);
        this.workingGradients = same ? Tensors.keep(gradients) : zeros(placement, shape);
        Tensors.run(() -> {
            values.mutable_grad().put(gradients);
            places.forEach((name, place) -> {
                Tensor leaf = Tensors.outlive(() -> place.of(working).detach());
                leaf.set_requires_grad(true);
                leaf.mutable_grad().put(place.of(workingGradients)); // to which autograd adds in place
                leaves.put(name, leaf);
            });
        });
    }

    private static Tensor zeros(Placement placement, long[] shape) {
        return Tensors.outlive(() -> torch.zeros(shape, placement.options()));
    }

    /** What gives a weight its first values. */
    interface Start {
        /** Float32 on the CPU, in the caller's scope. */
        Tensor of(String name, long[] shape);
    }

    void begin(Start start) {
        Tensors.withoutGradients(() -> {
            places.forEach((name, place) -> Tensors.run(() -> place.of(values).copy_(start.of(name, place.shape))));
            average.copy_(values);
        });
        update();
    }

    /** The leaves whose names begin with {@code prefix}, by the rest of their names; they stay this object's. */
    Map<String, Tensor> leaves(String prefix) {
        return under(prefix, leaves);
    }

    /** The moving averages of the same weights, float32, in the caller's scope. */
    Map<String, Tensor> averages(String prefix) {
        Map<String, Tensor> averages = new LinkedHashMap<>();
        places.forEach((name, place) -> averages.put(name, place.of(average)));
        return under(prefix, averages);
    }

    private static SortedMap<String, Tensor> under(String prefix, Map<String, Tensor> all) {
        SortedMap<String, Tensor> chosen = new TreeMap<>();
        all.forEach((name, tensor) -> {
            if (name.startsWith(prefix)) {
                chosen.put(name.substring(prefix.length()), tensor);
            }
        });
        return chosen;
    }

    /** The weights as an optimizer takes them, with the gradients that {@link #gather} has added up. */
    Map<String, Tensor> whole() {
        return Map.of("all", values);
    }

    /** Weights of one shape that lie side by side, and their gradients. */
    record Stack(Tensor values, Tensor gradients) implements AutoCloseable { // [count, rows, columns]
        @Override
        public void close() {
            values.close();
            gradients.close();
        }
    }

    /**
     * Chosen matrices, which lie before all other weights, in as few stacks as their shapes allow; the caller's to close.
     *
     * @param chosen by name and shape
     */
    List<Stack> stacks(BiPredicate<String, long[]> chosen) {
        List<Stack> stacks = new ArrayList<>();
        List<Place> beside = new ArrayList<>();
        places.forEach((name, place) -> {
            boolean taken = chosen.test(name, place.shape);
            if (!beside.isEmpty() && !(taken && beside.get(beside.size() - 1).isBefore(place))) {
                stacks.add(stack(beside));
                beside.clear();
            }
            if (taken) {
                beside.add(place);
            }
        });
        if (!beside.isEmpty()) {
            stacks.add(stack(beside));
        }
        return stacks;
    }

    private Stack stack(List<Place> places) {
        Place first = places.get(0);
        Place all = new Place(first.offset, new long[] {places.size(), first.shape[0], first.shape[1]});
        return new Stack(Tensors.outlive(() -> all.of(values)), Tensors.outlive(() -> all.of(gradients)));
    }

    /** All weights behind those that {@link #stacks} gives, with their gradients; the caller's to close. */
    Tensor after(BiPredicate<String, long[]> chosen) {
        long first = places.entrySet().stream()
                .filter(entry -> !chosen.test(entry.getKey(), entry.getValue().shape))
                .mapToLong(entry -> entry.getValue().offset)
                .min()
                .orElseThrow();
        return Tensors.outlive(() -> {
            Tensor rest = values.narrow(0, first, values.numel() - first).detach();
            rest.mutable_grad().put(gradients.narrow(0, first, values.numel() - first));
            return rest;
        });
    }

    /** What a checkpoint holds of them. */
    Map<String, Tensor> state() {
        Map<String, Tensor> state = new LinkedHashMap<>();
        state.put("values", values);
        state.put("average", average);
        return state;
    }

    /** Sets all losses and gradients to zero. */
    void clearGradients() {
        Tensors.run(() -> {
            summed.zero_();
            workingGradients.zero_();
        });
    }

    /**
     * Notes the losses of one of the batches that the gradients are of.
     *
     * @param noted as many of each batch
     */
    void noteLosses(int batch, Tensor noted) {
        long each = noted.numel();
        Tensors.run(() -> losses.narrow(0, batch * each, each).copy_(noted));
    }

    /** Adds the leaves' gradients, in the computation's precision, to those in float32. */
    void gather() {
        if (placement.dtype() != torch.ScalarType.Float) {
            Tensors.run(() -> {
                gradients.add_(workingGradients);
                workingGradients.zero_();
            });
        }
    }

    /** What ranks add up: all gradients as {@link #gather} has added them up, side by side, and behind them the losses. */
    Tensor summed() {
        return summed;
    }

    /**
     * The losses that were noted of the first batches, zero those that were not: {@code [batches, each]}, a view in the caller's
     * scope.
     */
    Tensor losses(int batches, int each) {
        return losses.narrow(0, 0, (long) batches * each).view(batches, each);
    }

    /** The length of all gradients together: a scalar, float64, in the caller's scope. */
    Tensor gradientNorm() {
        return Tensors.scoped(() -> torch.linalg_vector_norm(
                gradients, new Scalar(2), new long[] {0}, false, new ScalarTypeOptional(torch.ScalarType.Double)));
    }

    /**
     * Shortens all gradients together to {@code most}, if they are longer.
     *
     * @param norm as {@link #gradientNorm} says
     */
    void shortenGradients(Tensor norm, double most) {
        Tensors.run(
                () -> gradients.mul_(norm.reciprocal().mul_(new Scalar(most)).clamp_max_(new Scalar(1))));
    }

    /** Whether a GPU has all of them, which computes what it is told while the caller goes on. */
    boolean onGpu() {
        return placement.cuda();
    }

    /** Gives the leaves the values. */
    void update() {
        if (placement.dtype() != torch.ScalarType.Float) {
            Tensors.withoutGradients(() -> Tensors.run(() -> working.copy_(values)));
        }
    }

    /** Moves the average towards the values: {@code decay} of it stays. */
    void follow(double decay) {
        Tensors.withoutGradients(() -> Tensors.run(() -> average.lerp_(values, new Scalar(1 - decay))));
    }

    /** How many weights there are. */
    long count() {
        return places.values().stream().mapToLong(Place::count).sum();
    }

    @Override
    public void close() {
        leaves.values().forEach(Tensor::close);
        leaves.clear();
        values.close();
        losses.close();
        gradients.close();
        summed.close();
        average.close();
        working.close();
        workingGradients.close();
    }
}
