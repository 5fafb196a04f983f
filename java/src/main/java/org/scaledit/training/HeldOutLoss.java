package org.scaledit.training;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalInt;
import java.util.concurrent.CancellationException;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.LoraFile;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.image.ImageFile;
import org.scaledit.sampling.PlainPass;
import org.scaledit.sampling.Prompt;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.ScaledLora;
import org.scaledit.vae.AutoencoderKl;

/**
 * The loss of flow matching on pictures that were not trained on, in three ways: of dense attention, as plain FLUX has it, over
 * the whole high-resolution picture, of Scale-DiT without a LoRA, and of Scale-DiT under LoRAs. All have the same pictures,
 * noise levels and noise.
 */
public final class HeldOutLoss {

    /**
     * What is measured.
     *
     * @param model a FLUX.1 checkpoint in diffusers' layout
     * @param data a folder of pictures and captions, as {@link LoraTraining} takes it
     * @param cache for latents and text states: a folder, which is made if it is not there
     * @param loras one at least
     * @param scope the tokens that they act on
     * @param resolution as in {@link Recipe}; {@code ratio}, {@code textTokens}, {@code timesteps}, {@code attention} likewise
     * @param pictures so many, which the seed chooses; empty for all
     * @param noiseLevels of each picture, one in each of so many bands, which the distribution holds equally probable
     * @param placement where, and in which precision, the model computes
     * @param seed of the choice of pictures, of noise levels and of noise
     */
    public record Order(
            Path model,
            Path data,
            Path cache,
            List<LoraFile> loras,
            Recipe.Scope scope,
            int resolution,
            int ratio,
            OptionalInt textTokens,
            OptionalInt pictures,
            int noiseLevels,
            Recipe.Timesteps timesteps,
            Recipe.AttentionKind attention,
            Placement placement,
            long seed) {
        public Order {
            loras = List.copyOf(loras);
            AttentionWindow.ofRatio(ratio); // refuses a ratio that there is not
            Bucket.of(resolution, ratio); // likewise
            if (loras.isEmpty()) {
                throw new IllegalArgumentException(
                        "no LoRA given, and " + model + " brings none, expected one at least");
            }
            if (textTokens.isPresent()) {
                Recipe.requireTextTokens(textTokens.getAsInt());
            }
            if (pictures.isPresent()) {
                Recipe.require(pictures.getAsInt() >= 1, "pictures", pictures.getAsInt(), "1 or more");
            }
            Recipe.require(noiseLevels >= 1 && noiseLevels <= 1000, "noise levels", noiseLevels, "1 to 1000");
        }
    }

    /** Of one picture at one noise level, or means of such. */
    public record Losses(double dense, double withoutLora, double withLora) {}

    /**
     * A measurement.
     *
     * @param picture its file's name
     * @param band of noise levels, from 0, the one with the least noise
     * @param sigma the noise level in it
     */
    public record Sample(String picture, int band, double sigma, Losses losses) {}

    /** Hears how far it is, on the measuring thread. What it throws ends the measurement. */
    public interface Listener {
        /** Pictures and captions that have been computed for the cache, of those that it lacked. */
        void encoded(int done, int all);

        /** Samples. */
        void measured(int done, int all);
    }

    private final Order order;
    private final Listener listener;
    private final ModelDirectory model;

    private HeldOutLoss(Order order, Listener listener) {
        this.order = order;
        this.listener = listener;
        GradientAttention.require(order.attention, order.placement);
        if (order.placement.cuda()) {
            CudaAttention.requireGpus(1);
        } else {
            Torch.load();
        }
        this.model = ModelDirectory.open(order.model);
        TextEncoders.check(model);
        AutoencoderKl.check(model.part("vae"));
    }

    /**
     * Measures.
     *
     * @return picture by picture, of each the bands in their order
     * @throws CancellationException if the thread is interrupted
     * @throws RuntimeException with one sentence if a file is missing or wrong, a picture is smaller than what is measured, or
     *     a loss is no number
     */
    public static List<Sample> measure(Order order, Listener listener) {
        HeldOutLoss measurement = new HeldOutLoss(order, listener);
        List<ScaledLora> loras = ScaledLora.load(order.loras);
        try {
            return measurement.under(loras);
        } finally {
            loras.forEach(lora -> lora.lora().close());
        }
    }

