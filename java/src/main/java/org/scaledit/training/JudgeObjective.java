package org.scaledit.training;

import java.util.Map;
import java.util.SplittableRandom;
import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.judge.Detector;
import org.scaledit.judge.Targets;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * The loss of a detector, as FCOS has it (arXiv 1904.01355): whether something is in a cell, and where something is, what it is,
 * the overlap of the boxes and the colour. Sums over all cells in parts of the number of those that have something, or a colour.
 */
final class JudgeObjective implements PartTraining.Objective<JudgeObjective.Batch> {
    private static final long SUM = 2; // of torch's reductions

    private final JudgeRecipe recipe;
    private final SceneSource source;
    private final SampleOrder order;
    private final Detector detector;
    private final Placement placement;

    /** @param weights leaves, by the detector's names */
    JudgeObjective(JudgeRecipe recipe, SceneSource source, Map<String, Tensor> weights, Placement placement) {
        this.recipe = recipe;
        this.source = source;
        this.order = new SampleOrder(recipe.seed(), source.size(), Recipe.Timesteps.UNIFORM);
        this.placement = placement;
        this.detector = new Detector(recipe.network(), weights, placement);
    }

    /**
     * On the CPU, but for the pictures, which are where the source paints.
     *
     * @param pictures [batch, 3, size, size], in the computation's precision
     * @param objects [batch, grid, grid], int64
     * @param colours likewise
     * @param edges [batch, 4, grid, grid], float32
     */
    record Batch(Tensor pictures, Tensor objects, Tensor colours, Tensor edges) implements AutoCloseable {
        @Override
        public void close() {
            pictures.close();
            objects.close();
            colours.close();
            edges.close();
        }
    }

    @Override
    public void begin(ModelRecipe.Phase phase) {}

    @Override
    public Batch batch(ModelRecipe.Batch kind, long count, int[] samples) {
        int batch = samples.length;
        int size = kind.size();
        int grid = recipe.network().grid();
        Placement painted = source.placement().with(placement.dtype());
        Tensor pictures =
                Tensors.outlive(() -> torch.empty(new long[] {batch, 3, size, size}, painted.options(), null));
        long[] objects = new long[batch * grid * grid];
        long[] colours = new long[batch * grid * grid];
        float[] edges = new float[batch * 4 * grid * grid];
        for (int i = 0; i < batch; i++) {
            int row = i;
            Tensors.run(() -> pictures.select(0, row)
                    .copy_(augmented(source.picture(samples[row], size), order.noise(count + row))));
            Targets targets = Targets.of(source.scene(samples[i]), recipe.network());
            System.arraycopy(targets.objects(), 0, objects, i * grid * grid, grid * grid);
            System.arraycopy(targets.colours(), 0, colours, i * grid * grid, grid * grid);
            System.arraycopy(targets.edges(), 0, edges, i * 4 * grid * grid, 4 * grid * grid);
        }
        return new Batch(
                pictures,
                Tensors.outlive(() -> placement.atHand(Tensors.of(objects, batch, grid, grid))),
                Tensors.outlive(() -> placement.atHand(Tensors.of(colours, batch, grid, grid))),
                Tensors.outlive(() -> placement.atHand(Tensors.of(edges, batch, 4, grid, grid))));
    }

    /** A picture as a model may paint it: perhaps blurred, and with some noise. */
    private Tensor augmented(Tensor picture, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        Tensor blurred = random.nextDouble() < recipe.blur()
                ? torch.avg_pool2d(
                        picture,
                        new long[] {3, 3},
                        new long[] {1, 1},
                        new long[] {1, 1},
                        false,
                        false,
                        new LongOptional())
                : picture;
        Generator generator = torch.createCPUGenerator(random.nextLong());
        Tensor noise = torch.randn(picture.shape(), new GeneratorOptional(generator), Placement.FLOAT32_CPU.options());
        return blurred.add(source.placement().send(noise), new Scalar(recipe.noise() * random.nextDouble()));
    }

    @Override
    public Tensor addGradients(Batch batch, double share) {
        return Tensors.scoped(() -> {
            Detector.Predictions predictions = detector.predict(batch.pictures);
            Placement numbers = placement.with(torch.ScalarType.Long);
            Tensor objects = numbers.place(batch.objects);
            Tensor colours = numbers.place(batch.colours);
            Tensor edges = placement.with(torch.ScalarType.Float).place(batch.edges);
            Tensor something = something(objects);
            Tensor coloured = something(colours).sum().clamp_min(new Scalar(1));
            Tensor loss = presence(predictions.presence(), something)
                    .add(named(predictions.objects(), objects))
                    .add(missed(predictions.edges().exp(), edges).mul(something).sum())
                    .div(something.sum())
                    .add(named(predictions.colours(), colours).div(coloured));
            loss.mul(new Scalar(share)).backward();
            return loss.detach().unsqueeze(0);
        });
    }

    /** 1 where there is a number, else 0. */
    private static Tensor something(Tensor numbers) { // [batch, grid, grid]
        return Tensors.toFloat32(numbers.ne(new Scalar(Targets.NOTHING)));
    }

    private static Tensor presence(Tensor logits, Tensor something) {
        return torch.binary_cross_entropy_with_logits(logits, something, Tensors.none(), Tensors.none(), SUM);
    }

    private static Tensor named(Tensor logits, Tensor numbers) { // [batch, classes, grid, grid], [batch, grid, grid]
        return torch.cross_entropy_loss(logits, numbers, Tensors.none(), SUM, Targets.NOTHING, 0);
    }

    /** One less the intersection over the union of two boxes around a cell's middle: [batch, grid, grid]. */
    private static Tensor missed(Tensor predicted, Tensor edges) { // distances: [batch, 4, grid, grid]
        Tensor intersection = area(torch.minimum(predicted, edges));
        Tensor union = area(predicted).add(area(edges)).sub(intersection);
        return intersection.div(union).neg().add(new Scalar(1));
    }

    private static Tensor area(Tensor edges) {
        return edges.select(1, 0).add(edges.select(1, 2)).mul(edges.select(1, 1).add(edges.select(1, 3)));
    }

    /** Not before it is examined, at the end. */
    @Override
    public void write() {}
}
