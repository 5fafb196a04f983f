package org.scaledit.training;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.LongToDoubleFunction;
import java.util.regex.Pattern;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * Momentum whose matrices are made orthogonal before they are added (Jordan and others, Muon, 2024), with the size and the weight
 * decay that make AdamW's learning rates serve (Liu and others, arXiv 2502.16982): for the matrices of hidden layers. All other
 * weights are AdamW's: vectors, embeddings, modulations, the first and the last layers.
 */
final class Muon implements Optimizer {
    private static final double MOMENTUM = 0.95;
    private static final double ADAM_SIZE = 0.2; // root mean square of what AdamW adds, in learning rates
    private static final double EPSILON = 1e-7;
    private static final int ITERATIONS = 5;

    /** Of an odd polynomial that brings singular values from 0.003 … 1 to 0.7 … 1.2 in five times. */
    private static final double[] POLYNOMIAL = {3.4445, -4.7750, 2.0315};

    private static final Pattern HIDDEN = Pattern.compile(
            "transformer\\.(single_)?transformer_blocks\\.\\d+\\.(attn|ff|ff_context|proj_mlp|proj_out)\\b.*\\.weight"
                    + "|text_encoder\\..*\\.(self_attn|mlp)\\..*\\.weight"
                    + "|text_encoder_2\\..*\\.(SelfAttention\\.[qkvo]|DenseReluDense\\.\\w+)\\.weight");

    private final double weightDecay;
    private final List<ParameterSet.Stack> stacks;
    private final Tensor others;
    private final AdamW ofOthers;
    private final OptimizerState state = new OptimizerState();
    private final List<Tensor> momenta;

    /**
     * @param parameters in the order of {@link #ordered}
     * @param learningRate of each step, from 1
     */
    Muon(ParameterSet parameters, LongToDoubleFunction learningRate, double weightDecay) {
        this.weightDecay = weightDecay;
        this.stacks = parameters.stacks(Muon::isHidden);
        this.others = parameters.after(Muon::isHidden);
        this.ofOthers = new AdamW(Map.of("others", others), learningRate, weightDecay);
        Map<String, Tensor> matrices = new LinkedHashMap<>();
        for (int i = 0; i < stacks.size(); i++) {
            matrices.put(String.valueOf(i), stacks.get(i).values());
        }
        this.momenta = state.zeros("momentum", matrices);
    }

    /** Whether it is a matrix of a hidden layer; a norm's weight under the same name is a vector. */
    private static boolean isHidden(String name, long[] shape) {
        return shape.length == 2 && HIDDEN.matcher(name).matches();
    }

    /** With the matrices of hidden layers first, those of a shape side by side, so that a few operations take all of them. */
    static Map<String, long[]> ordered(Map<String, long[]> shapes) {
        Map<List<Long>, Map<String, long[]>> hidden = new LinkedHashMap<>();
        Map<String, long[]> others = new LinkedHashMap<>();
        shapes.forEach((name, shape) -> {
            if (isHidden(name, shape)) {
                hidden.computeIfAbsent(List.of(shape[0], shape[1]), first -> new LinkedHashMap<>())
                        .put(name, shape);
            } else {
                others.put(name, shape);
            }
        });
        Map<String, long[]> ordered = new LinkedHashMap<>();
        hidden.values().forEach(ordered::putAll);
        ordered.putAll(others);
        return ordered;
    }

    @Override
    public void step() {
        double rate = learningRate();
        Tensors.withoutGradients(() -> {
            for (int i = 0; i < stacks.size(); i++) {
                Tensor values = stacks.get(i).values();
                Tensor gradients = stacks.get(i).gradients();
                Tensor momentum = momenta.get(i);
                Tensors.run(() -> {
                    momentum.mul_(new Scalar(MOMENTUM)).add_(gradients);
                    Tensor direction = orthogonal(gradients.add(momentum, new Scalar(MOMENTUM))); // Nesterov's
                    double size = ADAM_SIZE * Math.sqrt(Math.max(values.size(1), values.size(2)));
                    values.mul_(new Scalar(1 - rate * weightDecay)).add_(direction, new Scalar(-rate * size));
                });
            }
        });
        ofOthers.step();
    }

    /**
     * Each matrix with its singular values near 1, by Newton and Schulz's iteration; on a GPU in bfloat16.
     *
     * @param matrices {@code [count, rows, columns]}, float32
     * @return likewise, in the caller's scope
     */
    static Tensor orthogonal(Tensor matrices) {
        return Tensors.scoped(() -> {
            boolean tall = matrices.size(1) > matrices.size(2);
            Tensor x = Tensors.scoped(() -> {
                Tensor wide = tall ? matrices.transpose(1, 2) : matrices;
                Tensor length = torch.linalg_vector_norm(
                        wide, new Scalar(2), new long[] {1, 2}, true, new ScalarTypeOptional());
                return wide.div(length.add_(new Scalar(EPSILON)))
                        .to(matrices.is_cuda() ? torch.ScalarType.BFloat16 : torch.ScalarType.Float);
            });
            for (int i = 0; i < ITERATIONS; i++) {
                Tensors.run(
                        () -> { // what a round makes is gone before the next one
                            Tensor square = x.matmul(x.transpose(1, 2));
                            Tensor factor = square.mul(new Scalar(POLYNOMIAL[1]))
                                    .add_(square.matmul(square), new Scalar(POLYNOMIAL[2]));
                            x.copy_(factor.matmul(x).add_(x, new Scalar(POLYNOMIAL[0])));
                        });
            }
            return (tall ? x.transpose(1, 2) : x).to(torch.ScalarType.Float);
        });
    }

    @Override
    public double learningRate() {
        return ofOthers.learningRate();
    }

    @Override
    public Map<String, Tensor> state() {
        Map<String, Tensor> all = new LinkedHashMap<>(ofOthers.state());
        all.putAll(state.tensors());
        return all;
    }

    @Override
    public void close() {
        ofOthers.close();
        state.close();
        others.close();
        stacks.forEach(ParameterSet.Stack::close);
    }
}
