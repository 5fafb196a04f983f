package org.scaledit.attention;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.AttentionTest.Inputs;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** Ranks that paint a picture together, here all on the CPU, attend as one does alone. */
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ShardedAttentionTest {
    private static final int TEXT = 70;
    private static final int WIDTH = 53;
    private static final int HEIGHT = 70;

    /** Imported rows are not a number until the ranks have exchanged them. */
    @ParameterizedTest
    @ValueSource(ints = {2, 3, 5, 7})
    void ranksAttendTogetherAsOneAlone(int ranks) {
        Tensor[] images = new Tensor[ranks];
        Tensor[] texts = new Tensor[ranks];
        Tensors.run(() -> {
            Tensor expected;
            Inputs inputs;
            TokenLayout picture;
            try (Geometry whole = Geometry.windowed(TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT);
                    NativeAttention attention = new NativeAttention(whole, NativeAttention.Arithmetic.FLOAT32)) {
                inputs = Inputs.random(whole.layout().tokens(), 2, 64, torch.ScalarType.Float);
                expected = attention.attend(inputs.query(), inputs.key(), inputs.value());
                picture = whole.layout();
            }
            Ranks.run(
                    ranks,
                    false,
                    exchange -> Tensors.run(() -> {
                        try (ShardedAttention attention = new ShardedAttention(
                                TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT, false, false, exchange)) {
                            TokenLayout layout = attention.layout();
                            long first = firstImage(picture, layout);
                            long guidance = picture.guidanceTokens();
                            Tensor output = attention.attend(
                                    rows(inputs.query(), layout, first, guidance),
                                    rows(inputs.key(), layout, first, guidance),
                                    rows(inputs.value(), layout, first, guidance));
                            Tensor own = output.narrow(0, TEXT, layout.imageTokens() + guidance);
                            Tensor wholeOwn = rows(expected.unflatten(1, 2, 64), layout, first, guidance)
                                    .flatten(1, 2)
                                    .narrow(0, TEXT, layout.imageTokens() + guidance);
                            assertThat(Golden.relativeL2(own, wholeOwn)).isLessThan(1e-6);
                            images[exchange.rank()] = Tensors.keep(output.narrow(0, TEXT, layout.imageTokens()));
                            texts[exchange.rank()] = Tensors.keep(output.narrow(0, 0, TEXT));
                        }
                    }));
            Tensor together = Tensors.concatenate(0, images);
            assertThat(Golden.relativeL2(together, expected.narrow(0, TEXT, (long) WIDTH * HEIGHT)))
                    .isLessThan(1e-6);
            for (Tensor text : texts) {
                assertThat(text.equal(texts[0]))
                        .as("the same bits in all ranks")
                        .isTrue();
            }
            assertThat(Golden.relativeL2(texts[0], expected.narrow(0, 0, TEXT))).isLessThan(1e-6);
        });
        Arrays.stream(images).forEach(Tensor::close);
        Arrays.stream(texts).forEach(Tensor::close);
    }

    /** Where the shard's first image token is among those of the whole picture. */
    private static long firstImage(TokenLayout picture, TokenLayout shard) {
        return IntStream.range(0, picture.imageTokens())
                .filter(position -> picture.imageNumber(position) == shard.imageNumber(0))
                .findFirst()
                .orElseThrow();
    }

    /** A shard's rows of the whole picture's, and not-a-numbers for those that it imports. */
    private static Tensor rows(Tensor whole, TokenLayout layout, long first, long guidance) {
        long[] shape = {layout.importedTokens(), whole.size(1), whole.size(2)};
        Tensor imported = torch.full(shape, new Scalar(Double.NaN)).to(whole.scalar_type());
        return Tensors.concatenate(
                0,
                whole.narrow(0, 0, TEXT),
                whole.narrow(0, TEXT + first, layout.imageTokens()),
                whole.narrow(0, TEXT + (long) WIDTH * HEIGHT, guidance),
                imported);
    }

    /** What is gathered lies side by side with sums of twice the bytes. */
    @Test
    void textIsJoinedInBfloat16() {
        Tensors.run(() -> {
            Tensor expected;
            Inputs inputs;
            TokenLayout picture;
            try (Geometry whole = Geometry.windowed(TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT);
                    NativeAttention attention = new NativeAttention(whole, NativeAttention.Arithmetic.FLOAT32)) {
                picture = whole.layout();
                inputs = Inputs.random(picture.tokens(), 3, 128, torch.ScalarType.BFloat16);
                expected = attention.attend(inputs.query(), inputs.key(), inputs.value());
            }
            Ranks.run(
                    3,
                    false,
                    exchange -> Tensors.run(() -> {
                        try (ShardedAttention attention = new ShardedAttention(
                                TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT, false, false, exchange)) {
                            TokenLayout layout = attention.layout();
                            long first = firstImage(picture, layout);
                            Tensor output = attention.attend(
                                    rows(inputs.query(), layout, first, picture.guidanceTokens()),
                                    rows(inputs.key(), layout, first, picture.guidanceTokens()),
                                    rows(inputs.value(), layout, first, picture.guidanceTokens()));
                            Tensor text = output.narrow(0, 0, TEXT);
                            assertThat(text.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
                            assertThat(Golden.relativeL2(text, expected.narrow(0, 0, TEXT)))
                                    .isLessThan(4e-3);
                        }
                    }));
        });
    }

    /** 4096² on two GPUs: each takes a column of cells. */
    @Test
    void exchangesTheBorderAlone() {
        Tensors.run(() -> {
            try (Geometry whole = Geometry.windowed(512, 256, 256, AttentionWindow.DEFAULT)) {
                Border first = Border.of(whole, 2, 0);
                Border second = Border.of(whole, 2, 1);
                assertThat(first.takenRows()).containsExactly(0, 32 * 64);
                assertThat(first.givenRows()).containsExactly(0, 32 * 64);
                assertThat(second.takenRows()).containsExactly(32 * 64, 0);
                assertThat(first.exchanged()).isEqualTo(2 * 32 * 64);
                assertThat(Arrays.stream(first.given()).boxed()).allMatch(row -> 512 <= row && row < 512 + 32768);
                try (Geometry shard = whole.shard(2, 1)) {
                    for (int i = 0; i < first.given().length; i++) {
                        assertThat(shard.layout().importedNumber(i))
                                .isEqualTo(whole.layout().imageNumber((int) first.given()[i] - 512));
                    }
                }
            }
        });
    }

    @Test
    void aPictureOfTooFewWindowsIsRefused() {
        assertThatThrownBy(() -> Ranks.run(
                        3,
                        false,
                        exchange ->
                                new ShardedAttention(TEXT, 16, 32, AttentionWindow.DEFAULT, false, false, exchange)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("shards is 3, expected 1 to 2, one for each window");
    }

    @Test
    void aShardHasNoWholePictureToRestore() {
        Tensors.run(() -> {
            try (Geometry whole = Geometry.windowed(0, 32, 16, AttentionWindow.DEFAULT);
                    Geometry shard = whole.shard(2, 1)) {
                Tensor raster = torch.arange(new Scalar(512), Placement.FLOAT32_CPU.options())
                        .unsqueeze(1);
                Tensor own = shard.layout().arrangeImage(raster);
                assertThat(own.equal(whole.layout().arrangeImage(raster).narrow(0, 256, 256)))
                        .isTrue();
                assertThatThrownBy(() -> shard.layout().restoreImage(own))
                        .hasMessage("a shard of 256 tokens is asked for the 512 of the whole picture");
            }
        });
    }
}
