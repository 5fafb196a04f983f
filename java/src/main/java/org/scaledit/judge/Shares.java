package org.scaledit.judge;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.scaledit.checkpoint.Config;
import org.scaledit.scenes.Probe;

/**
 * How much of each probe was right.
 *
 * @param of each probe that there was, 0 … 1
 */
public record Shares(Map<Probe, Double> of) {
    private static final String OVERALL = "overall";

    /** A picture that was judged. */
    public record Mark(Probe probe, boolean right) {}

    public static Shares of(Stream<Mark> marks) {
        return new Shares(marks.collect(Collectors.groupingBy(
                Mark::probe,
                () -> new EnumMap<>(Probe.class),
                Collectors.averagingDouble(mark -> mark.right ? 1 : 0))));
    }

    static Shares read(Config config) {
        Map<Probe, Double> shares = new EnumMap<>(Probe.class);
        for (Probe probe : Probe.values()) {
            shares.put(probe, config.number(probe.word()));
        }
        return new Shares(shares);
    }

    /** The mean of the probes, as GenEval has it. */
    public double overall() {
        return of.values().stream().mapToDouble(Double::doubleValue).average().orElseThrow();
    }

    private Map<String, Double> byName() {
        Map<String, Double> shares = new LinkedHashMap<>();
        of.forEach((probe, share) -> shares.put(probe.word(), share));
        shares.put(OVERALL, overall());
        return shares;
    }

    /** Puts all of them and the overall one into an object, rounded to a ten-thousandth. */
    public void write(ObjectNode json) {
        byName().forEach((name, share) -> json.put(name, Math.round(share * 1e4) / 1e4));
    }

    /** "one 0.990, two 0.985 …, overall 0.971" */
    public String words() {
        return byName().entrySet().stream()
                .map(share -> String.format(Locale.ROOT, "%s %.3f", share.getKey(), share.getValue()))
                .collect(Collectors.joining(", "));
    }
}
