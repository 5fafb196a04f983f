package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.AttentionWindow.GuidanceAttention;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Gpu;
import org.scaledit.testing.RandomBlocks;

/** Shards of a picture, on one GPU or on several, have together the velocity of the whole. */
@Timeout(value = 8, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class ShardedPassGpuTest {
    private static final FluxConfig FOUR_BLOCKS = RandomBlocks.config(2, 2);

    @TempDir
    static Path folder;

    private static Path checkpoint;

    /** 2 GB. */
    @BeforeAll
    static void writeCheckpoint() {
        checkpoint = RandomBlocks.write(folder, FOUR_BLOCKS, 7);
    }

    @AfterAll
    static void giveBack() {
        torch.emptyCache();
    }

    private static FluxTransformer load(boolean fp8, int ranks) {
        return FluxTransformer.load(
                FOUR_BLOCKS,
                Weights.of(Safetensors.open(checkpoint), Gpu.BFLOAT16),
                FluxTransformer.headGroups(Gpu.BFLOAT16, ranks),
                fp8);
    }

    private static ShardedPicture picture(int width, int height, boolean guidanceSeesText, boolean int8) {
        AttentionWindow window = new AttentionWindow(4, 16, 1, 3, GuidanceAttention.GLOBAL, guidanceSeesText);
        return new ShardedPicture(512, width, height, window, int8, false, Gpu.BFLOAT16);
    }

    private static void assertNear(ShardedPicture picture, boolean fp8, int ranks, boolean apart) {
        try (ShardedPicture.Result whole = picture.velocities(1, () -> load(fp8, 1));
                ShardedPicture.Result shards = picture.velocities(ranks, apart, () -> load(fp8, ranks))) {
            double least = least(picture, fp8, whole.velocities().get(0));
            for (int step = 0; step < whole.velocities().size(); step++) {
                double near =
                        cosine(shards.velocities().get(step), whole.velocities().get(step));
                System.out.printf(
                        "%d ranks on %s, %d x %d tokens, %s%s: cosine %.7f%n",
                        ranks,
                        apart ? "a GPU each" : "one GPU",
                        picture.width(),
                        picture.height(),
                        picture.int8() ? "attention in INT8" : "attention in bfloat16",
                        fp8 ? ", products in FP8" : "",
                        near);
                assertThat(near).isGreaterThanOrEqualTo(least);
            }
        }
    }

    private static double cosine(Tensor a, Tensor b) {
        return Tensors.compute(() -> {
            Tensor x = a.to(torch.ScalarType.Double).flatten();
            Tensor y = b.to(torch.ScalarType.Double).flatten();
            return x.dot(y).item_double() / (x.norm().item_double() * y.norm().item_double());
        });
    }

    /**
     * What is to be reached. In FP8, where any difference falls on other codes, a whole picture's velocity is not near itself
     * once its latents change in the fifth digit (cosine 0.9984 was measured): shards are to be as near.
     */
    private static double least(ShardedPicture picture, boolean fp8, Tensor whole) {
        if (!fp8) {
            return 0.9999;
        }
        try (ShardedPicture.Result nudged = picture.nudged(0x1p-15).velocities(1, () -> load(true, 1))) {
            double near = cosine(nudged.velocities().get(0), whole);
            System.out.printf("latents nudged by 2^-15, products in FP8: cosine %.7f%n", near);
            return 1 - 1.25 * (1 - near);
        }
    }

    /** Ragged grids; guidance computed at each step, or once. */
    @Tag("gpu")
    @ParameterizedTest
    @CsvSource({
        "2, true, false, false",
        "2, true, true, false",
        "2, true, true, true",
        "3, false, true, true",
        "5, true, false, false",
        "7, false, true, false"
    })
    void ranksThatShareAGpuHaveTheVelocityOfTheWholePicture(
            int ranks, boolean guidanceSeesText, boolean int8, boolean fp8) {
        assertNear(picture(90, 125, guidanceSeesText, int8), fp8, ranks, false);
    }

    @Tag("gpus")
    @ParameterizedTest
    @CsvSource({
        "90, 125, true, false, false",
        "90, 125, true, true, false",
        "128, 128, true, true, true",
        "90, 125, false, true, true"
    })
    void twoGpusHaveTheVelocityOfOne(int width, int height, boolean guidanceSeesText, boolean int8, boolean fp8) {
        CudaAttention.requireGpus(2);
        assertNear(picture(width, height, guidanceSeesText, int8), fp8, 2, true);
    }
}
