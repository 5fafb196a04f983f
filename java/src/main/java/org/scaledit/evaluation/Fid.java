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
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.SplittableRandom;
import java.util.concurrent.CancellationException;
import java.util.function.IntConsumer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.ScaleDit;
import org.scaledit.image.ImageException;
import org.scaledit.image.ImageFile;
import org.scaledit.image.OutputFile;
import org.scaledit.image.PictureFolder;
import org.scaledit.image.PixelSource;
import org.scaledit.inception.FeatureStatistics;
import org.scaledit.inception.Inception;
import org.scaledit.tensor.Tensors;

/**
 * The Fréchet Inception distance between the pictures of two folders (arXiv 1706.08500), and that between crops of them.
 *
 * @param distance of whole pictures, each resized to the network's square
 * @param patchDistance of crops, if there are any
 */
public record Fid(Order order, double distance, OptionalDouble patchDistance) {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** Pictures that the network looks at together. */
    private static final int BATCH = 16;

    public Fid {
        requireFinite("FID", distance); // or JSON would say "NaN"
        patchDistance.ifPresent(given -> requireFinite("patch FID", given));
    }

    private static void requireFinite(String what, double given) {
        if (!Double.isFinite(given)) {
            throw new IllegalStateException(what + " is " + given + ", expected a number");
        }
    }

    /**
     * Square crops at random places of each picture, in its own pixels.
     *
     * @param count of each picture
     * @param size pixels along each side; where it is not the network's own size they are resized to that
     */
    public record Patches(int count, int size, long seed) {
        public Patches {
            require("patches", count, 1);
            require("patch size", size, 16);
        }

        private static void require(String what, int given, int least) {
            if (given < least) {
                throw new IllegalArgumentException(what + " is " + given + ", expected " + least + " or more");
            }
        }

        private Tensor crop(PixelSource picture, SplittableRandom places) { // -> [3, inception, inception]
            int top = places.nextInt(picture.height() - size + 1);
            int left = places.nextInt(picture.width() - size + 1);
            return Inception.fit(PixelSource.of(picture.region(top, left, size, size)));
        }
    }

    /** The pictures of a folder, in the order of their names. */
    public record Pictures(Path folder, List<Path> files) {
        /**
         * Looks at the files' headers: a picture that cannot serve should be known before hours of work.
         *
         * @throws IllegalArgumentException if there are fewer than two pictures, or one is smaller than a patch
         * @throws ImageException if one cannot be read
         */
        public static Pictures of(Path folder, Optional<Patches> patches) {
            if (!Files.isDirectory(folder)) {
                throw new IllegalArgumentException(folder + " is a file, expected a folder of pictures");
            }
            List<Path> files =
                    PictureFolder.names(folder).stream().map(folder::resolve).toList();
            if (files.size() < 2) {
                throw new IllegalArgumentException(
                        folder + " has " + (files.isEmpty() ? "no pictures" : "one picture") + ", expected 2 or more");
            }
            int least = patches.map(Patches::size).orElse(1);
            for (Path file : files) {
                ImageFile.Size size = ImageFile.size(file);
                if (Math.min(size.width(), size.height()) < least) {
                    throw new IllegalArgumentException("picture " + file + " has " + size.width() + " × "
                            + size.height() + " pixels, expected " + least + " × " + least + " or more for a patch");
                }
            }
            return new Pictures(folder, files);
        }
    }

    /** What is measured. */
    public record Order(Pictures reference, Pictures pictures, Optional<Patches> patches) {}

    /** Hears how far it is. */
    public interface Listener {
        void seen(int done, int all);
    }

