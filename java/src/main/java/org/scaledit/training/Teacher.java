package org.scaledit.training;

import java.util.List;
import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.text.Conditioning;
import org.scaledit.text.TrainedTextEncoders;
import org.scaledit.transformer.TrainedTransformer;

/** A model whose way under true guidance another one is to go in one pass and, if that is asked for, in fewer steps. */
final class Teacher implements AutoCloseable {
    private static final List<String> NO_CAPTION = List.of("");

    private final TrainedTransformer transformer;
    private final Optional<ModelRecipe.FewSteps> fewSteps;
    private final TrainedTextEncoders encoders;
    private final int textTokens;
    private final Placement placement;

    /**
     * @param transformer closed here
     * @param encoders of both models, which stay the caller's
     */
    Teacher(
            TrainedTransformer transformer,
            ModelRecipe.Distillation distillation,
            TrainedTextEncoders encoders,
            int textTokens,
            Placement placement) {
        this.transformer = transformer;
        this.fewSteps = distillation.steps();
        this.encoders = encoders;
        this.textTokens = textTokens;
        this.placement = placement;
    }

    /**
     * What is to be learnt of a batch: {@code [batch, W · H, 64]} each, float32.
     *
     * @param noised pictures at the batch's noise levels
     * @param velocity of them
     */
    record Lesson(Tensor noised, Tensor velocity) {}

    /**
     * Of pictures and noise, both float32 where this teaches.
     *
     * @param text of the captions
     */
    Lesson lesson(TransformerObjective.Batch batch, Tensor image, Tensor noise, Conditioning text) {
        Lesson[] lesson = new Lesson[1];
        Tensors.withoutGradients(() -> {
            Conditioning none = withoutCaption(image.size(0));
            if (fewSteps.isPresent()) {
                lesson[0] = straightened(fewSteps.get(), batch, image, noise, text, none);
            } else {
                Tensor noised = torch.lerp(image, noise, perSample(batch.sigmas(), placement));
                lesson[0] = new Lesson(noised, guided(batch, noised, batch.sigmas(), text, none));
            }
        });
        return lesson[0];
    }

    /** From where a picture is at the schedule's next higher level, along a straight line to where it comes at the next lower. */
    private Lesson straightened(
            ModelRecipe.FewSteps few,
            TransformerObjective.Batch batch,
            Tensor image,
            Tensor noise,
            Conditioning text,
            Conditioning none) {
        int count = (int) image.size(0);
        float[] schedule = few.sigmas();
        float[] upper = new float[count];
        float[] lower = new float[count];
        float[] share = new float[count]; // of the way to the lower level
        for (int i = 0; i < count; i++) {
            float sigma = batch.sigmas().select(0, i).item_float();
            int step = 0;
            while (schedule[step + 1] >= sigma && step + 2 < schedule.length) {
                step++;
            }
            upper[i] = schedule[step];
            lower[i] = schedule[step + 1];
            share[i] = (upper[i] - sigma) / (upper[i] - lower[i]);
        }
        Tensor from = Tensors.of(upper, count);
        Tensor to = Tensors.of(lower, count);
        Tensor high = torch.lerp(image, noise, perSample(from, placement));
        Tensor stride = perSample(to.sub(from).div(new Scalar(few.teacherSteps())), placement);
        Tensor low = high;
        for (int step = 0; step < few.teacherSteps(); step++) {
            Tensor current = low;
            Tensor sigmas = from.lerp(to, new Scalar((double) step / few.teacherSteps()));
            low = Tensors.scoped(
                    () -> current.add(guided(batch, current, sigmas, text, none).mul(stride)));
        }
        return new Lesson(
                high.lerp(low, perSample(Tensors.of(share, count), placement)),
                high.sub(low).div(perSample(from.sub(to), placement)));
    }

    private Conditioning withoutCaption(long count) {
        Conditioning one = encoders.encode(encoders.tokens(NO_CAPTION, NO_CAPTION, textTokens));
        return new Conditioning(
                one.states().expand(new long[] {count, -1, -1}).contiguous(),
                one.pooled().expand(new long[] {count, -1}).contiguous());
    }

    /** Of two passes, with the captions and without. */
    private Tensor guided(
            TransformerObjective.Batch batch, Tensor noised, Tensor sigmas, Conditioning text, Conditioning none) {
        Tensor placed = placement.place(noised);
        return transformer
                .velocity(TransformerObjective.of(batch, placed, sigmas, none))
                .lerp(
                        transformer.velocity(TransformerObjective.of(batch, placed, sigmas, text)),
                        new Scalar(batch.guidance()));
    }

    /** Numbers of samples, on the CPU, beside what is computed: {@code [batch, 1, 1]}, float32. */
    static Tensor perSample(Tensor numbers, Placement placement) {
        return placement.with(torch.ScalarType.Float).send(numbers).view(-1, 1, 1);
    }

    @Override
    public void close() {
        transformer.close();
    }
}
