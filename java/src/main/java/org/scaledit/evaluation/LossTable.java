package org.scaledit.evaluation;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.function.ToDoubleFunction;
import java.util.stream.Collectors;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.ScaleDit;
import org.scaledit.image.ImageException;
import org.scaledit.image.OutputFile;
import org.scaledit.training.HeldOutLoss;
import org.scaledit.training.HeldOutLoss.Losses;
import org.scaledit.training.HeldOutLoss.Sample;

/**
 * What a LoRA earns: by how much it lowers the loss of Scale-DiT, and how much that is of the gap to dense attention.
 *
 * @param samples of each picture one for each band, in the order in which {@link HeldOutLoss#measure} gives them
 */
public record LossTable(HeldOutLoss.Order order, List<Sample> samples) {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** A gap of no more standard errors than these is as good as none: a share of it would say nothing. */
    private static final int ERRORS_OF_CHANCE = 2;

    private static final String COLUMNS = "%-14s %9s %9s %9s  %-18s  %-18s  %s%n";

    public LossTable {
        samples = List.copyOf(samples);
    }

    /**
     * A mean over pictures.
     *
     * @param error its standard error; of one picture there is none
     */
    public record Estimate(double mean, OptionalDouble error) {
        static Estimate of(List<Losses> pictures, ToDoubleFunction<Losses> value) {
            int count = pictures.size();
            double mean = LossTable.mean(pictures, value);
            double squares = pictures.stream()
                    .mapToDouble(losses -> Math.pow(value.applyAsDouble(losses) - mean, 2))
                    .sum();
            return new Estimate(
                    mean,
                    count == 1 ? OptionalDouble.empty() : OptionalDouble.of(Math.sqrt(squares / (count - 1) / count)));
        }

        private String words(String format) {
            String plusMinus = error.isPresent() ? " ± " + String.format(Locale.ROOT, format, error.getAsDouble()) : "";
            return String.format(Locale.ROOT, format, mean) + plusMinus;
        }

        private void write(ObjectNode json, String name) {
            json.put(name, mean);
            error.ifPresent(value -> json.put(name + "_standard_error", value));
        }
    }

    /**
     * Noise levels, with the losses at these of each picture.
     *
     * @param from the least noise; {@code to} the most
     */
    public record Row(double from, double to, List<Losses> pictures) {
        public Losses losses() {
            return LossTable.mean(pictures);
        }

        /** By how much the LoRA lowers the loss. */
        public Estimate gain() {
            return Estimate.of(pictures, Row::gain);
        }

        /** By how much dense attention's loss is lower than Scale-DiT's without a LoRA. */
        public Estimate gap() {
            return Estimate.of(pictures, Row::gap);
        }

        /** How much of the gap the LoRA closes; nothing where there is no gap, or one that chance may have made. */
        public Optional<Estimate> share() {
            double gap = gap().mean;
            if (gap <= ERRORS_OF_CHANCE * gap().error.orElse(0)) {
                return Optional.empty();
            }
            double share = gain().mean / gap;
            // Of a ratio of means: the deviation of what is above or below it by the mean in the denominator.
            OptionalDouble error = Estimate.of(pictures, losses -> gain(losses) - share * gap(losses)).error;
            return Optional.of(
                    new Estimate(share, error.isPresent() ? OptionalDouble.of(error.getAsDouble() / gap) : error));
        }

        private static double gain(Losses losses) {
            return losses.withoutLora() - losses.withLora();
        }

        private static double gap(Losses losses) {
            return losses.withoutLora() - losses.dense();
        }

        private String line(String name) {
            Losses mean = losses();
            return String.format(
                    Locale.ROOT,
                    COLUMNS,
                    name,
                    number(mean.dense()),
                    number(mean.withoutLora()),
                    number(mean.withLora()),
                    gain().words("%.5f"),
                    gap().words("%.5f"),
                    share().map(share -> share.words("%.2f")).orElse(gap().mean > 0 ? "unclear" : "no gap"));
        }

        private static String number(double value) {
            return String.format(Locale.ROOT, "%.5f", value);
        }

        private void write(ObjectNode json) {
            LossTable.write(json.put("sigma_from", from).put("sigma_to", to), losses());
            gain().write(json, "gain");
            gap().write(json, "gap");
            share().ifPresent(share -> share.write(json, "share"));
        }
    }

    private static double mean(List<Losses> losses, ToDoubleFunction<Losses> value) {
        return losses.stream().mapToDouble(value).average().orElseThrow();
    }

