package org.scaledit.training;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.function.IntFunction;
import java.util.function.LongSupplier;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/**
 * Steps that are made, or that a GPU has in its queue, with numbers that nobody has read yet. To read one is to wait until the
 * GPU has computed it, and meanwhile it is given nothing new: so the numbers of several steps are read at once, of as many as
 * take it no more than a second.
 */
final class UnreadSteps implements AutoCloseable {
    private static final double SECONDS_AT_ONCE = 1;

    private final int most;
    private final LongSupplier clock; // in nanoseconds
    private final Deque<Step> steps = new ArrayDeque<>();
    private int atOnce = 1;
    private long read;

    /** @param most of them; with 1 each is read when it is made */
    UnreadSteps(int most) {
        this(most, System::nanoTime);
    }

    UnreadSteps(int most, LongSupplier clock) {
        this.most = most;
        this.clock = clock;
        this.read = clock.getAsLong();
    }

    /**
     * @param each losses of a batch
     * @param numbers these losses, and the norm of their gradients: [batches · each + 1]
     * @param batch what a batch is, for messages
     */
    private record Step(long step, double learningRate, int each, Tensor numbers, IntFunction<String> batch) {}

    /**
     * @param losses of its batches, and behind each what else is learnt: [batches, each]
     * @param norm of their gradients: a scalar
     * @param batch what a batch is, for messages
     */
    void add(long step, double learningRate, Tensor losses, Tensor norm, IntFunction<String> batch) {
        steps.add(new Step(
                step,
                learningRate,
                (int) losses.size(1),
                Tensors.outlive(() -> Tensors.concatenate(
                        0,
                        Tensors.toFloat32(losses).flatten(),
                        Tensors.toFloat32(norm).unsqueeze(0))),
                batch));
    }

    /** Whether they are to be read before there are more. */
    boolean isFull() {
        return steps.size() >= atOnce;
    }

    /**
     * All of them in their order; then there are none.
     *
     * @throws TrainingException naming the first one whose loss or gradients are no numbers; those before it are not given
     */
    List<LossLog.Row> read() {
        if (steps.isEmpty()) {
            return List.of();
        }
        float[] numbers = Tensors.compute(() -> Tensors.floats(
                Tensors.concatenate(0, steps.stream().map(Step::numbers).toArray(Tensor[]::new))));
        List<LossLog.Row> rows = new ArrayList<>();
        int next = 0;
        for (Step step : steps) {
            int batches = ((int) step.numbers.numel() - 1) / step.each;
            double[] sums = new double[step.each];
            for (int batch = 0; batch < batches; batch++) {
                double loss = numbers[next];
                if (!Double.isFinite(loss)) {
                    throw new TrainingException("the loss of " + step.batch.apply(batch) + " is " + loss + " at step "
                            + step.step + ", expected a number");
                }
                for (int i = 0; i < step.each; i++) {
                    sums[i] += numbers[next++];
                }
            }
            double norm = numbers[next++];
            if (!Double.isFinite(norm)) {
                throw new TrainingException("the gradients are no numbers at step " + step.step);
            }
            rows.add(new LossLog.Row(
                    step.step,
                    sums[0] / batches,
                    step.learningRate,
                    norm,
                    Arrays.stream(sums).skip(1).mapToObj(sum -> sum / batches).toList()));
        }
        pace(rows.size());
        close();
        return rows;
    }

    private void pace(int made) {
        long now = clock.getAsLong();
        double seconds = (now - read) * 1e-9 / made;
        read = now;
        atOnce = (int) Math.max(1, Math.min(most, SECONDS_AT_ONCE / seconds));
    }

    @Override
    public void close() {
        steps.forEach(step -> step.numbers.close());
        steps.clear();
    }
}
