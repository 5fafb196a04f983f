package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** A product in FP8 that adds itself to the hidden state, against float64. */
@Tag("gpu")
class GatedLayerGpuTest {
    @BeforeAll
    static void load() {
        CudaAttention.requireGpu();
        FluxTransformer.requireFp8(Gpu.BFLOAT16);
    }

    /**
     * Both streams have gates of their own; rows are no multiple of anything; what lies behind them stays. In the last sizes
     * cuBLASLt has no product that adds, so that the sum is rounded twice.
     */
    @ParameterizedTest
    @CsvSource({
        "37, 0, 512, 256, 2.5e-3",
        "37, 5, 512, 256, 2.5e-3",
        "1, 1, 512, 256, 2.5e-3",
        "300, 128, 512, 256, 2.5e-3",
        "1024, 64, 512, 256, 2.5e-3",
        "256, 64, 12288, 3072, 4e-3",
        "64, 0, 15360, 3072, 4e-3"
    })
    @SuppressWarnings("NullAway") // a pass without attention: no layer asks for it
    void addsTheGatedProduct(long rows, long guidanceRows, long in, long out, double limit) {
        Tensors.run(() -> {
            torch.manual_seed(rows);
            Tensor input = random(rows, in);
            Matrix x = Matrix.quantised(input);
            Matrix weight = Matrix.quantised(random(out, in).mul_(new Scalar(0.05)));
            Linear layer = new Linear(weight, random(out), List.of());
            Modulation modulation = new Modulation(random(2, 6 * out), out, guidanceRows);
            Tensor memory = random(rows + 3, out);
            Tensor before = memory.clone();
            Tensor hidden = memory.narrow(0, 0, rows);

            Pass pass = new Pass(
                    random(2, out), null, null, CudaTokenWise.FP8, 0, guidanceRows, Optional.empty(), null, part -> {});
            GatedLayer gated = GatedLayer.of(layer, modulation, 2, pass);
            assertThat(gated instanceof GatedLayer.Within).isEqualTo(MatrixProduct.addsInFp8());
            Chunk.forEach(rows, 100, modulation, chunk -> gated.addTo(chunk.of(hidden), List.of(chunk.of(x)), chunk));

            Tensor product = wide(x.plain(torch.ScalarType.Float))
                    .matmul(wide(weight.plain(torch.ScalarType.Float)).t())
                    .add(wide(layer.bias()));
            for (int stream = 0; stream < 2; stream++) {
                if (modulation.rows(product, stream).size(0) > 0) {
                    modulation.rows(product, stream).mul_(wide(modulation.part(2, stream)));
                }
            }
            Tensor expected = wide(before.narrow(0, 0, rows)).add(product);
            // Rounded once to bfloat16; gates make scales and biases that float32 and bfloat16 hold.
            assertThat(Golden.relativeL2(hidden.cpu(), expected.cpu())).isLessThan(limit);
            assertThat(memory.narrow(0, rows, 3).equal(before.narrow(0, rows, 3)))
                    .isTrue();
        });
    }

    private static Tensor random(long... shape) {
        return torch.randn(shape, Gpu.BFLOAT16.options());
    }

    private static Tensor wide(Tensor x) {
        return x.to(torch.ScalarType.Double);
    }
}
