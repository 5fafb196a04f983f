package org.scaledit.evaluation;

import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * What came of a step that several GPUs computed together.
 *
 * @param size pixels along each side
 * @param alone seconds of the step by one GPU in the same run, the median; empty if it was out of memory
 * @param together seconds from when all began until the last one ended, the median
 * @param exchanging seconds of one step that each GPU spent with what it exchanged: moving it, and waiting for others
 * @param bytes that a GPU took from others in one layer, the most of them: keys and values of border cells and of guidance, and
 *     parts of the text's output
 * @param ringBytes what it would take in ring attention: keys and values of all image and guidance tokens that are not its own
 * @param peakBytes the most memory of each GPU that was handed out in a step, weights and all; 0 on a CPU
 * @param pictures whole ones, if asked for
 */
public record SharedMeasurement(
        Method method,
        int size,
        OptionalDouble alone,
        double together,
        List<Double> exchanging,
        long bytes,
        long ringBytes,
        List<Long> peakBytes,
        Optional<Pictures> pictures) {
    private static final double MIB = 1L << 20;
    private static final double GIB = 1L << 30;
    private static final String ROW = "%-15s %5s %4s %9s %9s %8s %12s %12s %14s %10s%n";

    /**
     * Whole pictures.
     *
     * @param alone by one GPU in the same run; empty if it was out of memory
     */
    public record Pictures(Optional<Measurement.Picture> alone, Measurement.Picture together) {
        private String lines() {
            return alone.map(one -> String.format("    picture by one: %s%n", one.text()))
                            .orElse("")
                    + String.format("    picture by all: %s%n", together.text());
        }
    }

    /** The head of the table. */
    public static String head() {
        return String.format(
                Locale.ROOT,
                ROW,
                "method",
                "size",
                "gpus",
                "s by one",
                "s by all",
                "speed-up",
                "MiB a layer",
                "ring's MiB",
                "ms exchanging",
                "GiB a GPU");
    }

    /** Its line of the table, and what is said of pictures below. */
    public String line() {
        return step() + pictures.map(Pictures::lines).orElse("");
    }

    private String step() {
        return String.format(
                Locale.ROOT,
                ROW,
                method.label(),
                size,
                exchanging.size(),
                alone.isPresent() ? String.format(Locale.ROOT, "%.3f", alone.getAsDouble()) : "-",
                String.format(Locale.ROOT, "%.3f", together),
                speedUp().isPresent()
                        ? String.format(Locale.ROOT, "%.2f", speedUp().getAsDouble())
                        : "-",
                String.format(Locale.ROOT, "%.2f", bytes / MIB),
                String.format(Locale.ROOT, "%.1f", ringBytes / MIB),
                String.format(
                        Locale.ROOT,
                        "%.1f to %.1f",
                        1e3 * Collections.min(exchanging),
                        1e3 * Collections.max(exchanging)),
                String.format(Locale.ROOT, "%.2f", Collections.max(peakBytes) / GIB));
    }

    /** How many times shorter the step is. */
    public OptionalDouble speedUp() {
        return alone.isPresent() ? OptionalDouble.of(alone.getAsDouble() / together) : alone;
    }
}
