package org.scaledit.scenes;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.CudaAttention;
import org.scaledit.image.Pixels;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Drawings;

/** A GPU paints what a CPU paints. */
@Tag("gpu")
class SceneGpuTest {
    private static final int SCENES = 64;

    @TempDir
    static Path folder;

    private static SceneRenderer onCpu;
    private static SceneRenderer onGpu;
    private static List<Scene> scenes;

    @BeforeAll
    static void compose() throws IOException {
        CudaAttention.requireGpu();
        Drawings.write(folder);
        Sprites sprites = Sprites.open(folder);
        onCpu = new SceneRenderer(sprites);
        onGpu = SceneRenderer.on(true, sprites);
        Composer composer = new Composer(Vocabulary.standard(), sprites, false);
        scenes = LongStream.range(0, SCENES).mapToObj(composer::compose).toList();
    }

    @AfterAll
    static void giveBack() {
        onGpu.close();
        torch.emptyCache();
    }

    private static void assertLike(byte[] painted, byte[] expected, Scene scene) {
        int most = 0;
        for (int i = 0; i < expected.length; i++) {
            most = Math.max(most, Math.abs((painted[i] & 255) - (expected[i] & 255)));
        }
        assertThat(painted).as("%s", scene).hasSameSizeAs(expected);
        assertThat(most).as("%s", scene).isLessThanOrEqualTo(1);
    }

    @Test
    void picturesAreThoseOfTheCpu() {
        for (Scene scene : scenes) {
            assertLike(onGpu.render(scene, 256), onCpu.render(scene, 256), scene);
            assertLike(
                    onGpu.render(scene, 8192, 3000, 300, 4000, 333),
                    onCpu.render(scene, 8192, 3000, 300, 4000, 333),
                    scene);
        }
        for (Scene scene : scenes.subList(0, 16)) {
            assertLike(onGpu.render(scene, 1024), onCpu.render(scene, 1024), scene);
        }
    }

    @Test
    void aTensorIsPaintedOnTheGpu() {
        Tensors.run(() -> {
            for (Scene scene : scenes.subList(0, 16)) {
                Tensor picture = onGpu.tensor(scene, 512, 100, 128, 200, 130);
                assertThat(picture.is_cuda()).isTrue();
                Tensor expected = Pixels.toTensor(onCpu.render(scene, 512, 100, 128, 200, 130), 130);
                Tensor apart =
                        Placement.FLOAT32_CPU.place(picture).sub(expected).abs();
                assertThat(apart.max().item_float()).isLessThanOrEqualTo(1 / 127.5f + 1e-6f);
            }
        });
    }

    /** As a training's threads do it. */
    @Test
    void severalThreadsPaintAtATime() {
        List<byte[]> painted = IntStream.range(0, SCENES)
                .parallel()
                .mapToObj(i -> onGpu.render(scenes.get(i), 200))
                .toList();
        for (int i = 0; i < SCENES; i++) {
            assertLike(painted.get(i), onCpu.render(scenes.get(i), 200), scenes.get(i));
        }
    }

    /** NOTES.md says what is expected. */
    @Test
    void picturesASecond() {
        for (int[] part : new int[][] {{128, 1024}, {256, 256}, {1024, 1024}}) {
            int crop = part[0];
            int first = (part[1] - crop) / 2;
            double seconds = 0;
            for (int round = 0; round < 2; round++) { // the first one uploads sprites
                long start = System.nanoTime();
                for (Scene scene : scenes) {
                    Tensors.run(() -> onGpu.tensor(scene, part[1], first, crop, first, crop));
                }
                Cuda.synchronize();
                seconds = (System.nanoTime() - start) / 1e9;
            }
            System.out.printf("%d² of %d²: %.0f pictures a second%n", crop, part[1], SCENES / seconds);
            assertThat(seconds / SCENES).isLessThan(0.05);
        }
    }
}
