package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.ScaleDit;
import org.scaledit.testing.Golden;
import org.scaledit.testing.OtherJvm;

/** How libtorch's threads wait for work, in the words of its OpenMP runtime when it is loaded. */
class WaitPolicyTest {
    /** A program that knows nothing of OpenMP. */
    static final class Program {
        private Program() {}

        public static void main(String[] arguments) {
            if (arguments[0].equals("load")) {
                ScaleDit.load(Golden.tinyFlux()).close();
            } else {
                ScaleDit.describe(Golden.tinyFlux());
            }
        }
    }

    /** Unless it is told otherwise, libgomp looks 300,000 times for work before a thread sleeps. */
    @ParameterizedTest
    @ValueSource(strings = {"load", "describe"})
    void threadsSleep(String call) throws IOException, InterruptedException {
        assertThat(runtime(call, Map.of())).contains("GOMP_SPINCOUNT = '0'");
    }

    @Test
    void whatTheUserSetsStands() throws IOException, InterruptedException {
        assertThat(runtime("load", Map.of("OMP_WAIT_POLICY", "ACTIVE"))).contains("OMP_WAIT_POLICY = 'ACTIVE'");
        assertThat(runtime("load", Map.of("GOMP_SPINCOUNT", "1000"))).contains("GOMP_SPINCOUNT = '1000'");
    }

    private static String runtime(String call, Map<String, String> users) throws IOException, InterruptedException {
        ProcessBuilder builder = OtherJvm.of(Program.class, call);
        builder.environment().put("OMP_DISPLAY_ENV", "VERBOSE");
        return OtherJvm.output(builder, users, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT");
    }
}
