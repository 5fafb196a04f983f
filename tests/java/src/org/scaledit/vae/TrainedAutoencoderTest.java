package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** A batch in training computes what a picture is encoded and decoded with. */
class TrainedAutoencoderTest {
    private static final Map<String, Tensor> weights = new LinkedHashMap<>(); // float32 leaves

    private static VaeConfig config;

    @BeforeAll
    static void load() {
        config = VaeConfig.of(Config.read(Golden.tinyFlux().resolve("vae/config.json")));
        try (Safetensors file = Safetensors.openModel(Golden.tinyFlux().resolve("vae"), "diffusion_pytorch_model")) {
            AutoencoderKl.expectedTensors(config).forEach((name, shape) -> {
                Tensor leaf = Tensors.outlive(
                        () -> Tensors.toFloat32(file.tensor(name)).clone());
                leaf.set_requires_grad(true);
                weights.put(name, leaf);
            });
        }
    }

    @AfterAll
    static void close() {
        weights.values().forEach(Tensor::close);
    }

    private static TrainedAutoencoder trained() {
        return new TrainedAutoencoder(config, weights, Placement.FLOAT32_CPU);
    }

    private static Tensor pictures() {
        torch.manual_seed(1);
        return torch.randn(2, 3, 32, 48).tanh();
    }

    @Test
    void aBatchIsEncodedAndDecodedAsEachPictureIs() {
        Tensors.run(() -> {
            Tensor pictures = pictures();
            TrainedAutoencoder.Posterior posterior = trained().encode(pictures);
            Tensor decoded = trained().decode(posterior.mean());
            try (AutoencoderKl vae = AutoencoderKl.load(Golden.tinyFlux().resolve("vae"), Placement.FLOAT32_CPU)) {
                for (int i = 0; i < 2; i++) {
                    Tensor latent = vae.encode(pictures.select(0, i), TileListener.NONE);
                    assertThat(Golden.relativeL2(posterior.mean().select(0, i), latent))
                            .isLessThan(2e-6);
                    assertThat(Golden.relativeL2(decoded.select(0, i), vae.decode(latent, TileListener.NONE)))
                            .isLessThan(2e-5);
                }
            }
        });
    }

    private static Tensor loss(Tensor pictures, Tensor noise) {
        TrainedAutoencoder.Posterior posterior = trained().encode(pictures);
        return torch.mse_loss(trained().decode(posterior.sample(noise)), pictures)
                .add(posterior.divergence().mul(new Scalar(0.1)));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "encoder.conv_in.weight",
                "encoder.down_blocks.0.resnets.0.norm2.weight",
                "encoder.down_blocks.1.downsamplers.0.conv.weight",
                "encoder.mid_block.attentions.0.to_v.weight",
                "encoder.conv_out.bias",
                "decoder.up_blocks.0.resnets.1.conv2.weight",
                "decoder.up_blocks.3.resnets.0.conv_shortcut.weight",
                "decoder.conv_norm_out.bias"
            })
    void gradientsAreDifferencesOfTheLoss(String name) {
        Tensors.run(() -> {
            Tensor pictures = pictures();
            Tensor noise = torch.randn(2, 16, 4, 6);
            Tensor weight = Objects.requireNonNull(weights.get(name));
            if (weight.grad().defined()) {
                weight.mutable_grad().zero_();
            }
            loss(pictures, noise).backward();
            Tensor gradient = weight.grad().clone();
            double length = gradient.norm().item_double();
            double step = 3e-3 / length;
            double[] values = new double[2];
            Tensors.withoutGradients(() -> {
                weight.add_(gradient, new Scalar(step));
                values[0] = loss(pictures, noise).item_double();
                weight.add_(gradient, new Scalar(-2 * step));
                values[1] = loss(pictures, noise).item_double();
                weight.add_(gradient, new Scalar(step));
            });
            assertThat((values[0] - values[1]) / (2 * step) / (length * length)).isBetween(0.95, 1.05);
        });
    }
}
