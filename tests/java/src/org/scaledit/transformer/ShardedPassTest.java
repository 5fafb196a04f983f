package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.AttentionWindow.GuidanceAttention;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.Golden;

/** Shards of a picture, here all on the CPU, have together the velocity of the whole. */
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ShardedPassTest {
    private static final int[] RANKS = {1, 2, 3, 5, 7};

    private static final Supplier<FluxTransformer> TINY =
            () -> FluxTransformer.load(ModelDirectory.open(Golden.tinyFlux()), Placement.FLOAT32_CPU);

    /** As on a GPU: a group of heads after the other, here each head by itself. */
    private static final Supplier<FluxTransformer> IN_GROUPS = () -> {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        return FluxTransformer.load(
                FluxConfig.of(directory.config("transformer")),
                Weights.of(directory.weights("transformer"), Placement.FLOAT32_CPU),
                2,
                false);
    };

    private static ShardedPicture picture(int text, int width, int height, AttentionWindow window, boolean int8) {
        return new ShardedPicture(text, width, height, window, int8, false, Placement.FLOAT32_CPU);
    }

    static Stream<Arguments> pictures() {
        ShardedPicture ragged = picture(9, 37, 61, AttentionWindow.DEFAULT, false);
        return Stream.of(
                Arguments.of(ragged, 1e-5),
                Arguments.of(
                        picture(130, 70, 45, new AttentionWindow(2, 16, 2, 1, GuidanceAttention.LOCAL, true), false),
                        1e-5),
                Arguments.of(
                        picture(9, 40, 56, new AttentionWindow(4, 16, 0, 0, GuidanceAttention.LOCAL, true), false),
                        1e-5),
                // Guidance is computed once: the second velocity has its keys and values from the first.
                Arguments.of(
                        picture(9, 37, 61, new AttentionWindow(4, 16, 1, 3, GuidanceAttention.GLOBAL, false), false),
                        1e-5),
                Arguments.of(
                        new ShardedPicture(
                                9,
                                37,
                                61,
                                new AttentionWindow(4, 16, 1, 3, GuidanceAttention.LOCAL, false),
                                false,
                                true,
                                Placement.FLOAT32_CPU),
                        1e-5),
                Arguments.of(picture(9, 37, 61, AttentionWindow.DEFAULT, true), 2e-2));
    }

    @ParameterizedTest
    @MethodSource("pictures")
    void shardsHaveTheVelocityOfTheWholePicture(ShardedPicture picture, double limit) {
        try (ShardedPicture.Result whole = picture.velocities(1, TINY)) {
            for (int ranks : RANKS) {
                try (ShardedPicture.Result shards = picture.velocities(ranks, TINY)) {
                    for (int step = 0; step < whole.velocities().size(); step++) {
                        assertThat(Golden.relativeL2(
                                        shards.velocities().get(step),
                                        whole.velocities().get(step)))
                                .as("%s ranks, velocity %s", ranks, step)
                                .isLessThanOrEqualTo(limit);
                    }
                    // Attention's are the same bits; products of other numbers of rows may round otherwise.
                    for (List<Tensor> texts : shards.texts()) {
                        for (int block = 0; block < texts.size(); block++) {
                            assertThat(Golden.relativeL2(
                                            texts.get(block),
                                            shards.texts().get(0).get(block)))
                                    .as("%s ranks, text after block %s", ranks, block)
                                    .isLessThanOrEqualTo(1e-6);
                        }
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {2, 3, 5, 7})
    void groupsOfHeadsAreExchangedInOneOrder(int ranks) {
        // Here one rank has all of the guidance image and takes nothing: it exchanges when the others do all the same.
        AttentionWindow alone = new AttentionWindow(8, 16, 0, 0, GuidanceAttention.LOCAL, true);
        for (AttentionWindow window : List.of(AttentionWindow.DEFAULT, alone)) {
            ShardedPicture picture = picture(9, 32, 64, window, false);
            try (ShardedPicture.Result whole = picture.velocities(1, TINY);
                    ShardedPicture.Result shards = picture.velocities(ranks, IN_GROUPS)) {
                for (int step = 0; step < whole.velocities().size(); step++) {
                    assertThat(Golden.relativeL2(
                                    shards.velocities().get(step),
                                    whole.velocities().get(step)))
                            .as("%s, velocity %s", window, step)
                            .isLessThanOrEqualTo(1e-5);
                }
            }
        }
    }
}
