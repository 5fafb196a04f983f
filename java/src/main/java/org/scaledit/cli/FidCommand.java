package org.scaledit.cli;

import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit.Device;
import org.scaledit.evaluation.Fid;
import org.scaledit.inception.Inception;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code scaledit fid}. */
@Command(
        name = "fid",
        description =
                "Says how far the pictures of a folder are from those of another: the Fréchet Inception distance of whole"
                        + " pictures, each resized to 299 × 299 pixels, and with --patches that of crops. The features are those of"
                        + " nsfwjs's Inception-v3: numbers of this program compare with each other and with no paper's.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class FidCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 8;

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(
            index = "0",
            paramLabel = "REFERENCE",
            description = "Folder of the pictures to compare with: PNG, JPEG.")
    @SuppressWarnings("NullAway.Init")
    private Path reference;

    @Parameters(index = "1", paramLabel = "PICTURES", description = "Folder of the pictures that are measured.")
    @SuppressWarnings("NullAway.Init")
    private Path pictures;

    @ArgGroup(exclusive = false)
    private @Nullable PatchOptions patchOptions;

    /** The others are refused without the first. */
    private static final class PatchOptions {
        @Option(
                names = "--patches",
                paramLabel = "N",
                required = true,
                description = "Crops at random places of each picture, for the patch FID. Default: none.")
        private int count;

        @Option(
                names = "--patch-size",
                paramLabel = "P",
                defaultValue = "299",
                description =
                        "Pixels along each side of a crop. The network looks at 299 × 299; crops of another size are"
                                + " resized. Default: ${DEFAULT-VALUE}.")
        private int size;

        @Option(
                names = "--seed",
                paramLabel = "N",
                defaultValue = "0",
                description = "Another one crops at other places. Default: ${DEFAULT-VALUE}.")
        private long seed;
    }

    @Option(
            names = "--device",
            paramLabel = "KIND",
            defaultValue = "cpu",
            description = "cpu or cuda (an NVIDIA GPU), in float32 on both. Default: cpu.")
    private Device device = Device.CPU;

    @Option(
            names = "--features",
            paramLabel = "DIR",
            description = "The network, which tools/inception fetches. Default: what it has fetched.")
    private @Nullable Path features;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "FILE",
            description = "JSON file for the result. Default: none.")
    private @Nullable Path output;

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() {
        Arguments.requireExists("reference", reference);
        Arguments.requireExists("pictures", pictures);
        if (output != null) {
            Arguments.requireWritable(output);
        }
        Optional<Fid.Patches> patches =
                Optional.ofNullable(patchOptions).map(given -> new Fid.Patches(given.count, given.size, given.seed));
        Fid.Order order =
                new Fid.Order(Fid.Pictures.of(reference, patches), Fid.Pictures.of(pictures, patches), patches);
        Path network = Arguments.featuresFolder(features);
        try (CleanInterrupt interrupt = new CleanInterrupt();
                Inception inception = Inception.open(network, device == Device.CUDA);
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            Fid fid = Fid.measure(inception, order, (done, all) -> display.show("pictures", done, all, "seen"));
            if (output != null) {
                fid.write(output);
            }
            PrintWriter out = spec.commandLine().getOut();
            out.print(fid.words());
            out.flush();
        }
        return 0;
    }
}
