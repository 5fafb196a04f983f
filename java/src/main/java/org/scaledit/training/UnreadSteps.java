package org.scaledit.training;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * Steps that are made, or that a GPU has in its queue, with numbers that nobody has read yet. To read one is to wait until the
 * GPU has computed it, and meanwhile it is given nothing new: so the numbers of several steps are read at once.
 */
final class UnreadSteps implements AutoCloseable {
    private final int most;
    private final Deque<Step> steps = new ArrayDeque<>();

    /** @param most of them; with 1 each is read when it is made */
    UnreadSteps(int most) {
        this.most = most;
    }

    /**
     * @param batches what the losses are of, for messages
     * @param numbers the losses of these batches, the step's loss, and the norm of its gradients: [batches + 2]
     */
    private record Step(long step, double learningRate, List<String> batches, Tensor numbers) {}

    /** What a step has computed: scalars, each anywhere, which stay the caller's. */
    record Numbers(List<Tensor> losses, Tensor loss, Tensor norm) {
        /** [losses + 2] */
        private Tensor together() {
            List<Tensor> all = new ArrayList<>(losses);
            all.add(loss);
            all.add(norm);
            return torch.stack(
                    new TensorVector(all.stream().map(Tensors::toFloat32).toArray(Tensor[]::new)), 0);
        }
    }

    /** @param batches what the losses are of, one for each */
    void add(long step, double learningRate, List<String> batches, Numbers numbers) {
        steps.add(new Step(step, learningRate, List.copyOf(batches), Tensors.outlive(numbers::together)));
    }

    /** Whether they are to be read before there are more. */
    boolean isFull() {
        return steps.size() >= most;
    }

    /**
     * All of them in their order; then there are none.
     *
     * @throws TrainingException naming the first one whose loss or gradients are no numbers
     */
    List<LossLog.Row> read() {
        if (steps.isEmpty()) {
            return List.of();
        }
        float[] numbers = Tensors.compute(() -> Tensors.floats(
                torch.cat(new TensorVector(steps.stream().map(Step::numbers).toArray(Tensor[]::new)), 0)));
        List<LossLog.Row> rows = new ArrayList<>();
        int next = 0;
        for (Step step : steps) {
            for (String batch : step.batches) {
                double loss = numbers[next++];
                if (!Double.isFinite(loss)) {
                    throw new TrainingException(
                            "the loss of " + batch + " is " + loss + " at step " + step.step + ", expected a number");
                }
            }
            LossLog.Row row = new LossLog.Row(step.step, numbers[next], step.learningRate, numbers[next + 1]);
            next += 2;
            if (!Double.isFinite(row.gradientNorm())) {
                throw new TrainingException("the gradients are no numbers at step " + step.step);
            }
            rows.add(row);
        }
        close();
        return rows;
    }

    @Override
    public void close() {
        steps.forEach(step -> step.numbers.close());
        steps.clear();
    }
}
