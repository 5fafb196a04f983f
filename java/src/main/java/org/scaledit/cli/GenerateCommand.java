package org.scaledit.cli;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code scaledit generate}. An option that is not given leaves the model's or the request's own default, or --from's value. */
@Command(
        name = "generate",
        description = "Makes a picture from a prompt.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class GenerateCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 18;
    private static final int MOST_PICTURES = 1_000_000;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(arity = "0..1", paramLabel = "PROMPT", description = "What the picture shows.")
    private @Nullable String prompt;

    @Option(
            names = "--model",
            paramLabel = "DIR",
            description =
                    "FLUX.1 checkpoint, a diffusers directory. Default: the small model that is embedded. What its"
                            + " generation_config.json says replaces the defaults below.")
    private @Nullable Path model;

    @Option(
            names = "--width",
            paramLabel = "N",
            description = "Pixels, a multiple of 16. Default: 4096, or 1024 of the embedded model on a CPU.")
    private @Nullable Integer width;

    @Option(names = "--height", paramLabel = "N", description = "Likewise.")
    private @Nullable Integer height;

    @Mixin
    private final GenerationOptions options = new GenerationOptions();

    @Option(
            names = "--gpus",
            paramLabel = "N|all",
            converter = GpusOption.Converter.class,
            description =
                    "GPUs that paint a picture together, from the first on. Each holds transformer and VAE, denoises a part"
                            + " of the high-resolution picture and decodes some of its tiles; it is nearly the same as"
                            + " with one. Default: 1.")
    private @Nullable GpusOption gpus;

    @Mixin
    private final HostOptions hosts = new HostOptions();

    @Option(
            names = "--guide-image",
            paramLabel = "FILE",
            description = "PNG or JPEG to use in place of a generated guidance image.")
    private @Nullable Path guideImage;

    @Option(names = "--seed", paramLabel = "N", description = "The same seed gives the same picture. Default: random.")
    private @Nullable Long seed;

    @Option(
            names = "--count",
            paramLabel = "M",
            defaultValue = "1",
            description =
                    "Pictures to make, with this seed and those that follow; the files get numbers: scaledit-1.png and so"
                            + " on. With --gpus each GPU makes some of them by itself. Default: ${DEFAULT-VALUE}.")
    private int count;

    @Option(
            names = "--noise",
            paramLabel = "FILE",
            description = "Initial noise, a safetensors file with guidance_noise [1, w*h, 64] and noise [1, W*H, 64].")
    private @Nullable Path noise;

    @Option(names = "--trace", paramLabel = "FILE", description = "Write states and latents to a safetensors file.")
    private @Nullable Path trace;

    @Option(
            names = "--from",
            paramLabel = "PNG",
            description = "Take prompt and all settings from a picture that this program made; options given beside it "
                    + "replace its own.")
    private @Nullable Path from;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "FILE",
            description = "The PNG to write. Default: scaledit.png.")
    private Path output = Path.of("scaledit.png");

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() throws Exception {
        checkFiles();
        List<ImageRequest> requests = requests(request());
        ScaleDit.Builder builder = model();
        try (CleanInterrupt interrupt = new CleanInterrupt();
                ScaleDit scaleDit = builder.load();
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            if (hosts.isFirst()) {
                scaleDit.generatePngs(requests, files(), display);
            } else {
                requests.forEach(scaleDit::follow);
                spec.commandLine().getOut().println(hosts.done());
            }
        }
        return 0;
    }

    private List<ImageRequest> requests(ImageRequest request) {
        if (count == 1) {
            return List.of(request);
        }
        if (request.noise().isPresent() || trace != null) {
            throw new IllegalArgumentException(
                    (trace != null ? "a trace" : "noise") + " is given for " + count + " pictures, expected --count 1");
        }
        if (hosts.areSeveral() && request.seed().isEmpty()) {
            throw new IllegalArgumentException(
                    "no seed is given for " + count + " pictures of several hosts, expected --seed N");
        }
        long first = request.seed().orElseGet(() -> ThreadLocalRandom.current().nextLong(1L << 32));
        if (first > Long.MAX_VALUE - count) {
            throw new IllegalArgumentException("seed is " + first + ", expected at most " + (Long.MAX_VALUE - count)
                    + " for " + count + " pictures");
        }
        return LongStream.range(first, first + count).mapToObj(request::seed).toList();
    }

    /** One as it is named; several with a number each, as wide as the last one's. */
    private List<Path> files() {
        if (count == 1) {
            return List.of(output);
        }
        String name = output.getFileName().toString();
        int dot = name.lastIndexOf('.');
        String stem = dot > 0 ? name.substring(0, dot) : name;
        String ending = dot > 0 ? name.substring(dot) : "";
        int width = String.valueOf(count).length();
        return IntStream.rangeClosed(1, count)
                .mapToObj(number ->
                        output.resolveSibling(stem + String.format(Locale.ROOT, "-%0" + width + "d", number) + ending))
                .toList();
    }

    private void checkFiles() {
        requireExists("picture", from);
        requireExists("model", model);
        if (hosts.isFirst()) { // the others read neither
            requireExists("guide image", guideImage);
            requireExists("noise", noise);
        }
        options.checkFiles();
        if (count < 1 || count > MOST_PICTURES) {
            throw new IllegalArgumentException("count is " + count + ", expected 1 to " + MOST_PICTURES);
        }
        if (hosts.isFirst()) {
            Arguments.requireWritable(output);
            files().forEach(Arguments::requireWritable);
        }
        if (trace != null) {
            Arguments.requireWritable(trace);
            if (isSame(trace, output)) {
                throw new IllegalArgumentException("trace and output are both " + trace + ", expected two files");
            }
        }
    }

    private static boolean isSame(Path one, Path other) {
        return one.toAbsolutePath().normalize().equals(other.toAbsolutePath().normalize());
    }

    private static void requireExists(String what, @Nullable Path file) {
        if (file != null) {
            Arguments.requireExists(what, file);
        }
    }

    private ImageRequest request() {
        ImageRequest request = from == null ? null : ImageRequest.from(from);
        if (prompt != null) {
            request = request == null ? ImageRequest.of(prompt) : request.prompt(prompt);
        }
        if (request == null) {
            throw new ParameterException(spec.commandLine(), "No prompt given, expected PROMPT or --from PNG");
        }
        request = width == null ? request : request.width(width);
        request = height == null ? request : request.height(height);
        request = guideImage == null ? request : request.guideImage(guideImage);
        request = options.applied(request);
        if (seed != null && noise != null) {
            throw new IllegalArgumentException(
                    "--seed is given with --noise, expected one of them: noise is what a seed draws");
        }
        if (seed != null && request.noise().isPresent()) {
            throw new IllegalArgumentException("--seed is given with --from " + from + ", made of the noise in "
                    + request.noise().get() + ", expected none: noise is what a seed draws");
        }
        request = seed == null ? request : request.seed(seed);
        request = noise == null ? request : request.noise(noise);
        return trace == null ? request : request.trace(trace);
    }

    private ScaleDit.Builder model() {
        ScaleDit.Builder builder;
        if (model != null) {
            builder = from == null
                    ? ScaleDit.builder(model)
                    : ScaleDit.builderFrom(from).model(model);
        } else {
            builder = from == null ? ScaleDit.builderEmbedded() : ScaleDit.builderFrom(from);
        }
        options.apply(builder);
        if (gpus != null) {
            gpus.apply(builder);
        }
        hosts.apply(builder);
        return builder;
    }
}
