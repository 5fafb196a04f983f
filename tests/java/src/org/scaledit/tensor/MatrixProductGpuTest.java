package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

/** Products on a GPU, against those in float64 on the CPU. */
@Tag("gpu")
class MatrixProductGpuTest {
    private static final double BFLOAT16_LIMIT = 4e-3;

    /** Fast accumulation keeps some 14 bits of a sum. */
    private static final double FP8_LIMIT = 5e-3;

    @BeforeAll
    static void requireGpu() {
        CudaAttention.requireGpu();
    }

    @BeforeEach
    void seed() {
        torch.manual_seed(6);
    }

    /** What has the sizes of a layer: a sixteenth of FLUX's. */
    private record Layer(Tensor x, Tensor weight, Tensor bias, Tensor product) {
        static Layer random() {
            Tensor x = rounded(torch.randn(520, 256));
            Tensor weight = rounded(torch.randn(192, 256).mul_(new Scalar(0.06)));
            Tensor bias = rounded(torch.randn(192));
            Tensor product = torch.linear(x, weight, Tensors.optional(bias));
            return new Layer(Gpu.BFLOAT16.place(x), Gpu.BFLOAT16.place(weight), Gpu.BFLOAT16.place(bias), product);
        }

        /** In float64, but what bfloat16 can say. */
        private static Tensor rounded(Tensor x) {
            return x.to(torch.ScalarType.BFloat16).to(torch.ScalarType.Double);
        }
    }

    @Test
    void whatIsWrittenIntoAViewOrComesInPartsIsTheSame() {
        Tensors.run(() -> {
            Layer layer = Layer.random();
            Tensor wide = torch.zeros(new long[] {520, 256}, Gpu.BFLOAT16.options());
            MatrixProduct.linearInto(layer.x, layer.weight, layer.bias, wide.narrow(1, 32, 192));
            assertThat(Golden.relativeL2(wide.narrow(1, 32, 192), layer.product))
                    .isLessThan(BFLOAT16_LIMIT);
            assertThat(wide.narrow(1, 0, 32).abs().max().item_float()).isZero();
            assertThat(wide.narrow(1, 224, 32).abs().max().item_float()).isZero();
            Tensor parts = MatrixProduct.linearOfParts(
                    layer.x.narrow(1, 0, 64), layer.x.narrow(1, 64, 192), layer.weight, layer.bias);
            assertThat(Golden.relativeL2(parts, layer.product)).isLessThan(BFLOAT16_LIMIT);
        });
    }

    /** Against the product of the numbers that the FP8 values stand for: what is left is the output's rounding. */
    @Test
    void fp8IsTheProductOfWhatItsNumbersStandFor() {
        MatrixProduct.requireFp8(1);
        Tensors.run(() -> {
            Layer layer = Layer.random();
            Matrix x = Matrix.quantised(layer.x);
            Matrix weight = Matrix.quantised(Tensors.toFloat32(layer.weight));
            Tensor expected = torch.linear(
                    x.plain(torch.ScalarType.Double),
                    weight.plain(torch.ScalarType.Double),
                    Tensors.optional(layer.bias.to(torch.ScalarType.Double)));
            Tensor y = torch.empty(new long[] {600, 192}, Gpu.BFLOAT16.options(), null);
            MatrixProduct.linearInto(x, weight, layer.bias, y.narrow(0, 80, 520));
            for (Tensor product : new Tensor[] {MatrixProduct.linear(x, weight, layer.bias), y.narrow(0, 80, 520)}) {
                double off = Golden.relativeL2(product, expected);
                System.out.printf("FP8 product: %.1e to the numbers it stands for%n", off);
                assertThat(off).isLessThan(FP8_LIMIT);
            }
            assertThat(Golden.relativeL2(MatrixProduct.linear(x, weight, layer.bias), layer.product))
                    .isLessThan(6e-2);
        });
    }

