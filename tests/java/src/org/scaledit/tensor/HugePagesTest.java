package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.scaledit.testing.OtherJvm;

/** Large tensors lie in large pages where the kernel has them for whoever asks, which is Debian's default. */
class HugePagesTest {
    private static final String VARIABLE = "THP_MEM_ALLOC_ENABLE";
    private static final long BYTES = 256L << 20;

    /** Prints how many bytes of large pages a tensor adds to the process. */
    static final class Program {
        private Program() {}

        public static void main(String[] arguments) throws IOException {
            Torch.load();
            long before = inHugePages();
            try (Tensor tensor = torch.ones(BYTES / Float.BYTES)) {
                System.out.print(inHugePages() - before);
            }
        }

        private static long inHugePages() throws IOException {
            return Files.readAllLines(Path.of("/proc/self/smaps_rollup")).stream()
                    .filter(line -> line.startsWith("AnonHugePages:"))
                    .mapToLong(line -> 1024 * Long.parseLong(line.replaceAll("\\D", "")))
                    .sum();
        }
    }

    @BeforeAll
    static void requireAdvice() throws IOException {
        Path setting = Path.of("/sys/kernel/mm/transparent_hugepage/enabled");
        assumeTrue(Files.exists(setting) && Files.readString(setting).contains("[madvise]"));
    }

    @Test
    void tensorsLieInThem() throws IOException, InterruptedException {
        assertThat(inHugePages(Map.of())).isGreaterThan(BYTES / 2);
    }

    @Test
    void whatTheUserSetsStands() throws IOException, InterruptedException {
        assertThat(inHugePages(Map.of(VARIABLE, "0"))).isLessThan(BYTES / 2);
    }

    private static long inHugePages(Map<String, String> users) throws IOException, InterruptedException {
        return Long.parseLong(OtherJvm.output(OtherJvm.of(Program.class), users, VARIABLE));
    }
}
