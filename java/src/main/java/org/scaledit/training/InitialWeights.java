package org.scaledit.training;

import java.util.List;
import java.util.regex.Pattern;
import org.bytedeco.pytorch.Generator;
import org.bytedeco.pytorch.GeneratorOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Random weights to begin with, all from one generator: normal matrices that keep the size of what passes through them. A
 * transformer's blocks and its last layer begin by adding nothing (adaLN-Zero; Peebles and Xie, arXiv 2212.09748).
 */
final class InitialWeights implements ParameterSet.Start, AutoCloseable {
    /** A weight's name, and its deviation; the first that matches. */
    private record Rule(Pattern name, double deviation) {}

    private static final List<Rule> RULES = List.of(
            new Rule(Pattern.compile("transformer\\..*(norm\\d?(_context)?|norm_out)\\.linear\\.weight"), 0),
            new Rule(Pattern.compile("transformer\\.proj_out\\.weight"), 0),
            new Rule(Pattern.compile("transformer\\..*\\.guidance_embedder\\.linear_2\\.weight"), 0), // likewise
            new Rule(Pattern.compile("recognition\\..*"), 0), // says nothing at first
            new Rule(Pattern.compile("layout\\.object\\..*"), 0), // likewise
            new Rule(Pattern.compile("text_encoder\\..*token_embedding\\.weight"), 0.02), // as transformers begins CLIP
            new Rule(Pattern.compile("text_encoder\\..*position_embedding\\.weight"), 0.01),
            new Rule(Pattern.compile("text_encoder_2\\.shared\\.weight"), 1)); // and T5

    private static final Pattern T5_POSITIONS = Pattern.compile("text_encoder_2\\..*relative_attention_bias\\.weight");

    /**
     * Of T5's heads in turn, the distances of keys from a query (negative ones come before it) that a head begins by preferring: words
     * next to each other have to meet before an encoder can learn that their order matters.
     */
    private static final int[][] T5_NEIGHBOURS = {{-1}, {1}, {-4, -3, -2}, {2, 3, 4}};

    private static final double T5_PREFERENCE = 4;

    private final Generator generator;

    InitialWeights(long seed) {
        this.generator = Tensors.outlive(() -> torch.createCPUGenerator(seed));
    }

    @Override
    public Tensor of(String name, long[] shape) {
        if (shape.length == 1) {
            return torch.full(shape, new Scalar(name.endsWith(".weight") ? 1.0 : 0.0), Placement.FLOAT32_CPU.options());
        }
        double deviation = deviation(name, shape);
        Tensor random = Tensors.scoped(
                () -> torch.randn(shape, new GeneratorOptional(generator), Placement.FLOAT32_CPU.options())
                        .mul_(new Scalar(deviation)));
        if (T5_POSITIONS.matcher(name).matches()) {
            preferNeighbours(random);
        }
        return random;
    }

    /** @param bias [buckets, heads]: the first half of the buckets is for keys before the query, small distances have one each */
    private static void preferNeighbours(Tensor bias) {
        long half = bias.size(0) / 2;
        for (int head = 0; head < bias.size(1); head++) {
            for (int distance : T5_NEIGHBOURS[head % T5_NEIGHBOURS.length]) {
                long bucket = distance < 0 ? -distance : half + distance;
                int column = head;
                Tensors.run(() -> bias.select(0, bucket).select(0, column).add_(new Scalar(T5_PREFERENCE)));
            }
        }
    }

    private double deviation(String name, long[] shape) {
        for (Rule rule : RULES) {
            if (rule.name.matcher(name).matches()) {
                return rule.deviation;
            }
        }
        long in = 1;
        for (int axis = 1; axis < shape.length; axis++) {
            in *= shape[axis];
        }
        return 1 / Math.sqrt(in);
    }

    @Override
    public void close() {
        generator.close();
    }
}
