package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Tensors;

class InitialWeightsTest {
    private static final String T5 = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.";

    /** As other matrices: that T5's files have them smaller is not training's concern. */
    @Test
    void t5sQueriesBeginAsLargeAsKeys() {
        try (InitialWeights random = new InitialWeights(1)) {
            Tensors.run(() -> {
                for (String matrix : new String[] {"q", "k"}) {
                    Tensor weight = random.of(T5 + matrix + ".weight", new long[] {128, 256});
                    assertThat(weight.std().item_double()).isCloseTo(1 / 16.0, within(0.001));
                }
            });
        }
    }

    @Test
    void t5sHeadsBeginByLookingAtNeighbours() {
        try (InitialWeights random = new InitialWeights(1)) {
            Tensors.run(() -> {
                Tensor bias = random.of(T5 + "relative_attention_bias.weight", new long[] {32, 4});
                double[][] sums = new double[4][2]; // of a head: where it prefers, and everywhere else
                for (int head = 0; head < 4; head++) {
                    int from = new int[] {1, 17, 2, 18}[head];
                    int to = new int[] {1, 17, 4, 20}[head];
                    for (int bucket = 0; bucket < 32; bucket++) {
                        double value = bias.select(0, bucket).select(0, head).item_double();
                        boolean preferred = bucket >= from && bucket <= to;
                        sums[head][preferred ? 0 : 1] += value / (preferred ? to - from + 1 : 31 - (to - from));
                    }
                    assertThat(sums[head][0]).isBetween(2.5, 5.5);
                    assertThat(sums[head][1]).isBetween(-0.3, 0.3);
                }
            });
        }
    }
}
