package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.scaledit.bindings.MatrixView;
import org.scaledit.bindings.NativeLibrary;

class CoreViewsTest {
    @BeforeAll
    static void load() {
        Torch.load();
        NativeLibrary.load();
    }

    @Test
    void saysWhereRowsLieAndWhatTheirNumbersAre() {
        Tensors.run(() -> {
            Tensor rows = torch.zeros(3, 8).narrow(1, 2, 4);
            MatrixView view = new MatrixView();
            CoreViews.describe(rows, rows.stride(0), view);
            assertThat(view.data().address()).isEqualTo(rows.data_ptr().address());
            assertThat(view.row_stride()).isEqualTo(8);
            assertThat(view.dtype()).isEqualTo(SCALEDIT_FLOAT32);
            assertThat(CoreViews.dtype(rows.to(torch.ScalarType.BFloat16))).isEqualTo(SCALEDIT_BFLOAT16);
            assertThat(CoreViews.dtype(rows.to(torch.ScalarType.Float8_e4m3fn))).isEqualTo(SCALEDIT_E4M3);
        });
    }

    @Test
    void refusesNumbersThatTheCoreDoesNotKnow() {
        Tensors.run(() -> {
            Tensor half = torch.zeros(3, 8).to(torch.ScalarType.Half);
            assertThatThrownBy(() -> CoreViews.dtype(half))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("a tensor is Half, expected Float, BFloat16 or Float8_e4m3fn");
        });
    }
}
