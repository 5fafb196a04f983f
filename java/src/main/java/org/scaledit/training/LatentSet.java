package org.scaledit.training;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.file.ContentHash;
import org.scaledit.ranks.Exchange;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.vae.Latents;
import org.scaledit.vae.TrainedAutoencoder;
import org.scaledit.vae.VaeConfig;

/**
 * The latents of a source's pictures at one size, as a transformer takes them, computed once and then in files of many. Used by
 * any number of threads once it is filled.
 */
final class LatentSet implements AutoCloseable {
    private static final String LATENTS = "latents";

    /** It may be stopped. */
    static final String WHEN = "while pictures were encoded; what was encoded is kept";

    /** Samples in a file: at 256² pixels in bfloat16 16 MiB. */
    private static final int PER_FILE = 512;

    /** Pixels that are encoded at a time. */
    private static final long PIXELS = 32L * 256 * 256;

    private final SampleSource source;
    private final int samples;
    private final TokenGrid grid;
    private final Placement placement;
    private final ExampleCache cache;
    private final String identity;
    private final List<Safetensors> files = new ArrayList<>();

    /**
     * @param samples the first ones of the source that are wanted
     * @param vae the hash of the autoencoder
     * @param placement of the encoding; latents keep its precision
     */
    LatentSet(SampleSource source, int samples, int size, String vae, Placement placement, ExampleCache cache) {
        this.source = source;
        this.samples = samples;
        this.grid = TokenGrid.ofPixels(size, size);
        this.placement = placement;
        this.cache = cache;
        this.identity = source.fingerprint() + " " + vae + " " + size + " " + placement.dtype();
    }

    TokenGrid grid() {
        return grid;
    }

    private int fileCount() {
        return (samples + PER_FILE - 1) / PER_FILE;
    }

    private int size(int file) {
        return Math.min(PER_FILE, samples - file * PER_FILE);
    }

    private String key(int file) {
        return new ContentHash().text(identity).text(file + " " + size(file)).hex();
    }

    /**
     * Computes the files that are missing, and opens all of them.
     *
     * @param exchange of ranks that deal out the files
     * @param listener hears of this rank's pictures
     */
    void fill(TrainedAutoencoder vae, VaeConfig config, Exchange exchange, TrainingSet.FillListener listener) {
        int most = (int) Math.max(1, PIXELS / ((long) grid.pixelWidth() * grid.pixelHeight()));
        List<Part> parts = new ArrayList<>();
        for (int file = exchange.rank(); file < fileCount(); file += exchange.ranks()) {
            if (!cache.has(key(file))) {
                for (int first = 0; first < size(file); first += most) {
                    parts.add(new Part(file, first, Math.min(most, size(file) - first)));
                }
            }
        }
        int all = parts.stream().mapToInt(Part::count).sum();
        int done = 0;
        List<Owned> encoded = new ArrayList<>(); // of one file
        try (Prefetch<Owned> pictures = new Prefetch<>(
                0, parts.size(), exchange.ranks(), source.placement().shared(), number -> {
                    Part part = parts.get((int) number);
                    return () ->
                            new Owned(Tensors.outlive(() -> pictures(part.file * PER_FILE + part.first, part.count)));
                })) {
            for (Part part : parts) {
                try (Owned taken = pictures.take(WHEN)) {
                    encoded.add(new Owned(Tensors.outlive(() -> encoded(vae, config, taken.tensor))));
                }
                done += part.count;
                if (part.first + part.count == size(part.file)) {
                    write(part.file, encoded);
                }
                listener.computed(done, all);
            }
        } finally {
            encoded.forEach(Owned::close);
        }
        exchange.meet();
        for (int file = 0; file < fileCount(); file++) {
            files.add(cache.open(key(file)));
        }
    }

    /** What is encoded at a time. */
    private record Part(int file, int first, int count) {}

    private void write(int file, List<Owned> encoded) {
        Tensors.run(() -> cache.put(
                key(file),
                Map.of(
                        LATENTS,
                        Tensors.concatenate(
                                0, encoded.stream().map(Owned::tensor).toArray(Tensor[]::new)))));
        encoded.forEach(Owned::close);
        encoded.clear();
    }

    private record Owned(Tensor tensor) implements AutoCloseable {
        @Override
        public void close() {
            tensor.close();
        }
    }

    /** [count, 3, 16H, 16W], where the source paints */
    private Tensor pictures(int first, int count) {
        Tensor pictures = torch.empty(
                new long[] {count, 3, grid.pixelHeight(), grid.pixelWidth()},
                source.placement().options(),
                null);
        for (int i = 0; i < count; i++) {
            int sample = first + i;
            long place = i;
            Tensors.run(() -> pictures.select(0, place).copy_(source.picture(sample, grid.pixelWidth())));
        }
        return pictures;
    }

    /** [count, 3, 16H, 16W] → [count, W · H, 64] on the CPU */
    private Tensor encoded(TrainedAutoencoder vae, VaeConfig config, Tensor pictures) {
        Tensor[] made = new Tensor[1];
        Tensors.withoutGradients(() -> made[0] = Tensors.scoped(() -> {
            Tensor latents =
                    placement.onHost().place(Latents.scale(vae.encode(pictures).mean(), config));
            Tensor[] packed = new Tensor[(int) latents.size(0)];
            for (int i = 0; i < packed.length; i++) {
                packed[i] = Latents.pack(latents.select(0, i));
            }
            return torch.stack(new TensorVector(packed), 0);
        }));
        return made[0];
    }

    /** Clean latents of some samples, in raster order: {@code [samples, W · H, 64]}, in the caller's scope. */
    Tensor latents(int[] chosen) {
        return Tensors.scoped(() -> {
            Tensor latents = torch.empty(
                    new long[] {chosen.length, grid.tokens(), 64},
                    placement.onHost().options(),
                    null);
            for (int i = 0; i < chosen.length; i++) {
                Tensor file = files.get(chosen[i] / PER_FILE).tensor(LATENTS);
                latents.select(0, i).copy_(file.select(0, chosen[i] % PER_FILE));
            }
            return latents;
        });
    }

    @Override
    public void close() {
        files.forEach(Safetensors::close);
        files.clear();
    }
}
