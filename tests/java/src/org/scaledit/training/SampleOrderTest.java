package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.LongToDoubleFunction;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Torch;

class SampleOrderTest {
    private static SampleOrder order(long seed) {
        return new SampleOrder(seed, 10, Recipe.Timesteps.LOGIT_NORMAL);
    }

    private static List<Integer> epoch(SampleOrder order, int number) {
        return IntStream.range(0, 10)
                .mapToObj(i -> order.sample(10L * number + i))
                .toList();
    }

    @Test
    void anEpochHasEverySampleOnceInAnOrderOfItsOwn() {
        Set<List<Integer>> seen = new HashSet<>();
        for (int number = 0; number < 50; number++) {
            List<Integer> epoch = epoch(order(3), number);
            assertThat(epoch).containsExactlyInAnyOrder(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
            seen.add(epoch);
        }
        assertThat(seen).hasSize(50);
        assertThat(epoch(order(4), 0)).isNotEqualTo(epoch(order(3), 0));
    }

    @Test
    void everyPlaceIsAsLikelyForASample() {
        SampleOrder order = order(1);
        int[] places = new int[10];
        for (int number = 0; number < 4000; number++) {
            places[epoch(order, number).indexOf(0)]++;
        }
        for (int count : places) {
            assertThat(count).isBetween(330, 470); // 400, and three and a half deviations of 19
        }
    }

    /** What came before does not matter: a run that is resumed has asked for nothing. */
    @Test
    void aCountAloneDecides() {
        SampleOrder all = order(8);
        for (long count = 0; count < 35; count++) {
            SampleOrder late = order(8);
            assertThat(late.sample(count)).isEqualTo(all.sample(count));
            assertThat(late.sigma(count)).isEqualTo(all.sigma(count));
            assertThat(late.noise(count)).isEqualTo(all.noise(count));
        }
        assertThat(LongStream.range(0, 1000).map(all::noise).distinct()).hasSize(1000);
    }

    private static double mean(LongToDoubleFunction value) {
        return LongStream.range(0, 40_000).mapToDouble(value).average().orElseThrow();
    }

    @Test
    void noiseLevelsAreDistributedAsTheirNamesSay() {
        SampleOrder normal = order(2);
        LongToDoubleFunction logit = count -> Math.log(normal.sigma(count) / (1 - normal.sigma(count)));
        assertThat(mean(logit)).isCloseTo(0, within(0.02));
        assertThat(mean(count -> Math.pow(logit.applyAsDouble(count), 2))).isCloseTo(1, within(0.03));
        assertThat(mean(count -> Math.pow(logit.applyAsDouble(count), 4))).isCloseTo(3, within(0.2));

        SampleOrder uniform = new SampleOrder(2, 10, Recipe.Timesteps.UNIFORM);
        assertThat(mean(uniform::sigma)).isCloseTo(0.5, within(0.01));
        assertThat(mean(count -> uniform.sigma(count) < 0.1 ? 1 : 0)).isCloseTo(0.1, within(0.01));
        assertThat(mean(count -> uniform.sigma(count) * uniform.sigma(count + 1)))
                .isCloseTo(0.25, within(0.01));
    }

    @Test
    void stepsOfAScheduleAreEquallyProbableAndHalfOfThemBegin() {
        SampleOrder order = order(2);
        float[] schedule = {1, 0.75f, 0};
        assertThat(mean(count -> order.sigma(count, schedule) == 1 ? 1 : 0)).isCloseTo(0.25, within(0.01));
        assertThat(mean(count -> order.sigma(count, schedule) == 0.75f ? 1 : 0)).isCloseTo(0.25, within(0.01));
        assertThat(mean(count -> order.sigma(count, schedule) < 0.375 ? 1 : 0)).isCloseTo(0.125, within(0.01));
        assertThat(mean(count -> order.sigma(count, schedule) < 0.01 ? 1 : 0)).isPositive();
        assertThat(mean(count -> order.sigma(count, schedule) <= 0 ? 1 : 0)).isZero();
    }

    @Test
    void bandsOfNoiseLevelsAreEquallyProbable() {
        Torch.load();
        assertThat(Recipe.Timesteps.LOGIT_NORMAL.quantile(0.5)).isEqualTo(0.5);
        assertThat(Recipe.Timesteps.LOGIT_NORMAL.quantile(0)).isZero();
        assertThat(Recipe.Timesteps.LOGIT_NORMAL.quantile(1)).isEqualTo(1);
        assertThat(Recipe.Timesteps.LOGIT_NORMAL.quantile(0.8413447460685429)) // one deviation above the mean
                .isCloseTo(1 / (1 + Math.exp(-1)), within(1e-12));
        SampleOrder normal = order(2);
        SampleOrder uniform = new SampleOrder(2, 10, Recipe.Timesteps.UNIFORM);
        for (int count = 0; count < 100; count++) {
            double probability = 4 * uniform.sigma(count, 3, 4) - 3;
            assertThat(probability).isStrictlyBetween(0.0, 1.0);
            assertThat(uniform.sigma(count, 0, 4)).isCloseTo(probability / 4, within(1e-12));
            assertThat(normal.sigma(count, 3, 4)).isStrictlyBetween(Recipe.Timesteps.LOGIT_NORMAL.quantile(0.75), 1.0);
        }
    }
}
