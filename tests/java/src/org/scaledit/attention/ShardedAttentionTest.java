package org.scaledit.attention;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.AttentionTest.Inputs;
import org.scaledit.ranks.Ranks;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** Ranks that paint a picture together, here all on the CPU or on one GPU, attend as one does alone. */
@Timeout(value = 5, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ShardedAttentionTest {
    private static final int TEXT = 70;
    private static final int WIDTH = 53;
    private static final int HEIGHT = 70;

    /** Of the image, and 14 x 18 of the guidance image. */
    private static final int TOKENS = WIDTH * HEIGHT + 14 * 18;

    /** Imported rows are not a number until the ranks have exchanged them. */
    @ParameterizedTest
    @ValueSource(ints = {2, 3, 5, 7})
    void ranksAttendTogetherAsOneAlone(int ranks) {
        Tensor[] texts = new Tensor[ranks];
        boolean[] seen = new boolean[TOKENS];
        Tensors.run(() -> {
            Whole whole = Whole.of(2, 64, torch.ScalarType.Float);
            Ranks.run(
                    ranks,
                    false,
                    exchange -> Tensors.run(() -> {
                        try (ShardedAttention attention = new ShardedAttention(
                                TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT, false, false, exchange)) {
                            Tensor output = whole.attend(attention, Placement.FLOAT32_CPU);
                            Tensor own = whole.owned(attention.layout());
                            Tensor rows = output.narrow(0, TEXT, own.size(0));
                            assertThat(Golden.relativeL2(rows, whole.output.index_select(0, own)))
                                    .isLessThan(1e-6);
                            for (long row : Tensors.longs(own)) {
                                seen[(int) row - TEXT] = true;
                            }
                            texts[exchange.rank()] = Tensors.keep(output.narrow(0, 0, TEXT));
                        }
                    }));
            assertThat(seen).doesNotContain(false);
            for (Tensor text : texts) {
                assertThat(text.equal(texts[0]))
                        .as("the same bits in all ranks")
                        .isTrue();
            }
            assertThat(Golden.relativeL2(texts[0], whole.output.narrow(0, 0, TEXT)))
                    .isLessThan(1e-6);
        });
        Arrays.stream(texts).forEach(Tensor::close);
    }

    /** The whole picture: what it attends with, and what comes of it. */
    private record Whole(TokenLayout layout, Inputs inputs, Tensor output) {
        static Whole of(int heads, int headDim, torch.ScalarType type) {
            try (Geometry geometry = Geometry.windowed(TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT);
                    NativeAttention attention = new NativeAttention(geometry, NativeAttention.Arithmetic.FLOAT32)) {
                Inputs inputs = Inputs.random(geometry.layout().tokens(), heads, headDim, type);
                return new Whole(
                        geometry.layout(), inputs, attention.attend(inputs.query(), inputs.key(), inputs.value()));
            }
        }

        /** Rows of the picture's image and guidance tokens that a shard owns. */
        Tensor owned(TokenLayout shard) {
            Map<Long, Long> rows = new HashMap<>();
            for (int position = 0; position < TOKENS; position++) {
                rows.put(layout.number(position), (long) TEXT + position);
            }
            int count = shard.imageTokens() + shard.guidanceTokens();
            long[] owned = IntStream.range(0, count)
                    .mapToLong(position -> Optional.ofNullable(rows.get(shard.number(position)))
                            .orElseThrow())
                    .toArray();
            return Tensors.of(owned, count);
        }

        Tensor attend(ShardedAttention attention, Placement placement) {
            TokenLayout shard = attention.layout();
            return attention.attend(
                    placement.place(rows(inputs.query(), shard)),
                    placement.place(rows(inputs.key(), shard)),
                    placement.place(rows(inputs.value(), shard)));
        }

        /** A shard's rows of the whole picture's, and not-a-numbers for those that it imports. */
        private Tensor rows(Tensor whole, TokenLayout shard) {
            long[] shape = {shard.importedTokens(), whole.size(1), whole.size(2)};
            return Tensors.concatenate(
                    0,
                    whole.narrow(0, 0, TEXT),
                    whole.index_select(0, owned(shard)),
                    torch.full(shape, new Scalar(Double.NaN)).to(whole.scalar_type()));
        }
    }

    /** What is gathered lies side by side with sums of twice the bytes. */
    @Test
    void textIsJoinedInBfloat16() {
        Tensors.run(() -> {
            Whole whole = Whole.of(3, 128, torch.ScalarType.BFloat16);
            Ranks.run(
                    3,
                    false,
                    exchange -> Tensors.run(() -> {
                        try (ShardedAttention attention = new ShardedAttention(
                                TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT, false, false, exchange)) {
                            Tensor text = whole.attend(attention, Placement.BFLOAT16_CPU)
                                    .narrow(0, 0, TEXT);
                            assertThat(text.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
                            assertThat(Golden.relativeL2(text, whole.output.narrow(0, 0, TEXT)))
                                    .isLessThan(4e-3);
                        }
                    }));
        });
    }

    /** In INT8 keys and values come in 8 bits, too: that is lost among what attention quantises and the values' FP8. */
    @Tag("gpu")
    @ParameterizedTest
    @CsvSource({"2, false, 1e-2", "2, true, 6e-2", "5, true, 6e-2"})
    void ranksThatShareAGpuAttendTogetherAsOneAlone(int ranks, boolean int8, double limit) {
        CudaAttention.requireGpu();
        Tensors.run(() -> {
            Whole whole = Whole.of(2, 128, torch.ScalarType.BFloat16);
            Ranks.run(
                    ranks,
                    false,
                    exchange -> Tensors.run(() -> {
                        try (ShardedAttention attention = new ShardedAttention(
                                TEXT, WIDTH, HEIGHT, AttentionWindow.DEFAULT, true, int8, exchange)) {
                            Tensor output =
                                    whole.attend(attention, Gpu.BFLOAT16).cpu();
                            Tensor own = whole.owned(attention.layout());
                            double image = Golden.relativeL2(
                                    output.narrow(0, TEXT, own.size(0)), whole.output.index_select(0, own));
                            double text = Golden.relativeL2(output.narrow(0, 0, TEXT), whole.output.narrow(0, 0, TEXT));
                            System.out.printf(
                                    "rank %d of %d%s: image %.1e, text %.1e%n",
                                    exchange.rank(), ranks, int8 ? ", INT8" : "", image, text);
                            assertThat(image).isLessThan(limit);
                            assertThat(text).isLessThan(limit);
                        }
                    }));
        });
    }

    /** 4096² on two GPUs: each takes a column of cells, and the other half of the guidance tokens. */
    @Test
    void exchangesBorderAndGuidanceAlone() {
        Tensors.run(() -> {
            try (Geometry whole = Geometry.windowed(512, 256, 256, AttentionWindow.DEFAULT)) {
                Border first = Border.of(whole, 2, 0);
                Border second = Border.of(whole, 2, 1);
                int taken = 32 * 64 + 2048;
                assertThat(first.own()).containsExactly(32768, 32768);
                assertThat(first.takenRows()).containsExactly(0, taken);
                assertThat(first.givenRows()).containsExactly(0, taken);
                assertThat(second.takenRows()).containsExactly(taken, 0);
                assertThat(first.exchanged()).isEqualTo(2L * taken);
                try (Geometry owner = whole.shard(2, 0);
                        Geometry taker = whole.shard(2, 1)) {
                    for (int i = 0; i < taken; i++) {
                        assertThat(taker.layout().number(32768 + 2048 + i))
                                .isEqualTo(owner.layout().number((int) first.given()[i] - 512));
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
