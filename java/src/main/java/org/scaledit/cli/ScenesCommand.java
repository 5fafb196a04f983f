package org.scaledit.cli;

import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit.Device;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.SceneFolder;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** {@code scaledit scenes}. */
@Command(
        name = "scenes",
        description =
                "Composes pictures of 188 objects on eight backgrounds, with captions and with what is where: PNGs"
                        + " and metadata.jsonl, as Hugging Face's ImageFolder has it.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class ScenesCommand implements Callable<Integer> {
    @Option(names = "--count", paramLabel = "N", required = true, description = "Pictures.")
    private int count;

    @Option(
            names = "--size",
            paramLabel = "N",
            defaultValue = "1024",
            description =
                    "Pixels along each side, 64 to 8192. A seed shows the same at each. Default: ${DEFAULT-VALUE}.")
    private int size;

    @Option(
            names = "--seed",
            paramLabel = "N",
            defaultValue = "0",
            description = "Of the first picture; the next has the next. Default: ${DEFAULT-VALUE}.")
    private long seed;

    @Option(
            names = "--held-out",
            description = "Scenes for evaluation, each with a combination that no other scene has: a tenth of the pairs"
                    + " of objects, of a colour and an object, and of a relation and two objects.")
    private boolean heldOut;

    @Option(
            names = "--device",
            paramLabel = "KIND",
            defaultValue = "cpu",
            description = "cpu or cuda (an NVIDIA GPU), the same pictures on both. Default: cpu.")
    private Device device = Device.CPU;

    @Option(
            names = "--sprites",
            paramLabel = "DIR",
            description = "The SVG sets that tools/sprites fetches. Default: those that it has fetched.")
    private @Nullable Path sprites;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "DIR",
            required = true,
            description =
                    "Folder for the pictures, metadata.jsonl and scenes.json, which says what they depend on: empty, or"
                            + " of the same scenes.")
    private Path output = Path.of("");

    @Override
    public Integer call() {
        SceneFolder.Order order = new SceneFolder.Order(seed, count, size);
        Arguments.requireNoFile(output);
        Sprites opened = Sprites.open(Arguments.spritesFolder(sprites));
        Composer composer = new Composer(Vocabulary.standard(), opened, heldOut);
        try (SceneRenderer renderer = SceneRenderer.on(device == Device.CUDA, opened);
                OutputFolder made = OutputFolder.make(output);
                CleanInterrupt interrupt = new CleanInterrupt()) {
            SceneFolder.write(output, composer, renderer, order);
        }
        return 0;
    }
}