    /** Of every size that FLUX and tiny-flux have: few text tokens, or few of a small guidance image. */
    @ParameterizedTest
    @CsvSource({
        "256, 256",
        "256, 768",
        "256, 1024",
        "1024, 256",
        "1280, 256",
        "3072, 3072",
        "3072, 9216",
        "3072, 12288",
        "12288, 3072",
        "15360, 3072"
    })
    void fp8HasFewRowsToo(long in, long out) {
        MatrixProduct.requireFp8(1);
        Tensors.run(() -> {
            Tensor all = Gpu.BFLOAT16.place(torch.randn(new long[] {200, in}));
            Matrix weight = Matrix.quantised(Tensors.toFloat32(Gpu.BFLOAT16.place(torch.randn(new long[] {out, in}))));
            Tensor bias = Gpu.BFLOAT16.place(torch.randn(new long[] {out}));
            for (long rows : new long[] {1, 2, 15, 16, 17, 32, 48, 63, 64, 65, 80, 96, 127, 128, 144, 200}) {
                Matrix x = Matrix.quantised(all.narrow(0, 0, rows).contiguous());
                Tensor expected = torch.linear(
                        x.plain(torch.ScalarType.Float),
                        weight.plain(torch.ScalarType.Float),
                        Tensors.optional(Tensors.toFloat32(bias)));
                assertThat(Golden.relativeL2(MatrixProduct.linear(x, weight, bias), expected))
                        .as("%d rows", rows)
                        .isLessThan(FP8_LIMIT);
            }
        });
    }

    /** A stream's tokens begin at any row; their scales then at any multiple of four bytes. */
    @ParameterizedTest
    @CsvSource({"256, 768", "3072, 9216", "3072, 12288", "3072, 3072", "12288, 3072"})
    void fp8BeginsAtAnyRow(long in, long out) {
        MatrixProduct.requireFp8(1);
        Tensors.run(() -> {
            Matrix all = Matrix.quantised(Gpu.BFLOAT16.place(torch.randn(new long[] {1100, in})));
            Matrix weight = Matrix.quantised(Tensors.toFloat32(Gpu.BFLOAT16.place(torch.randn(new long[] {out, in}))));
            Tensor bias = Gpu.BFLOAT16.place(torch.randn(new long[] {out}));
            for (long rows : new long[] {1, 64, 128, 192, 256, 320, 512, 736, 1024, 1090}) {
                for (long first : new long[] {0, 1, 2, 3, 5, 6}) {
                    Matrix x = all.rows(first, rows);
                    Tensor expected = torch.linear(
                            x.plain(torch.ScalarType.Float),
                            weight.plain(torch.ScalarType.Float),
                            Tensors.optional(Tensors.toFloat32(bias)));
                    assertThat(Golden.relativeL2(MatrixProduct.linear(x, weight, bias), expected))
                            .as("%d rows from row %d on", rows, first)
                            .isLessThan(FP8_LIMIT);
                    Tensor sum = torch.ones(new long[] {rows, out}, Gpu.BFLOAT16.options());
                    if (MatrixProduct.addsInFp8() && MatrixProduct.addInto(x, weight, bias, sum)) {
                        assertThat(Golden.relativeL2(sum, expected.add(new Scalar(1))))
                                .as("%d rows from row %d on, added", rows, first)
                                .isLessThan(FP8_LIMIT);
                    }
                }
            }
        });
    }

    /** In float32 its tanh and its exact form are told apart: they are up to 4.7e-4 off each other. */
    @Test
    void geluHasItsTanhForm() {
        Tensors.run(() -> {
            Layer layer = Layer.random();
            Tensor expected = torch.gelu(layer.product, "tanh");
            assertThat(Golden.relativeL2(MatrixProduct.linearGelu(layer.x, layer.weight, layer.bias), expected))
                    .isLessThan(BFLOAT16_LIMIT);
            Tensor inFloat32 = MatrixProduct.linearGelu(
                    Tensors.toFloat32(layer.x), Tensors.toFloat32(layer.weight), Tensors.toFloat32(layer.bias));
            float off = inFloat32
                    .cpu()
                    .to(torch.ScalarType.Double)
                    .sub(expected)
                    .abs()
                    .max()
                    .to(torch.ScalarType.Float)
                    .item_float();
            assertThat(off).isLessThan(1e-4f);
        });
    }
}
