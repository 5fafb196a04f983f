package org.scaledit.evaluation;

import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Attention;
import org.scaledit.attention.DifferentiableAttention;
import org.scaledit.checkpoint.Lora;
import org.scaledit.tensor.Tensors;
import org.scaledit.training.LoraTargets;
import org.scaledit.transformer.Denoiser;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.GradientPass;

/** A micro-step of training the paper's LoRA, of rank 16 on the guidance tokens' queries, keys and values, on noise. */
final class TrainingStep implements StepBenchmark.Step {
    /** Forward, every block once more, and back: weights do not change, so the way back has one product for each. */
    static final int PASSES = 3;

    private static final int RANK = 16;

    private final GradientPass pass;
    private final Tensor latents;
    private final UnaryOperator<Tensor> loss;

    /**
     * @param denoiser of a transformer with a LoRA in training
     * @param latents packed, noised, which are the velocity's target as well: {@code [W·H, 64]}
     * @param attention the denoiser's, of the core
     */
    TrainingStep(Denoiser denoiser, Tensor latents, Attention attention) {
        this.pass = new GradientPass(denoiser, (DifferentiableAttention) attention);
        this.latents = latents;
        this.loss = velocity -> torch.mse_loss(velocity, latents);
    }

    /** Random, so that all gradients are there: time and memory do not depend on the numbers. */
    static Lora lora(FluxConfig config) {
        Map<String, Lora.Layer> layers = new TreeMap<>();
        LoraTargets.QKV
                .of(config)
                .forEach((module, widths) ->
                        layers.put(module, new Lora.Layer(random(RANK, widths.in()), random(widths.out(), RANK), 1)));
        return new Lora(Path.of("random"), layers);
    }

    private static Tensor random(long rows, long columns) {
        return Tensors.outlive(() -> new Tensor(torch.randn(rows, columns).mul_(new Scalar(0.02))));
    }

    @Override
    public void run() {
        pass.add(latents, StepBenchmark.SIGMA, loss);
    }

    @Override
    public void run(Profile profile) {
        pass.add(latents, StepBenchmark.SIGMA, loss, profile::begin);
    }
}
