package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Gpu;
import org.scaledit.testing.OtherJvm;

/** A process that loses its GPU on the way, as what is lost does not come back to the process that lost it. */
class LostGpuTest {
    private static final long LIMIT_IN_SECONDS = 300;
    private static final long MOST_SECONDS_A_REQUEST = 30;

    @TempDir
    Path folder;

    /** Loses a GPU in the middle of a picture and prints what it is told from then on. */
    static final class Losing {
        private Losing() {}

        /** @param arguments how many GPUs paint, and which of them is lost */
        public static void main(String[] arguments) {
            int gpus = Integer.parseInt(arguments[0]);
            int lost = Integer.parseInt(arguments[1]);
            ImageRequest request = ScaleDitGpuTest.request();
            try (ScaleDit model = ScaleDitGpuTest.tiny().gpus(gpus).load()) {
                model.generate(request);
                say(() -> model.generate(request, ScaleDitTest.at(Progress.Stage.HIGH_RESOLUTION, () -> lose(lost))));
                say(() -> model.generate(request));
            }
            say(() -> ScaleDitGpuTest.tiny().gpus(gpus).load().close());
            System.out.println("said: closed");
        }

        /** A row that is not there: the kernel's own check ends all that this process may do on the GPU. */
        private static void lose(int gpu) {
            Cuda.use(gpu);
            Tensors.run(() -> torch.ones(new long[] {4, 4}, Gpu.FLOAT32.options())
                    .index_select(
                            0, new Placement(torch.ScalarType.Long, true).place(Tensors.of(new long[] {1000}, 1))));
            Cuda.use(0);
        }

        private static void say(Runnable request) {
            long begun = System.nanoTime();
            try {
                request.run();
                System.out.println("said: nothing");
            } catch (GpuException e) {
                System.out.println("said: " + e.lost() + " " + e.getMessage());
            }
            System.out.println("seconds: " + TimeUnit.NANOSECONDS.toSeconds(System.nanoTime() - begun));
        }
    }

    @Test
    @Tag("gpu")
    void everyRequestSaysSoAndTheProcessEndsInOrder() throws IOException, InterruptedException {
        assertSaid(1, 0);
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1})
    @Tag("gpus")
    void oneOfTwoThatPaintTogetherDoesNotTakeTheProcessWithIt(int lost) throws IOException, InterruptedException {
        CudaAttention.requireGpus(2);
        assertSaid(2, lost);
    }

    private void assertSaid(int gpus, int lost) throws IOException, InterruptedException {
        Path output = folder.resolve("output.txt");
        Process process = OtherJvm.of(Losing.class, String.valueOf(gpus), String.valueOf(lost))
                .redirectOutput(output.toFile())
                .start();
        boolean ended = process.waitFor(LIMIT_IN_SECONDS, TimeUnit.SECONDS);
        process.destroyForcibly();
        String printed = Files.readString(output);
        assertThat(ended).as(printed).isTrue();
        assertThat(process.exitValue()).as(printed).isZero();
        List<String> said =
                printed.lines().filter(line -> line.startsWith("said: ")).toList();
        assertThat(said).as(printed).hasSize(4);
        assertThat(said.get(0))
                .startsWith("said: true the GPU cannot be used any more by this process, which has to be started anew:"
                        + " CUDA error: device-side assert");
        assertThat(said).containsExactly(said.get(0), said.get(0), said.get(0), "said: closed");
        assertThat(printed.lines().filter(line -> line.startsWith("seconds: ")))
                .as(printed)
                .allSatisfy(line -> assertThat(Long.parseLong(line.substring("seconds: ".length())))
                        .isLessThan(MOST_SECONDS_A_REQUEST));
    }
}
