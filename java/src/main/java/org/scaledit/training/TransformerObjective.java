package org.scaledit.training;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TrainedQueries;
import org.scaledit.text.TrainedTextEncoders;
import org.scaledit.transformer.TrainedTransformer;

/**
 * Flow matching of whole pictures: {@code x = (1 − σ) image + σ noise}, and of the velocity at x the mean squared distance to
 * {@code noise − image}, or to what a teacher makes of x under true guidance. The text encoders are trained along, or are as they
 * are.
 */
final class TransformerObjective implements PartTraining.Objective<TransformerObjective.Batch>, AutoCloseable {
    /** Of the distilled guidance: an image is trained as it is. */
    private static final double GUIDANCE = 1;

    private static final String RECOGNITION = "recognition";
    private static final String LAYOUT = "layout";

    private final ModelRecipe recipe;
    private final SampleSource source;
    private final SampleOrder order;
    private final ParameterSet parameters;
    private final ModelFiles files;
    private final Function<ModelRecipe.Batch, LatentSet> latentsOf;
    private final Placement placement;
    private final TrainedTransformer transformer;
    private final Optional<Teacher> teacher;
    private final Optional<Recognition> recognition;
    private final Optional<Layout> layout;
    private final TrainedTextEncoders encoders;
    private final Map<Integer, LatentSet> latents = new LinkedHashMap<>(); // of the phase, by size
    private boolean recognises; // in the phase

    /**
     * @param parameters with the names of the parts before those of diffusers and transformers
     * @param teacher of a distillation; closed here
     * @param encoders of these parameters, or of others that stay; they stay the caller's
     * @param latentsOf makes the latents of a kind of batch, which are closed here
     */
    TransformerObjective(
            ModelRecipe recipe,
            SampleSource source,
            ParameterSet parameters,
            Optional<Teacher> teacher,
            TrainedTextEncoders encoders,
            ModelFiles files,
            Function<ModelRecipe.Batch, LatentSet> latentsOf,
            Placement placement) {
        this.recipe = recipe;
        this.source = source;
        this.order = new SampleOrder(
                recipe.seed(), source.size(), recipe.transformer().timesteps());
        this.parameters = parameters;
        this.files = files;
        this.latentsOf = latentsOf;
        this.placement = placement;
        this.teacher = teacher;
        this.encoders = encoders;
        this.transformer = new TrainedTransformer(
                recipe.transformer().config(),
                parameters.leaves(ModelFiles.TRANSFORMER + "."),
                placement,
                recipe.transformer().checkpointing());
        this.recognition = recipe.transformer()
                .recognition()
                .map(each -> new Recognition(each, parameters.leaves(Recognition.PREFIX), placement));
        this.layout = recipe.transformer()
                .layout()
                .map(each -> new Layout(each, recipe.text().t5().heads(), parameters.leaves(Layout.PREFIX), placement));
    }

    /**
     * Tensors on the CPU.
     *
     * @param images [batch, W · H, 64], in the computation's precision
     * @param noise likewise
     * @param sigmas [batch], float32
     * @param guidance scale of all of them
     * @param shown what is to be recognised
     * @param cells what T5's states are to tell: as {@link Layout#loss} takes it
     */
    record Batch(
            TokenGrid grid,
            Tensor images,
            Tensor noise,
            Tensor sigmas,
            double guidance,
            TrainedTextEncoders.Tokens tokens,
            Optional<Recognition.Shown> shown,
            Optional<Tensor> cells)
            implements AutoCloseable {
        @Override
        public void close() {
            images.close();
            noise.close();
            sigmas.close();
            shown.ifPresent(Recognition.Shown::close);
            cells.ifPresent(Tensor::close);
        }
    }

    @Override
    public void begin(ModelRecipe.Phase phase) {
        closeLatents();
        recognises = recipe.transformer()
                .recognition()
                .filter(each -> recipe.transformer().training().phases().stream()
                        .limit(each.phases())
                        .anyMatch(early -> early == phase))
                .isPresent();
        phase.batches().forEach(kind -> latents.computeIfAbsent(kind.size(), size -> latentsOf.apply(kind)));
    }

    @Override
    public Batch batch(ModelRecipe.Batch kind, long count, int[] samples) {
        LatentSet set = latents.get(kind.size());
        if (set == null) {
            throw new IllegalStateException("the phase has not begun");
        }
        List<String> summarised = new ArrayList<>(); // by CLIP
        List<String> captions = new ArrayList<>();
        float[] sigmas = new float[samples.length];
        for (int i = 0; i < samples.length; i++) {
            boolean without =
                    order.leavesCaptionOut(count + i, recipe.transformer().captionDropout());
            String caption = without ? "" : source.caption(samples[i]);
            captions.add(caption);
            boolean unsummarised =
                    order.leavesPooledOut(count + i, recipe.transformer().pooledDropout());
            summarised.add(unsummarised ? "" : caption);
            sigmas[i] = (float) recipe.transformer().sigma(order, count + i);
        }
        Tensor images = Tensors.outlive(() -> placement.atHand(set.latents(samples)));
        Tensor noise = Tensors.outlive(() -> {
            Tensor drawn = torch.empty_like(images);
            for (int i = 0; i < samples.length; i++) {
                int row = i;
                long seed = order.noise(count + i);
                Tensors.run(() -> drawn.select(0, row).copy_(SeededNoise.draw(seed, set.grid())));
            }
            return placement.atHand(drawn);
        });
        return new Batch(
                set.grid(),
                images,
                noise,
                Tensors.outlive(() -> placement.atHand(Tensors.of(sigmas, sigmas.length))),
                recipe.transformer()
                        .distillation()
                        .map(scales -> order.guidance(count, scales))
                        .orElse(GUIDANCE),
                encoders.tokens(summarised, captions, recipe.text().tokens()),
                recognises
                        ? Optional.of(
                                Recognition.Shown.of(source, samples, set.grid().width(), placement))
                        : Optional.empty(),
                recipe.transformer().layout().map(each -> objects(samples, each.cells())));
    }

