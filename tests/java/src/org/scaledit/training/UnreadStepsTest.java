package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.stream.DoubleStream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Tensors;

class UnreadStepsTest {
    private static void add(UnreadSteps unread, long step, double loss, double norm, double... losses) {
        Tensors.run(() -> unread.add(
                step,
                step / 8.0,
                DoubleStream.of(losses).mapToObj(value -> "batch " + value).toList(),
                new UnreadSteps.Numbers(
                        DoubleStream.of(losses)
                                .mapToObj(UnreadStepsTest::scalar)
                                .toList(),
                        scalar(loss),
                        scalar(norm).to(torch.ScalarType.Double))));
    }

    private static Tensor scalar(double value) {
        return torch.full(new long[] {}, new Scalar(value));
    }

    @Test
    void areReadTogetherInTheirOrder() {
        try (UnreadSteps unread = new UnreadSteps(3)) {
            assertThat(unread.read()).isEmpty();
            add(unread, 5, 0.5, 2, 0.25, 0.75);
            add(unread, 6, 1, 4, 1); // of another phase, with fewer batches
            assertThat(unread.isFull()).isFalse();
            add(unread, 7, 1.5, 8); // on a rank that has none of them
            assertThat(unread.isFull()).isTrue();
            assertThat(unread.read())
                    .containsExactly(
                            new LossLog.Row(5, 0.5, 0.625, 2),
                            new LossLog.Row(6, 1, 0.75, 4),
                            new LossLog.Row(7, 1.5, 0.875, 8));
            assertThat(unread.isFull()).isFalse();
            assertThat(unread.read()).isEmpty();
        }
    }

    @Test
    void theFirstThatIsNoNumberIsNamed() {
        try (UnreadSteps unread = new UnreadSteps(3)) {
            add(unread, 5, 0.5, 2, 0.5);
            add(unread, 6, Double.NaN, Double.NaN, 0.5, Double.NaN);
            add(unread, 7, Double.NaN, Double.NaN, Double.NaN, Double.NaN);
            assertThatThrownBy(unread::read)
                    .isInstanceOf(TrainingException.class)
                    .hasMessage("the loss of batch NaN is NaN at step 6, expected a number");
        }
        try (UnreadSteps unread = new UnreadSteps(1)) {
            add(unread, 5, 0.5, Double.POSITIVE_INFINITY, 0.5);
            assertThatThrownBy(unread::read)
                    .isInstanceOf(TrainingException.class)
                    .hasMessage("the gradients are no numbers at step 5");
        }
    }

    @Test
    void numbersAreThoseOfWhenTheStepWasMade() {
        try (UnreadSteps unread = new UnreadSteps(2)) {
            Tensors.run(() -> {
                Tensor loss = scalar(3);
                unread.add(1, 0, List.of("a"), new UnreadSteps.Numbers(List.of(loss), loss, loss));
                loss.zero_(); // as the next step does
            });
            List<LossLog.Row> rows = unread.read();
            assertThat(rows).containsExactly(new LossLog.Row(1, 3, 0, 3));
        }
    }
}
