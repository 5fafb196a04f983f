package org.scaledit.benchmarks;

import java.util.Arrays;
import java.util.function.Supplier;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * Wall-clock seconds of a computation, the median of several runs after one that warms up, and how far its result is
 * from the exact one (relative L2).
 */
record Measurement(String name, double seconds, double error) {
    /** @param runs at least 1; each run's result is freed before the next */
    static Measurement of(String name, double error, int runs, Supplier<Tensor> work) {
        double[] seconds = new double[runs];
        run(work);
        for (int i = 0; i < runs; i++) {
            seconds[i] = run(work);
        }
        Arrays.sort(seconds);
        double median = runs % 2 == 1 ? seconds[runs / 2] : (seconds[runs / 2 - 1] + seconds[runs / 2]) / 2;
        return new Measurement(name, median, error);
    }

    private static double run(Supplier<Tensor> work) {
        try (PointerScope scope = new PointerScope()) {
            long start = System.nanoTime();
            work.get();
            return (System.nanoTime() - start) * 1e-9;
        }
    }
}
