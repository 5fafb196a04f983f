package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** A batch through the core's kernels has the gradients of float32, as nearly as torch's own operators in bfloat16 have them. */
@Tag("gpu")
class TrainedTransformerGpuTest {
    private static FluxConfig config;

    @BeforeAll
    static void load() {
        CudaAttention.requireGpu();
        config = FluxConfig.of(ModelDirectory.open(Golden.tinyFlux()).config("transformer"));
    }

    /** The same numbers in all precisions. */
    private static Map<String, Tensor> leaves(Placement placement) {
        Map<String, Tensor> leaves = new LinkedHashMap<>();
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        try (Safetensors file = Safetensors.openModel(directory.part("transformer"), "diffusion_pytorch_model")) {
            FluxTransformer.expectedTensors(config).forEach((name, shape) -> {
                Tensor leaf = Tensors.outlive(() -> placement
                        .place(file.tensor(name).to(torch.ScalarType.BFloat16))
                        .clone());
                leaf.set_requires_grad(true);
                leaves.put(name, leaf);
            });
        }
        return leaves;
    }

    /** Gradients of all weights and of the text, float32 on the CPU. */
    private static Map<String, Tensor> gradients(
            Placement placement,
            boolean checkpointing,
            boolean second,
            int[] sizes,
            Supplier<BatchOperators> operators) {
        Map<String, Tensor> weights = leaves(placement);
        Map<String, Tensor> gradients = new LinkedHashMap<>();
        try (TrainedTransformer trained =
                new TrainedTransformer(config, weights, placement, checkpointing, operators)) {
            Tensors.run(() -> {
                int count = sizes[0];
                int text = sizes[1];
                torch.manual_seed(3);
                Tensor latents =
                        torch.randn(count, (long) sizes[2] * sizes[3], 64).to(torch.ScalarType.BFloat16);
                Tensor states = torch.randn(count, text, config.jointWidth()).to(torch.ScalarType.BFloat16);
                Tensor pooled = torch.randn(count, config.pooledWidth()).to(torch.ScalarType.BFloat16);
                Tensor sigmas = torch.rand(count);
                Tensor target = torch.randn(count, (long) sizes[2] * sizes[3], 64);
                Tensor hidden = torch.randn(count, (long) sizes[2] * sizes[3], config.width());
                Placement wide = placement.with(torch.ScalarType.Float);
                Tensor ofText = placement.place(states).detach();
                ofText.set_requires_grad(true);
                trained.addGradients(
                        new TrainedTransformer.Batch(
                                sizes[2],
                                sizes[3],
                                placement.place(latents),
                                sigmas,
                                ofText,
                                placement.place(pooled),
                                2.5),
                        velocity -> torch.mse_loss(velocity, wide.place(target)),
                        second
                                ? Optional.of(new TrainedTransformer.HiddenLoss(
                                        3,
                                        image -> torch.mse_loss(Tensors.toFloat32(image), wide.place(hidden))
                                                .mul(new Scalar(0.1))))
                                : Optional.empty());
                weights.forEach((name, weight) -> gradients.put(name, Tensors.outlive(() -> plain(weight.grad()))));
                gradients.put("text", Tensors.outlive(() -> plain(ofText.grad())));
            });
        } finally {
            weights.values().forEach(Tensor::close);
        }
        return gradients;
    }

    private static Tensor plain(Tensor tensor) {
        return Tensors.toFloat32(tensor).cpu().clone();
    }

    private static BatchOperators taped() {
        return new TapedBatch(config, new CudaBatchKernels(), Gpu.BFLOAT16);
    }

    private static double error(Map<String, Tensor> gradients, Map<String, Tensor> expected, String name) {
        return Golden.relativeL2(
                Objects.requireNonNull(gradients.get(name)), Objects.requireNonNull(expected.get(name)));
    }

    /** Sizes: pictures, text, and the tokens of a picture across and down. */
    @ParameterizedTest
    @CsvSource({
        "false, false, 3, 7, 5, 3",
        "false, true, 32, 48, 16, 16",
        "true, false, 1, 1, 33, 9",
        "true, true, 5, 12, 8, 4"
    })
    void gradientsAreThoseOfFloat32(
            boolean checkpointing, boolean second, int pictures, int text, int width, int height) {
        int[] sizes = {pictures, text, width, height};
        Map<String, Tensor> expected =
                gradients(Placement.FLOAT32_CPU, false, second, sizes, () -> new AutogradBatch(config));
        Map<String, Tensor> torchs =
                gradients(Gpu.BFLOAT16, checkpointing, second, sizes, () -> new AutogradBatch(config));
        Map<String, Tensor> cores =
                gradients(Gpu.BFLOAT16, checkpointing, second, sizes, TrainedTransformerGpuTest::taped);
        double worst = 0;
        double sumOfTorch = 0;
        double sumOfCore = 0;
        for (String name : expected.keySet()) {
            double ofTorch = error(torchs, expected, name);
            double ofCore = error(cores, expected, name);
            assertThat(ofCore).as(name + ", torch " + ofTorch).isLessThan(2 * ofTorch + 5e-2);
            worst = Math.max(worst, ofCore);
            sumOfTorch += ofTorch;
            sumOfCore += ofCore;
        }
        System.out.printf(
                "relative L2 of gradients, mean over weights: core %.2e, torch %.2e; worst of core %.2e%n",
                sumOfCore / expected.size(), sumOfTorch / expected.size(), worst);
        assertThat(sumOfCore).isLessThan(1.2 * sumOfTorch);
        for (Map<String, Tensor> made : List.of(expected, torchs, cores)) {
            made.values().forEach(Tensor::close);
        }
    }
}
