package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.testing.Golden;

class MatrixTest {
    /** Three bits of mantissa: at most 1/16 off, where the scale leaves no number below e4m3's smallest normal one. */
    @ParameterizedTest
    @EnumSource(
            value = torch.ScalarType.class,
            names = {"Float", "BFloat16"})
    void eachRowIsQuantisedByItsLargestValue(torch.ScalarType precision) {
        Tensors.run(() -> {
            torch.manual_seed(4);
            Tensor sizes = Tensors.of(new float[] {1e-6f, 1, 3e4f, 0, 1e-3f}, 5, 1);
            Tensor x = torch.randn(5, 200).mul_(sizes).to(precision);
            Matrix quantised = Matrix.quantised(x);
            assertThat(quantised.values().scalar_type().intern()).isEqualTo(torch.ScalarType.Float8_e4m3fn);
            Tensor plain = quantised.plain(torch.ScalarType.Float);
            assertThat(plain.isfinite().all().item_bool()).isTrue();
            Tensor values = Tensors.toFloat32(quantised.values()).abs();
            for (int row = 0; row < 5; row++) {
                Tensor original = Tensors.toFloat32(x.select(0, row));
                if (row == 3) {
                    assertThat(plain.select(0, row).abs().max().item_float()).isZero();
                    continue;
                }
                assertThat(values.select(0, row).max().item_float()).isEqualTo(448);
                assertThat(Golden.relativeL2(plain.select(0, row), original)).isBetween(5e-3, 3e-2);
                Tensor off = plain.select(0, row).sub(original).abs();
                Tensor bound = original.abs()
                        .mul(new Scalar(0.0675))
                        .add(original.abs().max().mul(new Scalar(1e-5)));
                assertThat(off.sub(bound).max().item_float()).isNegative();
            }
            Matrix part = quantised.rows(1, 2);
            assertThat(part.plain(torch.ScalarType.Float).equal(plain.narrow(0, 1, 2)))
                    .isTrue();
            assertThat(quantised.plain(torch.ScalarType.BFloat16).equal(plain.to(torch.ScalarType.BFloat16)))
                    .isTrue();
        });
    }
}
