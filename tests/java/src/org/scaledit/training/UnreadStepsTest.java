package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Tensors;

class UnreadStepsTest {
    private static void add(UnreadSteps unread, long step, double norm, float... losses) {
        addEach(unread, step, norm, 1, losses);
    }

    private static void addEach(UnreadSteps unread, long step, double norm, int each, float... losses) {
        Tensors.run(() -> unread.add(
                step,
                step / 8.0,
                Tensors.of(losses, losses.length / each, each),
                torch.full(new long[] {}, new Scalar(norm)).to(torch.ScalarType.Double),
                batch -> "batch " + batch));
    }

    @Test
    void areReadTogetherInTheirOrder() {
        try (UnreadSteps unread = new UnreadSteps(3)) {
            assertThat(unread.read()).isEmpty();
            add(unread, 5, 2, 0.25f, 0.75f);
            add(unread, 6, 4, 1); // of another phase, with fewer batches
            add(unread, 7, 8, 1, 2, 3);
            assertThat(unread.read())
                    .containsExactly(
                            new LossLog.Row(5, 0.5, 0.625, 2),
                            new LossLog.Row(6, 1, 0.75, 4),
                            new LossLog.Row(7, 2, 0.875, 8));
            assertThat(unread.read()).isEmpty();
        }
    }

    /** What is learnt besides may be no number: then the step has none. */
    @Test
    void otherLossesAreMeansAsWell() {
        try (UnreadSteps unread = new UnreadSteps(3)) {
            addEach(unread, 5, 2, 3, 0.25f, 8, Float.NaN, 0.75f, 4, Float.NaN);
            add(unread, 6, 4, 1);
            assertThat(unread.read())
                    .containsExactly(
                            new LossLog.Row(5, 0.5, 0.625, 2, List.of(6.0, Double.NaN)),
                            new LossLog.Row(6, 1, 0.75, 4));
        }
    }

    /** As many as take a second. */
    @Test
    void slowStepsAreReadOneByOne() {
        long[] now = {0};
        try (UnreadSteps unread = new UnreadSteps(8, () -> now[0])) {
            double[] seconds = {30, 0.3, 0.3, 0.1, 2, 2};
            int[] atOnce = {1, 1, 3, 3, 8, 1}; // as those before were fast
            long step = 0;
            for (int i = 0; i < seconds.length; i++) {
                for (int made = 0; made < atOnce[i]; made++) {
                    assertThat(unread.isFull()).isFalse();
                    now[0] += (long) (seconds[i] * 1e9);
                    add(unread, ++step, 1, 1);
                }
                assertThat(unread.isFull()).isTrue();
                assertThat(unread.read()).hasSize(atOnce[i]);
            }
        }
    }

    @Test
    void theFirstThatIsNoNumberIsNamed() {
        try (UnreadSteps unread = new UnreadSteps(3)) {
            add(unread, 5, 2, 0.5f);
            add(unread, 6, Double.NaN, 0.5f, Float.NaN);
            add(unread, 7, Double.NaN, Float.NaN, Float.NaN);
            assertThatThrownBy(unread::read)
                    .isInstanceOf(TrainingException.class)
                    .hasMessage("the loss of batch 1 is NaN at step 6, expected a number");
        }
        try (UnreadSteps unread = new UnreadSteps(1)) {
            add(unread, 5, Double.POSITIVE_INFINITY, 0.5f);
            assertThatThrownBy(unread::read)
                    .isInstanceOf(TrainingException.class)
                    .hasMessage("the gradients are no numbers at step 5");
        }
    }

    @Test
    void numbersAreThoseOfWhenTheStepWasMade() {
        try (UnreadSteps unread = new UnreadSteps(2)) {
            Tensors.run(() -> {
                Tensor losses = Tensors.of(new float[] {3}, 1, 1);
                Tensor norm = torch.full(new long[] {}, new Scalar(5));
                unread.add(1, 0, losses, norm, batch -> "a");
                losses.zero_(); // as the next step does
                norm.zero_();
            });
            List<LossLog.Row> rows = unread.read();
            assertThat(rows).containsExactly(new LossLog.Row(1, 3, 0, 5));
        }
    }
}