    private static Losses mean(List<Losses> losses) {
        return new Losses(
                mean(losses, Losses::dense), mean(losses, Losses::withoutLora), mean(losses, Losses::withLora));
    }

    /** A row for each band of noise levels, that with the least noise first. */
    public List<Row> bands() {
        List<Row> bands = new ArrayList<>();
        for (int band = 0; band < order.noiseLevels(); band++) {
            int current = band;
            bands.add(new Row(
                    edge(band),
                    edge(band + 1),
                    samples.stream()
                            .filter(sample -> sample.band() == current)
                            .map(Sample::losses)
                            .toList()));
        }
        return bands;
    }

    private double edge(int band) {
        return order.timesteps().quantile((double) band / order.noiseLevels());
    }

    /** All noise levels: bands are equally probable, so a picture's losses are the means of its samples'. */
    public Row all() {
        List<Losses> pictures = new ArrayList<>();
        for (int first = 0; first < samples.size(); first += order.noiseLevels()) {
            pictures.add(mean(samples.subList(first, first + order.noiseLevels()).stream()
                    .map(Sample::losses)
                    .toList()));
        }
        return new Row(0, 1, pictures);
    }

    /** For people. */
    public String words() {
        Row all = all();
        String bands = bands().stream()
                .map(row -> row.line(String.format(Locale.ROOT, "%.3f to %.3f", row.from, row.to)))
                .collect(Collectors.joining());
        return String.format(
                        Locale.ROOT,
                        COLUMNS,
                        "noise levels",
                        "dense",
                        "Scale-DiT",
                        "with LoRA",
                        "the LoRA's gain",
                        "gap to dense",
                        "share")
                + bands
                + all.line("all")
                + verdict(all)
                + String.format(
                        Locale.ROOT,
                        "%npictures: %d, noise levels of each: %d; ± is the standard error of a mean over pictures%n",
                        all.pictures.size(),
                        order.noiseLevels());
    }

    private static String verdict(Row all) {
        if (all.gap().mean <= 0) {
            return "dense attention is no better than Scale-DiT without a LoRA: there is no gap to close";
        }
        return all.share()
                .map(share -> "the LoRA closes " + share.words("%.2f")
                        + " of the gap between Scale-DiT without it and dense attention")
                .orElse("dense attention is better than Scale-DiT without a LoRA by no more than " + ERRORS_OF_CHANCE
                        + " standard errors: a share of so small a gap says nothing, more pictures would");
    }

    /**
     * Writes all of it as JSON.
     *
     * @throws ImageException if the file cannot be written
     */
    public void write(Path file) {
        OutputFile.replace(file, stream -> stream.write(json().getBytes(StandardCharsets.UTF_8)));
    }

    private String json() throws IOException {
        ObjectNode json = JSON.createObjectNode();
        json.put("date", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString());
        json.put("scaledit", ScaleDit.version());
        json.put("model", order.model().toString());
        json.put("data", order.data().toString());
        order.loras()
                .forEach(lora -> json.withArray("loras")
                        .addObject()
                        .put("file", lora.file().toString())
                        .put("scale", lora.scale()));
        json.put("lora_scope", name(order.scope()));
        json.put("resolution", order.resolution());
        json.put("ratio", order.ratio());
        order.textTokens().ifPresent(tokens -> json.put("text_tokens", tokens));
        json.put("pictures", samples.size() / order.noiseLevels());
        json.put("noise_levels", order.noiseLevels());
        json.put("timesteps", name(order.timesteps()));
        json.put("attention", name(order.attention()));
        boolean float32 = order.placement().dtype() == torch.ScalarType.Float;
        json.put("precision", float32 ? "float32" : "bfloat16");
        json.put("device", order.placement().cuda() ? "cuda" : "cpu");
        json.put("seed", order.seed());
        all().write(json.putObject("all"));
        bands().forEach(band -> band.write(json.withArray("bands").addObject()));
        samples.forEach(sample -> write(
                json.withArray("samples")
                        .addObject()
                        .put("picture", sample.picture())
                        .put("sigma", sample.sigma()),
                sample.losses()));
        return JSON.writerWithDefaultPrettyPrinter().writeValueAsString(json) + "\n";
    }

    private static void write(ObjectNode json, Losses losses) {
        json.put("dense", losses.dense())
                .put("without_lora", losses.withoutLora())
                .put("with_lora", losses.withLora());
    }

    private static String name(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT).replace('_', '-');
    }
}
