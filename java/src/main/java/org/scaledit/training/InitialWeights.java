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
            new Rule(Pattern.compile("text_encoder\\..*token_embedding\\.weight"), 0.02), // as transformers begins CLIP
            new Rule(Pattern.compile("text_encoder\\..*position_embedding\\.weight"), 0.01),
            new Rule(Pattern.compile("text_encoder_2\\.shared\\.weight"), 1)); // and T5

    private static final Pattern T5_QUERY = Pattern.compile("text_encoder_2\\..*SelfAttention\\.q\\.weight");

    private final Generator generator;
    private final int t5HeadDim;

    /** @param t5HeadDim size of a head of T5, whose scores are not scaled: its queries begin smaller */
    InitialWeights(long seed, int t5HeadDim) {
        this.generator = Tensors.outlive(() -> torch.createCPUGenerator(seed));
        this.t5HeadDim = t5HeadDim;
    }

    @Override
    public Tensor of(String name, long[] shape) {
        if (shape.length == 1) {
            return torch.full(shape, new Scalar(name.endsWith(".weight") ? 1.0 : 0.0), Placement.FLOAT32_CPU.options());
        }
        double deviation = deviation(name, shape);
        return Tensors.scoped(
                () -> torch.randn(shape, new GeneratorOptional(generator), Placement.FLOAT32_CPU.options())
                        .mul_(new Scalar(deviation)));
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
        if (T5_QUERY.matcher(name).matches()) {
            return 1 / Math.sqrt((double) in * t5HeadDim);
        }
        return 1 / Math.sqrt(in);
    }

    @Override
    public void close() {
        generator.close();
    }
}
