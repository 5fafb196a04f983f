package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class WeightsTest {
    private static final Path TRANSFORMER = Golden.tinyFlux().resolve("transformer");
    private static final String QUERY = "transformer_blocks.0.attn.to_q.weight";

    private static Safetensors open() {
        return Safetensors.openModel(TRANSFORMER, "diffusion_pytorch_model");
    }

    @Test
    void loadsInThePrecisionOfThePlacement() {
        try (Weights weights = Weights.of(open(), Placement.FLOAT32_CPU)) {
            assertThat(weights.loadedBytes()).isZero();
            Tensor weight = weights.at("transformer_blocks.0").at("attn").load("to_q.weight", 256, 256);
            assertThat(weight.scalar_type().intern()).isEqualTo(torch.ScalarType.Float);
            assertThat(weights.loadedBytes()).isEqualTo(256 * 256 * 4);
            assertThat(weights.load(QUERY, 256, 256)).isSameAs(weight);
            try (Safetensors source = open()) {
                Tensors.run(() -> assertThat(Golden.maxAbsoluteDifference(weight, source.tensor(QUERY)))
                        .isZero());
            }
        }
    }

    @Test
    void copiesNothingThatIsStoredAsItIsUsed() {
        Safetensors source = open();
        try (Weights weights = Weights.of(source, Placement.BFLOAT16_CPU)) {
            Tensor weight = weights.load(QUERY, 256, 256);
            Tensors.run(() -> assertThat(weight.data_ptr().address())
                    .isEqualTo(source.tensor(QUERY).data_ptr().address()));
        }
    }

    /** What a float32 checkpoint holds goes to FP8 at once, not by way of the placement's bfloat16. */
    @Test
    void quantisesFromWhatIsStored(@TempDir Path folder) {
        Path file = folder.resolve("float32.safetensors");
        Tensors.run(() -> {
            Tensor stored = torch.randn(48, 64);
            try (SafetensorsWriter writer =
                    SafetensorsWriter.create(file, Map.of("weight", Declaration.of(Dtype.F32, 48, 64)), Map.of())) {
                writer.write("weight", stored);
                writer.commit();
            }
            try (Weights weights = Weights.of(Safetensors.open(file), Placement.BFLOAT16_CPU)) {
                Matrix quantised = weights.loadQuantised(List.of("weight"), 1, 3, 48, 64);
                Matrix expected = Matrix.quantised(stored.narrow(0, 16, 16));
                assertThat(quantised.plain(torch.ScalarType.Float).equal(expected.plain(torch.ScalarType.Float)))
                        .isTrue();
                Tensor rounded = Placement.BFLOAT16_CPU.place(stored.narrow(0, 16, 16));
                Matrix twice = Matrix.quantised(Tensors.toFloat32(rounded));
                assertThat(quantised.scales().orElseThrow().equal(twice.scales().orElseThrow()))
                        .isFalse();
            }
        });
    }

    @Test
    void outlivesTheScopeInWhichItLoads() {
        try (Weights weights = Weights.of(open(), Placement.FLOAT32_CPU)) {
            Tensors.run(() -> weights.load(QUERY, 256, 256));
            assertThat(weights.load(QUERY, 256, 256).isfinite().all().item_bool())
                    .isTrue();
        }
    }

    @Test
    void namesAWrongShapeAndAMissingWeight() {
        try (Weights weights = Weights.of(open(), Placement.FLOAT32_CPU)) {
            assertThat(weights.contains(QUERY)).isTrue();
            assertThat(weights.at("transformer_blocks.7").contains("attn.to_q.weight"))
                    .isFalse();
            assertThatThrownBy(() -> weights.load(QUERY, 256, 255))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageMatching("tensor " + QUERY
                            + " in .*-00001-of-00002.safetensors has shape \\[256, 256], expected \\[256, 255]");
            assertThatThrownBy(() -> weights.at("transformer_blocks.7").load("attn.to_q.weight", 256, 256))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessageContaining("tensor transformer_blocks.7.attn.to_q.weight is missing in " + TRANSFORMER);
            assertThat(weights.loadedBytes()).isZero();
        }
    }

    @Test
    void saysHowManyTensorsBelongToNothing() {
        try (Safetensors source = open()) {
            Map<String, long[]> expected = new LinkedHashMap<>();
            source.names().forEach(name -> expected.put(name, source.info(name).dimensions()));
            Weights.check(source, expected);
            expected.remove("proj_out.weight");
            assertThatThrownBy(() -> Weights.check(source, expected))
                    .hasMessageContaining("tensor proj_out.weight in ")
                    .hasMessageEndingWith("belongs to nothing in this model");
            expected.remove("proj_out.bias");
            expected.remove(QUERY);
            assertThatThrownBy(() -> Weights.check(source, expected))
                    .hasMessageEndingWith("belongs to nothing in this model, nor do 2 others");
        }
    }

    @Test
    void randomWeightsHaveTheShapeThatIsAskedForAndStay() {
        try (Weights weights = Weights.random(Placement.BFLOAT16_CPU)) {
            Tensor matrix = weights.load("to_q.weight", 64, 256);
            Tensor scale = weights.load("norm_q.weight", 4096);
            Tensors.run(() -> {
                assertThat(matrix.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
                assertThat(Tensors.toFloat32(matrix).std().item_float()).isBetween(0.019f, 0.021f);
                assertThat(Tensors.toFloat32(scale).mean().item_float()).isBetween(0.99f, 1.01f);
            });
            assertThat(weights.load("to_q.weight", 64, 256)).isSameAs(matrix);
            assertThat(weights.loadedBytes()).isEqualTo(2 * (64 * 256 + 4096));
        }
    }

    @Test
    void thoseApartAreFreedByThemselves() {
        try (Weights weights = Weights.of(open(), Placement.FLOAT32_CPU)) {
            Tensor kept = weights.load(QUERY, 256, 256);
            try (Weights apart = weights.at("transformer_blocks.0").apart()) {
                Tensor weight = apart.load("attn.to_q.weight", 256, 256);
                assertThat(weight).isNotSameAs(kept);
                Tensors.run(() -> assertThat(weight.equal(kept)).isTrue());
                assertThat(apart.loadedBytes()).isEqualTo(256 * 256 * 4);
            }
            assertThat(weights.loadedBytes()).isEqualTo(256 * 256 * 4);
            assertThat(weights.load("transformer_blocks.0.attn.to_k.weight", 256, 256)
                            .numel())
                    .isEqualTo(256 * 256);
        }
    }

    @Test
    void anInterruptEndsTheLoading() {
        try (Weights weights = Weights.of(open(), Placement.FLOAT32_CPU)) {
            Thread.currentThread().interrupt();
            assertThatThrownBy(() -> weights.load(QUERY, 256, 256))
                    .isInstanceOf(CancellationException.class)
                    .hasMessage("loading the weights was cancelled");
            assertThat(Thread.interrupted()).isFalse();
            Thread.currentThread().interrupt();
            assertThatThrownBy(() -> weights.loadStacked(List.of(QUERY, QUERY), 0, 2, 256, 256))
                    .isInstanceOf(CancellationException.class);
            assertThat(weights.loadedBytes()).isZero();
            Tensor weight = weights.load(QUERY, 256, 256);
            Thread.currentThread().interrupt();
            assertThat(weights.load(QUERY, 256, 256)).isSameAs(weight); // it is there
            assertThat(Thread.interrupted()).isTrue();
        }
    }

    @Test
    void closingTwiceDoesNoHarm() {
        Weights weights = Weights.of(open(), Placement.FLOAT32_CPU);
        weights.load(QUERY, 256, 256);
        weights.at("transformer_blocks").close();
        weights.close();
        assertThatThrownBy(() -> weights.load(QUERY, 256, 256)).isInstanceOf(IllegalStateException.class);
    }
}
