package org.scaledit.evaluation;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalInt;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.scaledit.checkpoint.LoraFile;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Torch;
import org.scaledit.training.HeldOutLoss;
import org.scaledit.training.HeldOutLoss.Losses;
import org.scaledit.training.HeldOutLoss.Sample;
import org.scaledit.training.Recipe;

class LossTableTest {
    @BeforeAll
    static void load() {
        Torch.load();
    }

    /** Of two bands; of each picture its losses in the first, then in the second. */
    private static LossTable table(Losses... losses) {
        HeldOutLoss.Order order = new HeldOutLoss.Order(
                Path.of("model"),
                Path.of("data"),
                Path.of("cache"),
                List.of(new LoraFile(Path.of("lora.safetensors"), 1)),
                Recipe.Scope.GUIDANCE,
                1024,
                4,
                OptionalInt.empty(),
                OptionalInt.empty(),
                2,
                Recipe.Timesteps.LOGIT_NORMAL,
                Recipe.AttentionKind.NATIVE,
                Placement.FLOAT32_CPU,
                0);
        List<Sample> samples = new ArrayList<>();
        for (int i = 0; i < losses.length; i++) {
            samples.add(new Sample("picture" + i / 2, i % 2, 0.25 + 0.5 * (i % 2), losses[i]));
        }
        return new LossTable(order, samples);
    }

    private static void assertEstimate(LossTable.Estimate estimate, double mean, double error) {
        assertThat(estimate.mean()).isCloseTo(mean, within(1e-12));
        assertThat(estimate.error()).hasValueCloseTo(error, within(1e-12));
    }

    @Test
    void errorsAreThoseOfPairedDifferences() {
        LossTable table = table(
                new Losses(1, 3, 2), new Losses(2, 2.5, 2.5), // gains 1 and 0, gaps 2 and 0.5
                new Losses(11, 15, 12), new Losses(12, 12.5, 12.5)); // gains 3 and 0, gaps 4 and 0.5
        LossTable.Row first = table.bands().get(0);
        assertThat(first.from()).isZero();
        assertThat(first.to()).isCloseTo(0.5, within(1e-12));
        assertThat(first.losses()).isEqualTo(new Losses(6, 9, 7));
        assertEstimate(first.gain(), 2, 1); // of 1 and 3, whatever pictures differ by
        assertEstimate(first.gap(), 3, 1);
        assertEstimate(first.share().orElseThrow(), 2.0 / 3, 1.0 / 9); // 1 - 4/3 and 3 - 8/3, by 3
        assertEstimate(table.bands().get(1).share().orElseThrow(), 0, 0);
        assertThat(table.bands().get(1).to()).isEqualTo(1);
        assertEstimate(table.all().gain(), 1, 0.5); // of 0.5 and 1.5
        assertEstimate(table.all().gap(), 1.75, 0.5);
        assertThat(table.words().lines())
                .hasSize(6)
                .anySatisfy(line -> assertThat(line)
                        .matches("0.000 to 0.500 +6.00000 +9.00000 +7.00000 +2.00000 ± 1.00000 +3.00000 ± 1.00000"
                                + " +0.67 ± 0.11"))
                .contains(
                        "the LoRA closes 0.57 ± 0.12 of the gap between Scale-DiT without it and dense attention",
                        "pictures: 2, noise levels of each: 2; ± is the standard error of a mean over pictures");
    }

    @Test
    void withoutAGapThereIsNoShare() {
        LossTable table = table(new Losses(3, 2, 1), new Losses(1, 1.5, 1.25));
        assertThat(table.all().share()).isEmpty();
        assertThat(table.bands().get(0).share()).isEmpty();
        assertThat(table.bands().get(1).share().orElseThrow().mean()).isEqualTo(0.5);
        assertThat(table.words())
                .contains("dense attention is no better than Scale-DiT without a LoRA: there is no gap to close\n")
                .containsPattern("all +2.00000 +1.75000 +1.12500 +0.62500 +-0.25000 +no gap\n");
    }

    @Test
    void aGapThatChanceMayHaveMadeHasNoShare() {
        LossTable table = table(
                new Losses(1, 2, 1.5), new Losses(1, 2, 1.5), // a gap of 1
                new Losses(2, 2, 1), new Losses(2, 2, 1)); // and none: 0.5 ± 0.5
        assertThat(table.all().share()).isEmpty();
        assertThat(table.words())
                .contains("dense attention is better than Scale-DiT without a LoRA by no more than 2 standard errors: ")
                .containsPattern("all .* 0.50000 ± 0.50000 +unclear\n");
    }

    @Test
    void onePictureHasNoStandardError() {
        LossTable table = table(new Losses(1, 2, 1.5), new Losses(1, 2, 1.5));
        assertThat(table.all().gain().error()).isEmpty();
        assertThat(table.words()).containsPattern("all +1.00000 +2.00000 +1.50000 +0.50000 +1.00000 +0.50\n");
    }
}
