package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.transformer.Linear.LowRank;

class AdaptersTest {
    private static FluxTransformer transformer;

    @BeforeAll
    static void load() {
        transformer = FluxTransformer.load(ModelDirectory.open(Golden.tinyFlux()), Placement.FLOAT32_CPU);
    }

    @AfterAll
    static void close() {
        transformer.close();
    }

    @Test
    void aLayerOfNoModuleIsNamed() {
        assertThatThrownBy(() -> adapt("transformer_blocks.2.attn.to_q", 256, 256, LoraScope.ALL))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("some.safetensors has a layer for transformer_blocks.2.attn.to_q,"
                        + " which the model does not have");
    }

    @Test
    void aLayerOfAnotherShapeIsNamed() {
        assertThatThrownBy(() -> adapt("transformer_blocks.1.ff.net.2", 256, 256, LoraScope.ALL))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("the layer of transformer_blocks.1.ff.net.2 in some.safetensors has shapes [4, 256] and"
                        + " [256, 4], expected [rank, 1024] and [256, rank]");
    }

    @ParameterizedTest
    @CsvSource({
        "context_embedder, 32, 256",
        "transformer_blocks.0.norm1_context.linear, 256, 1536",
        "transformer_blocks.0.attn.add_q_proj, 256, 256",
        "transformer_blocks.1.attn.to_add_out, 256, 256",
        "transformer_blocks.1.ff_context.net.2, 1024, 256",
        "norm_out.linear, 256, 512",
        "proj_out, 256, 64"
    })
    void aLayerThatGuidanceTokensNeverPassIsWarnedOf(String module, long in, long out) {
        for (LoraScope scope : List.of(LoraScope.GUIDANCE, LoraScope.RELEASED)) {
            try (FluxTransformer adapted = adapt(module, in, out, scope)) {
                assertThat(adapted.loraWarnings())
                        .containsExactly("LoRA some.safetensors has no effect on " + module
                                + ": the scope reaches guidance tokens alone, which never pass through it");
            }
        }
        try (FluxTransformer adapted = adapt(module, in, out, LoraScope.ALL)) {
            assertThat(adapted.loraWarnings()).isEmpty();
        }
    }

    @ParameterizedTest
    @CsvSource({
        "x_embedder, 64, 256",
        "time_text_embed.timestep_embedder.linear_1, 256, 256",
        "transformer_blocks.0.norm1.linear, 256, 1536",
        "transformer_blocks.0.attn.to_out.0, 256, 256",
        "single_transformer_blocks.1.norm.linear, 256, 768",
        "single_transformer_blocks.1.proj_out, 1280, 256"
    })
    void aLayerThatGuidanceTokensPassIsNotWarnedOf(String module, long in, long out) {
        for (LoraScope scope : LoraScope.values()) {
            try (FluxTransformer adapted = adapt(module, in, out, scope)) {
                assertThat(adapted.loraWarnings()).isEmpty();
            }
        }
    }

    @Test
    void aLinearLayerAddsItsLoraToTheRowsThatItReaches() {
        Tensors.run(() -> {
            Tensor x = torch.randn(5, 3);
            Tensor weight = torch.randn(4, 3);
            Tensor bias = torch.randn(4);
            Tensor down = torch.randn(2, 3);
            Tensor up = torch.randn(4, 2);
            Tensor plain = x.matmul(weight.t()).add(bias);
            Tensor merged = x.matmul(weight.add(up.matmul(down)).t()).add(bias);

            Tensor all =
                    linear(weight, bias, new LowRank(down, up, 1, false, 0)).forward(x, 2);
            assertThat(Golden.maxAbsoluteDifference(all, merged)).isLessThan(1e-5f);
            Tensor guidance =
                    linear(weight, bias, new LowRank(down, up, 1, true, 0)).forward(x, 2);
            Tensor expected = Tensors.concatenate(0, plain.narrow(0, 0, 3), merged.narrow(0, 3, 2));
            assertThat(Golden.maxAbsoluteDifference(guidance, expected)).isLessThan(1e-5f);
            Tensor none =
                    linear(weight, bias, new LowRank(down, up, 1, true, 0)).forward(x, 0);
            assertThat(Golden.maxAbsoluteDifference(none, plain)).isLessThan(1e-5f);
        });
    }

    private static Linear linear(Tensor weight, Tensor bias, LowRank lora) {
        return new Linear(Matrix.of(weight), bias, List.of(lora));
    }

    /** The transformer under a LoRA of rank 4 with one layer. */
    private static FluxTransformer adapt(String module, long in, long out, LoraScope scope) {
        Lora.Layer layer = new Lora.Layer(
                Tensors.outlive(() -> torch.randn(4, in)), Tensors.outlive(() -> torch.randn(out, 4)), 1);
        try (Lora lora = new Lora(Path.of("some.safetensors"), Map.of(module, layer))) {
            return transformer.withLoras(List.of(new ScaledLora(lora, 1)), scope);
        }
    }
}
