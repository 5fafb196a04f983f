package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Map;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.scaledit.testing.OtherJvm;

/** How many threads libtorch computes with. */
class TorchThreadsTest {
    private static final String OMP_NUM_THREADS = "OMP_NUM_THREADS";

    /** Prints what it has after the first load and after another one. */
    static final class Program {
        private Program() {}

        public static void main(String[] arguments) {
            Torch.load();
            System.out.print(torch.get_num_threads());
            torch.set_num_threads(1);
            Torch.load();
            System.out.print(" " + torch.get_num_threads());
        }
    }

    @Test
    void severalCoresHaveSeveralThreads() throws IOException, InterruptedException {
        int cores = Math.min(Loader.totalCores(), Runtime.getRuntime().availableProcessors());
        int threads = Integer.parseInt(threads(Map.of()).split(" ", 2)[0]);
        assertThat(threads > 1).isEqualTo(cores > 1);
    }

    @Test
    void whoChoosesFewerKeepsThem() throws IOException, InterruptedException {
        assertThat(threads(Map.of())).endsWith(" 1");
        assertThat(threads(Map.of(OMP_NUM_THREADS, "1"))).isEqualTo("1 1");
    }

    private static String threads(Map<String, String> users) throws IOException, InterruptedException {
        return OtherJvm.output(OtherJvm.of(Program.class), users, OMP_NUM_THREADS);
    }
}