    /**
     * Looks at all pictures, one file at a time.
     *
     * @throws CancellationException if the thread is interrupted
     * @throws ImageException if a picture is damaged
     * @throws IllegalStateException if the network's features of one are not finite
     */
    public static Fid measure(Inception inception, Order order, Listener listener) {
        int all = order.reference.files.size() + order.pictures.files.size();
        try (Features reference = new Features(inception, order.patches);
                Features pictures = new Features(inception, order.patches)) {
            reference.add(order.reference, done -> listener.seen(done, all));
            int before = order.reference.files.size();
            pictures.add(order.pictures, done -> listener.seen(before + done, all));
            return new Fid(
                    order,
                    reference.whole.frechetDistance(pictures.whole),
                    reference.patches.isPresent()
                            ? OptionalDouble.of(reference.patches.get().frechetDistance(pictures.patches.orElseThrow()))
                            : OptionalDouble.empty());
        }
    }

    /** Of a folder's pictures and their patches. */
    private static final class Features implements AutoCloseable {
        private final Inception inception;
        private final Optional<Patches> cut;
        private final FeatureStatistics whole;
        private final Optional<FeatureStatistics> patches;

        Features(Inception inception, Optional<Patches> cut) {
            this.inception = inception;
            this.cut = cut;
            this.whole = new FeatureStatistics(inception);
            this.patches = cut.map(wanted -> new FeatureStatistics(inception));
        }

        /** Pictures of the same sizes are cropped at the same places. */
        void add(Pictures pictures, IntConsumer progress) {
            SplittableRandom places =
                    new SplittableRandom(cut.map(Patches::seed).orElse(0L));
            for (int i = 0; i < pictures.files.size(); i++) {
                throwIfInterrupted();
                Path file = pictures.files.get(i);
                PixelSource picture = ImageFile.decode(file);
                Tensors.run(() ->
                        whole.add(inception.features(Inception.fit(picture).unsqueeze(0)), file));
                patches.ifPresent(statistics -> add(file, picture, places, statistics));
                progress.accept(i + 1);
            }
        }

        private void add(Path file, PixelSource picture, SplittableRandom places, FeatureStatistics statistics) {
            Patches cut = this.cut.orElseThrow();
            for (int done = 0; done < cut.count; done += BATCH) {
                Tensor[] crops = new Tensor[Math.min(BATCH, cut.count - done)];
                Tensors.run(() -> {
                    for (int i = 0; i < crops.length; i++) {
                        crops[i] = cut.crop(picture, places);
                    }
                    statistics.add(inception.features(torch.stack(new TensorVector(crops))), file);
                });
            }
        }

        @Override
        public void close() {
            whole.close();
            patches.ifPresent(FeatureStatistics::close);
        }
    }

    private static void throwIfInterrupted() {
        if (Thread.interrupted()) {
            throw new CancellationException("the measurement was stopped");
        }
    }

    /** For people. */
    public String words() {
        int reference = order.reference.files.size();
        int pictures = order.pictures.files.size();
        StringBuilder words = new StringBuilder();
        line(words, "FID %.4f of %d pictures to %d", distance, pictures, reference);
        order.patches.ifPresent(patches -> line(
                words,
                "patch FID %.4f of %d patches to %d, each of %d × %d pixels",
                patchDistance.orElseThrow(),
                (long) pictures * patches.count,
                (long) reference * patches.count,
                patches.size,
                patches.size));
        line(words, "features: %s; compares with no paper's numbers", Inception.NAME);
        line(words, "note: the fewer the pictures, the larger the FID; compare it with others of these counts alone");
        return words.toString();
    }

    private static void line(StringBuilder words, String format, Object... values) {
        words.append(String.format(Locale.ROOT, format, values)).append('\n');
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
        json.put("features", Inception.NAME);
        write(json.putObject("reference"), order.reference);
        write(json.putObject("pictures"), order.pictures);
        json.put("fid", distance);
        order.patches.ifPresent(patches -> json.putObject("patches")
                .put("count", patches.count)
                .put("size", patches.size)
                .put("seed", patches.seed));
        patchDistance.ifPresent(distance -> json.put("patch_fid", distance));
        return JSON.writerWithDefaultPrettyPrinter().writeValueAsString(json) + "\n";
    }

    private static void write(ObjectNode json, Pictures pictures) {
        json.put("folder", pictures.folder.toString()).put("count", pictures.files.size());
    }
}
