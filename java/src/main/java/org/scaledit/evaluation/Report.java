package org.scaledit.evaluation;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.OptionalLong;
import java.util.stream.Collectors;
import org.scaledit.ScaleDit;
import org.scaledit.image.OutputFile;

/** Measurements for people and for programs. */
public record Report(Map<String, String> hardware, String model, List<Measurement> measurements) {
    private static final double GIB = 1L << 30;
    private static final String ROW = "%-15s %5s %8s %10s %10s %6s %12s %12s%n";

    /** The head of the table. */
    public static String head() {
        return String.format(
                Locale.ROOT, ROW, "method", "size", "tokens", "s a step", "bare s", "ratio", "GiB above", "GiB in all");
    }

    /** A measurement's line of the table. */
    public static String line(Measurement measurement) {
        String method = measurement.method().label();
        return measurement
                .result()
                .map(result -> String.format(
                                Locale.ROOT,
                                ROW,
                                method,
                                measurement.size(),
                                measurement.tokens(),
                                number("%.3f", OptionalDouble.of(result.seconds())),
                                number("%.3f", result.bareSeconds()),
                                number("%.2f", result.ratio()),
                                number("%.2f", gib(result.bytesAboveWeights())),
                                number("%.2f", gib(result.peakBytes())))
                        + parts(result)
                        + result.picture().map(Report::picture).orElse("")
                        + measurement.failure().map("    %s%n"::formatted).orElse(""))
                .orElseGet(() -> String.format(
                        Locale.ROOT,
                        "%-15s %5s %8s %s%n",
                        method,
                        measurement.size(),
                        measurement.tokens(),
                        measurement.failure().orElseThrow()));
    }

    private static String picture(Measurement.Picture picture) {
        return String.format("    picture: %s%n", picture.text());
    }

    /** A line for each part of a step, the longest first; nothing if there was no profile. */
    private static String parts(Measurement.Result result) {
        double all = result.parts().values().stream()
                .mapToDouble(Double::doubleValue)
                .sum();
        return result.parts().entrySet().stream()
                .sorted(Map.Entry.<String, Double>comparingByValue().reversed())
                .map(part -> String.format(
                        Locale.ROOT,
                        "    %-11s %8.1f ms %5.1f %%%n",
                        part.getKey(),
                        1e3 * part.getValue(),
                        100 * part.getValue() / all))
                .collect(Collectors.joining());
    }

    private static OptionalDouble gib(OptionalLong bytes) {
        return bytes.isPresent() ? OptionalDouble.of(bytes.getAsLong() / GIB) : OptionalDouble.empty();
    }

    private static String number(String format, OptionalDouble value) {
        return value.isPresent() ? String.format(Locale.ROOT, format, value.getAsDouble()) : "-";
    }

    private static String number(OptionalLong bytes) {
        return bytes.isPresent() ? String.valueOf(bytes.getAsLong()) : "";
    }

    /**
     * Writes {@code step.json}, {@code step.csv} and two charts, {@code step-time.png} and {@code step-memory.png} (Table 3
     * and Figure 4 of the paper are such), into a folder, which is made if it is not there.
     */
    public void write(Path folder) throws IOException {
        Files.createDirectories(folder);
        replace(folder.resolve("step.json"), json());
        replace(folder.resolve("step.csv"), csv());
        new Chart("seconds a step", result -> OptionalDouble.of(result.seconds()))
                .write(folder.resolve("step-time.png"), measurements);
        new Chart("memory above the weights, GiB", result -> gib(result.bytesAboveWeights()))
                .write(folder.resolve("step-memory.png"), measurements);
    }

    private static void replace(Path file, String contents) {
        OutputFile.replace(file, stream -> stream.write(contents.getBytes(StandardCharsets.UTF_8)));
    }

    private String json() throws IOException {
        ObjectMapper mapper = new ObjectMapper();
        ObjectNode root = mapper.createObjectNode();
        root.put("date", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
        root.put("scaledit", ScaleDit.version());
        hardware.forEach(root::put);
        root.put("model", model);
        for (Measurement measurement : measurements) {
            ObjectNode row = root.withArray("measurements").addObject();
            row.put("method", measurement.method().label());
            row.put("size", measurement.size());
            row.put("tokens", measurement.tokens());
            measurement.failure().ifPresent(sentence -> row.put("failure", sentence));
            measurement.result().ifPresent(result -> {
                row.put("seconds", result.seconds());
                row.put("fastest_seconds", result.fastest());
                row.put("steps", result.steps());
                result.bareSeconds().ifPresent(bare -> row.put("bare_seconds", bare));
                result.ratio().ifPresent(ratio -> row.put("ratio", ratio));
                row.put("linear_operations", result.operations());
                result.bytesAboveWeights().ifPresent(bytes -> row.put("bytes_above_weights", bytes));
                result.peakBytes().ifPresent(bytes -> row.put("peak_bytes", bytes));
                if (!result.parts().isEmpty()) {
                    ObjectNode parts = row.putObject("parts");
                    result.parts().forEach(parts::put);
                }
                result.picture()
                        .ifPresent(picture -> row.putObject("picture")
                                .put("guidance_steps", picture.guidanceSteps())
                                .put("guidance_seconds", picture.guidance())
                                .put("high_resolution_steps", picture.highResolutionSteps())
                                .put("high_resolution_seconds", picture.highResolution())
                                .put("decode_seconds", picture.decode())
                                .put("seconds", picture.seconds()));
            });
        }
        return mapper.writerWithDefaultPrettyPrinter().writeValueAsString(root) + "\n";
    }

    private String csv() {
        StringBuilder csv = new StringBuilder(
                "method,size,tokens,seconds,fastest_seconds,bare_seconds,ratio,bytes_above_weights,peak_bytes,guidance_seconds,"
                        + "high_resolution_seconds,decode_seconds,picture_seconds,failure\n");
        for (Measurement measurement : measurements) {
            csv.append(String.join(
                    ",",
                    measurement.method().label(),
                    String.valueOf(measurement.size()),
                    String.valueOf(measurement.tokens()),
                    measurement.result().map(Report::columns).orElse(",,,,,,,,,"),
                    '"' + measurement.failure().orElse("").replace("\"", "\"\"") + '"'));
            csv.append('\n');
        }
        return csv.toString();
    }

    private static String columns(Measurement.Result result) {
        return String.join(
                ",",
                String.valueOf(result.seconds()),
                String.valueOf(result.fastest()),
                result.bareSeconds().isPresent()
                        ? String.valueOf(result.bareSeconds().getAsDouble())
                        : "",
                result.ratio().isPresent() ? String.valueOf(result.ratio().getAsDouble()) : "",
                number(result.bytesAboveWeights()),
                number(result.peakBytes()),
                result.picture()
                        .map(picture -> picture.guidance() + "," + picture.highResolution() + "," + picture.decode()
                                + "," + picture.seconds())
                        .orElse(",,,"));
    }
}
