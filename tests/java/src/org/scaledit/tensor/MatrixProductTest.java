package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.testing.Golden;

class MatrixProductTest {
    @ParameterizedTest
    @ValueSource(longs = {1, 7, 20, 21, 1000})
    void throughFloat32IsTheExactProductRoundedOnce(long rows) {
        Tensors.run(() -> {
            Tensor x = random(21, 33);
            Tensor weight = random(17, 33);
            Tensor bias = random(17);
            Tensor exact = torch.linear(
                    x.to(torch.ScalarType.Double),
                    weight.to(torch.ScalarType.Double),
                    Tensors.optional(bias.to(torch.ScalarType.Double)));
            for (Tensor product : new Tensor[] {
                MatrixProduct.throughFloat32(x, weight, bias, rows), MatrixProduct.linear(x, weight, bias)
            }) {
                assertThat(product.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
                assertThat(Golden.relativeL2(product, exact)).isLessThan(2.5e-3);
            }
        });
    }

    @ParameterizedTest
    @ValueSource(longs = {0, 1, 5000})
    void float32IsExact(long rows) {
        Tensors.run(() -> {
            Tensor x = torch.randn(rows, 33);
            Tensor weight = torch.randn(17, 33);
            Tensor bias = torch.randn(17);
            Tensor product = MatrixProduct.linear(x, weight, bias);
            assertThat(product.shape()).containsExactly(rows, 17);
            Tensor difference = product.sub(x.matmul(weight.t()).add(bias)).abs();
            assertThat(rows == 0 ? 0 : difference.max().item_float()).isLessThan(1e-4f);
        });
    }

    @Test
    void whatIsWrittenIntoAViewOrComesInPartsIsTheSame() {
        Tensors.run(() -> {
            Tensor x = torch.randn(40, 33);
            Tensor weight = torch.randn(17, 33);
            Tensor bias = torch.randn(17);
            Tensor expected = MatrixProduct.linear(x, weight, bias);
            Tensor wide = torch.zeros(40, 30);
            MatrixProduct.linearInto(x, weight, bias, wide.narrow(1, 5, 17));
            assertThat(wide.narrow(1, 5, 17).equal(expected)).isTrue();
            assertThat(wide.narrow(1, 22, 8).abs().max().item_float()).isZero();
            Tensor parts = MatrixProduct.linearOfParts(x.narrow(1, 0, 8), x.narrow(1, 8, 25), weight, bias);
            assertThat(Golden.relativeL2(parts, expected)).isLessThan(1e-6);
        });
    }

    @Test
    void geluHasItsTanhForm() {
        Tensors.run(() -> {
            Tensor x = torch.randn(40, 33);
            Tensor weight = torch.randn(17, 33);
            Tensor bias = torch.randn(17);
            Tensor product = torch.linear(x, weight, Tensors.optional(bias));
            assertThat(MatrixProduct.linearGelu(x, weight, bias).equal(torch.gelu(product, "tanh")))
                    .isTrue();
            // The operator that a GPU uses; on a CPU its GELU is exact, which is why a CPU does not use it.
            assertThat(Golden.relativeL2(MatrixProduct.withGelu(x, weight, bias), torch.gelu(product)))
                    .isLessThan(1e-6);
        });
    }

    private static Tensor random(long... shape) {
        return torch.randn(shape).to(torch.ScalarType.BFloat16);
    }
}