    /** [samples, cells · cells] */
    private Tensor objects(int[] samples, int cells) {
        try (Recognition.Shown shown = Recognition.Shown.of(source, samples, cells, placement)) {
            return Tensors.outlive(() -> new Tensor(shown.objects()));
        }
    }

    /** @param recipe of the transformer */
    static List<String> otherLosses(ModelRecipe.Transformer recipe) {
        List<String> names = new ArrayList<>();
        recipe.recognition().ifPresent(each -> names.add(RECOGNITION));
        recipe.layout().ifPresent(each -> names.add(LAYOUT));
        return names;
    }

    @Override
    public List<String> otherLosses() {
        return otherLosses(recipe.transformer());
    }

    private void note(Tensor others, String name, Tensor loss) {
        int place = otherLosses().indexOf(name);
        Tensors.run(() -> others.select(0, place).copy_(loss.detach()));
    }

    @Override
    public Tensor addGradients(Batch batch, double share) {
        return Tensors.scoped(() -> {
            Tensor others = torch.full(
                    new long[] {otherLosses().size()},
                    new Scalar(Double.NaN),
                    placement.with(torch.ScalarType.Float).options());
            Tensor image = Tensors.toFloat32(placement.place(batch.images));
            Tensor noise = Tensors.toFloat32(placement.place(batch.noise));
            Conditioning encoded = encoders.encode(batch.tokens);
            Conditioning text =
                    layout.isPresent() ? new Conditioning(leaf(encoded.states()), encoded.pooled()) : encoded;
            Teacher.Lesson lesson = teacher.isPresent()
                    ? teacher.get().lesson(batch, image, noise, text)
                    : new Teacher.Lesson(
                            torch.lerp(image, noise, Teacher.perSample(batch.sigmas, placement)), noise.sub(image));
            Tensor loss = transformer
                    .addGradients(
                            of(batch, placement.place(lesson.noised()), batch.sigmas, text),
                            velocity -> loss(velocity, lesson.velocity(), batch).mul(new Scalar(share)),
                            batch.shown.map(shown -> recognition
                                    .orElseThrow()
                                    .hiddenLoss(shown, share, missed -> note(others, RECOGNITION, missed))))
                    .div(new Scalar(share));
            layout.ifPresent(each -> {
                Tensor missed = each.loss(text.states(), batch.cells.orElseThrow());
                note(others, LAYOUT, missed);
                missed.mul(new Scalar(each.weight() * share)).backward();
                encoded.states().mul(text.states().grad()).sum().backward(); // whose gradient this is
            });
            return Tensors.concatenate(0, Tensors.toFloat32(loss).unsqueeze(0), others);
        });
    }

    /** To add two losses' gradients up at, before they go on. */
    private static Tensor leaf(Tensor states) {
        return states.detach().set_requires_grad(true);
    }

    /** @param sigmas at which the pictures are noised */
    static TrainedTransformer.Batch of(Batch batch, Tensor noised, Tensor sigmas, Conditioning text) {
        return new TrainedTransformer.Batch(
                batch.grid.width(), batch.grid.height(), noised, sigmas, text.states(), text.pooled(), batch.guidance);
    }

    private Tensor loss(Tensor velocity, Tensor target, Batch batch) {
        return batch.shown
                .map(objects -> recognition
                        .orElseThrow()
                        .emphasised(velocity.sub(target).square().mean(-1), batch.sigmas, objects))
                .orElseGet(() -> torch.mse_loss(velocity, target));
    }

    /** The averages of all parts that are trained: what is there is a model at any time. */
    @Override
    public void write() {
        for (String part : List.of(ModelFiles.CLIP, ModelFiles.T5, ModelFiles.TRANSFORMER)) {
            Tensors.run(() -> {
                Map<String, Tensor> averages = parameters.averages(part + ".");
                if (part.equals(ModelFiles.T5)) {
                    averages.replaceAll((name, weight) -> TrainedQueries.stored(
                            name, weight, recipe.text().t5().headDim()));
                }
                if (!averages.isEmpty()) {
                    files.weights(part, averages);
                }
            });
        }
    }

    private void closeLatents() {
        latents.values().forEach(LatentSet::close);
        latents.clear();
    }

    @Override
    public void close() {
        closeLatents();
        transformer.close();
        teacher.ifPresent(Teacher::close);
    }
}
