package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.SortedMap;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Interrupts;
import org.scaledit.file.Reasons;
import org.scaledit.image.ImageFile;
import org.scaledit.image.Resize;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.Latents;
import org.scaledit.vae.TileListener;

/**
 * The examples as training takes them: latents of the picture and of its guidance image, states of the caption, each
 * computed once and then in the cache, under the hash of all that they depend on.
 */
final class TrainingSet {
    private static final String IMAGE = "image";
    private static final String GUIDANCE = "guidance";

    /** Of what is in an entry: another number where that changes. */
    private static final String FORMAT = "1";

    /**
     * How examples become tensors.
     *
     * @param textTokens T5's length
     * @param placement of the encoders
     */
    record Encoding(ModelDirectory model, int resolution, int ratio, int textTokens, Placement placement) {

        /** T5's length: what was asked for, or the model's own, or what its tokenizer allows if that is less. */
        static int textTokens(OptionalInt asked, FluxConfig config, ModelDirectory model) {
            return asked.orElseGet(() -> Math.min(config.textTokens(), TextEncoders.mostTokens(model)));
        }
    }

    /** An example in its bucket, and the key of its latents. */
    private record Sample(Example example, Bucket bucket, String latents) {}

    /**
     * What one example is trained with; tensors in the caller's scope.
     *
     * @param image clean latents, packed, in raster order: {@code [W·H, 64]}, float32
     * @param guidance those of the guidance image: {@code [w·h, 64]}
     */
    record Inputs(Tensor image, Tensor guidance, Conditioning text) {}

    private final Encoding encoding;
    private final ExampleCache cache;
    private final TextStates texts;
    private final List<Sample> samples = new ArrayList<>();
    private final String fingerprint;

    /**
     * Reads every file once, for its hash, and computes nothing.
     *
     * @throws TrainingException if a file cannot be read
     * @throws org.scaledit.image.ImageException naming a picture that cannot be read
     */
    TrainingSet(List<Example> examples, Encoding encoding, ExampleCache cache) {
        this.encoding = encoding;
        this.cache = cache;
        List<Bucket> buckets = Bucket.of(encoding.resolution, encoding.ratio);
        String latentsIdentity = identity(encoding.model, "vae");
        this.texts = new TextStates(encoding.model, encoding.textTokens, encoding.placement, cache);
        ContentHash all = new ContentHash();
        for (Example example : examples) {
            Bucket bucket = Bucket.nearest(buckets, ImageFile.size(example.image()));
            String content = hash(example.image());
            String latents = new ContentHash()
                    .text("latents " + FORMAT)
                    .text(latentsIdentity)
                    .text(bucket.grid().width() + " x " + bucket.grid().height() + " / " + encoding.ratio + " "
                            + encoding.placement.dtype())
                    .text(content)
                    .hex();
            samples.add(new Sample(example, bucket, latents));
            all.text(example.name()).text(content).text(example.caption());
        }
        this.fingerprint = all.hex();
    }

    private static String hash(Path image) {
        try {
            return new ContentHash().file(image).hex();
        } catch (IOException e) {
            Interrupts.throwIfInterrupted("reading " + image, e);
            throw new TrainingException("cannot read the picture " + image + ": " + Reasons.of(e), e);
        }
    }

    /** The hash of some parts of the model. */
    static String identity(ModelDirectory model, String... parts) {
        ContentHash hash = new ContentHash();
        for (String part : parts) {
            try {
                hash.text(part).model(model.part(part));
            } catch (IOException e) {
                Interrupts.throwIfInterrupted("reading " + model.part(part), e);
                throw new TrainingException("cannot read " + model.part(part) + ": " + Reasons.of(e), e);
            }
        }
        return hash.hex();
    }

    int size() {
        return samples.size();
    }

    /** The hash of all pictures and captions. */
    String fingerprint() {
        return fingerprint;
    }

    String name(int sample) {
        return samples.get(sample).example.image().toString();
    }

    Bucket bucket(int sample) {
        return samples.get(sample).bucket;
    }

    /** The latents and states of a sample. */
    Inputs inputs(int sample) {
        try (Safetensors latents = cache.open(samples.get(sample).latents)) {
            return new Inputs(
                    latents.tensor(IMAGE),
                    latents.tensor(GUIDANCE),
                    text(samples.get(sample).example.caption()));
        }
    }

    /** The states of a caption, or of another text that the cache was filled with; in the caller's scope. */
    Conditioning text(String caption) {
        return texts.of(caption);
    }

    /** Counts what is computed for the cache, and may stop it. */
    interface FillListener {
        void computed(int done, int all);
    }

    /** Computes what the cache lacks. Encoders are loaded if they are needed, one after the other, and released. */
    void fill(List<String> furtherTexts, FillListener listener) {
        Map<String, Sample> latents = new LinkedHashMap<>();
        for (Sample sample : samples) {
            if (!cache.has(sample.latents)) {
                latents.put(sample.latents, sample);
            }
        }
        Stream<String> captions = samples.stream().map(sample -> sample.example.caption());
        SortedMap<String, String> missing = texts.missing(Stream.concat(captions, furtherTexts.stream()));
        int all = latents.size() + missing.size();
        int[] done = {0};
        if (!latents.isEmpty()) {
            try (AutoencoderKl vae = AutoencoderKl.load(encoding.model.part("vae"), encoding.placement)) {
                latents.forEach((key, sample) -> {
                    Tensors.run(() -> cache.put(key, encoded(vae, sample)));
                    listener.computed(++done[0], all);
                });
            }
        }
        texts.fill(missing, false, () -> listener.computed(++done[0], all));
    }

    private Map<String, Tensor> encoded(AutoencoderKl vae, Sample sample) {
        Tensor image = sample.bucket.fit(ImageFile.read(sample.example.image()));
        return Map.of(
                IMAGE, latents(vae, image),
                GUIDANCE, latents(vae, Resize.toTrainingGuidance(image, encoding.ratio)));
    }

    /** The mean of a picture's latents, as the transformer takes them: [3, 16H, 16W] → [W·H, 64] */
    static Tensor latents(AutoencoderKl vae, Tensor image) {
        return Latents.pack(Latents.scale(vae.encode(image, TileListener.NONE), vae.config()));
    }
}