    private List<Sample> under(List<ScaledLora> loras) {
        FluxConfig config = FluxTransformer.check(model, loras, order.scope.ofTransformer());
        List<Example> examples = Example.of(order.data);
        int pictures = order.pictures.orElse(examples.size());
        if (pictures > examples.size()) {
            throw new TrainingException(
                    "pictures is " + pictures + ", expected no more than the " + examples.size() + " in " + order.data);
        }
        SampleOrder chance = new SampleOrder(order.seed, examples.size(), order.timesteps);
        List<Example> chosen = IntStream.range(0, pictures)
                .mapToObj(picture -> examples.get(chance.sample(picture)))
                .toList();
        TrainingSet set = new TrainingSet(
                chosen,
                new TrainingSet.Encoding(
                        model,
                        order.resolution,
                        order.ratio,
                        TrainingSet.Encoding.textTokens(order.textTokens, config, model),
                        order.placement),
                ExampleCache.in(order.cache));
        for (int picture = 0; picture < pictures; picture++) {
            requireSize(chosen.get(picture), set.bucket(picture).grid());
        }
        set.fill(List.of(), (done, all) -> {
            listener.encoded(done, all);
            throwIfInterrupted();
        });
        try (FluxTransformer plain = FluxTransformer.load(model, order.placement);
                FluxTransformer adapted = plain.withLoras(loras, order.scope.ofTransformer())) {
            return samples(chosen, set, chance, plain, adapted);
        }
    }

    /** Enlarged, it would lack the detail that high resolution is about. */
    private void requireSize(Example example, TokenGrid grid) {
        ImageFile.Size size = ImageFile.size(example.image());
        if (size.width() < grid.pixelWidth() || size.height() < grid.pixelHeight()) {
            throw new TrainingException("picture " + example.image() + " has " + size.width() + " × " + size.height()
                    + " pixels, expected " + grid.pixelWidth() + " × " + grid.pixelHeight()
                    + " or more at resolution " + order.resolution);
        }
    }

    private List<Sample> samples(
            List<Example> examples,
            TrainingSet set,
            SampleOrder chance,
            FluxTransformer plain,
            FluxTransformer adapted) {
        AttentionWindow window = AttentionWindow.ofRatio(order.ratio);
        boolean torchAttends = order.attention == Recipe.AttentionKind.DENSE;
        PlainPass dense = new PlainPass(model, plain, torchAttends, 1, (float) FlowMatching.GUIDANCE);
        List<Sample> samples = new ArrayList<>();
        int all = examples.size() * order.noiseLevels;
        try (FlowMatching withoutLora = new FlowMatching(plain, order.attention, window);
                FlowMatching withLora = new FlowMatching(adapted, order.attention, window)) {
            while (samples.size() < all) {
                int count = samples.size();
                int picture = count / order.noiseLevels;
                int band = count % order.noiseLevels;
                double sigma = chance.sigma(count, band, order.noiseLevels);
                TokenGrid grid = set.bucket(picture).grid();
                Losses losses = Tensors.compute(() -> {
                    TrainingSet.Inputs inputs = set.inputs(picture);
                    FlowMatching.Noising noising =
                            new FlowMatching.Noising(sigma, SeededNoise.draw(chance.noise(count), grid));
                    return new Losses(
                            loss(dense, grid, inputs, noising),
                            withoutLora.loss(grid, inputs, noising, HeldOutLoss::throwIfInterrupted),
                            withLora.loss(grid, inputs, noising, HeldOutLoss::throwIfInterrupted));
                });
                samples.add(new Sample(
                        examples.get(picture).name(), band, sigma, requireNumbers(losses, examples.get(picture))));
                listener.measured(samples.size(), all);
                throwIfInterrupted();
            }
        }
        return samples;
    }

    /** The same as {@link FlowMatching#loss}, of dense attention. */
    private static double loss(
            PlainPass dense, TokenGrid grid, TrainingSet.Inputs inputs, FlowMatching.Noising noising) {
        Tensor velocity = dense.velocity(
                grid,
                Prompt.of(inputs.text()),
                noising.noised(inputs.image()),
                noising.sigma(),
                HeldOutLoss::throwIfInterrupted);
        return torch.mse_loss(Placement.FLOAT32_CPU.place(velocity), noising.velocity(inputs.image()))
                .item_double();
    }

    private static Losses requireNumbers(Losses losses, Example example) {
        if (!Double.isFinite(losses.dense + losses.withoutLora + losses.withLora)) {
            throw new TrainingException("a loss of " + example.image() + " is no number: " + losses);
        }
        return losses;
    }

    private static void throwIfInterrupted() {
        if (Thread.interrupted()) {
            throw new CancellationException("the measurement was stopped");
        }
    }
}
