package org.scaledit.image;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class ResizeTest {
    private final PointerScope scope = new PointerScope();

    @AfterEach
    void closeScope() {
        scope.close();
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 4})
    void enlargesAsTheReference(int number) {
        try (Golden golden = Golden.open("resize/bicubic")) {
            Tensor expected = golden.float32(number + "_out");
            assertThat(Golden.maxAbsoluteDifference(resized(golden, number, expected), expected))
                    .isLessThan(2e-6f);
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {2, 3, 4})
    void shrinksAntialiasedAsTheReference(int number) {
        try (Golden golden = Golden.open("resize/bicubic")) {
            Tensor expected = golden.float32(number + "_antialiased");
            assertThat(Golden.maxAbsoluteDifference(resized(golden, number, expected), expected))
                    .isLessThan(2e-6f);
        }
    }

    @Test
    void everyAxisFollowsItsOwnRule() {
        Tensor image = torch.rand(3, 24, 10);

        Tensor mixed = Resize.bicubic(image, 9, 31);

        Tensor narrow = Resize.bicubic(image, 9, 10);
        assertThat(Golden.maxAbsoluteDifference(mixed, Resize.bicubic(narrow, 9, 31)))
                .isZero();
        Tensor wide = Resize.bicubic(image, 24, 31);
        assertThat(Golden.maxAbsoluteDifference(mixed, Resize.bicubic(wide, 9, 31)))
                .isLessThan(2e-6f);
    }

    /** Several bands, the last of which is not full. */
    @ParameterizedTest
    @CsvSource({"600, 40, 31, 31", "600, 20, 31, 31", "20, 600, 31, 31", "20, 20, 31, 31", "600, 31, 600, 31"})
    void bandsGiveWhatTheWholeDoes(int height, int width, int toHeight, int toWidth) {
        Tensor image = torch.rand(3, height, width);

        Tensor banded = Resize.bicubic(PixelSource.of(image), toHeight, toWidth);

        assertThat(Golden.maxAbsoluteDifference(banded, Resize.bicubic(image, toHeight, toWidth)))
                .isLessThan(2e-6f);
    }

    @Test
    void keepsAPictureThatHasTheSizeAlready() {
        Tensor image = torch.rand(3, 7, 5);
        assertThat(Golden.maxAbsoluteDifference(Resize.bicubic(image, 7, 5), image))
                .isZero();
    }

    @Test
    void extendsByTheEdgePixelsAtTheBottomAndTheRight() {
        Tensor image = Tensors.of(new float[] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 3, 2, 2);

        Tensor extended = Resize.extend(image, 3, 4);

        assertThat(extended.shape()).containsExactly(3, 3, 4);
        assertThat(Tensors.floats(extended.select(0, 0))).containsExactly(1, 2, 2, 2, 3, 4, 4, 4, 3, 4, 4, 4);
        assertThat(Tensors.floats(extended.select(0, 2)))
                .containsExactly(9, 10, 10, 10, 11, 12, 12, 12, 11, 12, 12, 12);
    }

    /** 592 × 464 pixels are 37 × 29 tokens: a quarter is 148 × 116 pixels, extended to 10 × 8 guidance tokens. */
    @Test
    void fitsAUsersPictureToTheGuidanceGrid() {
        Tensor image = torch.rand(3, 200, 300);

        Tensor guidance = Resize.toGuidance(image, 464, 592, 4);

        assertThat(guidance.shape()).containsExactly(3, 128, 160);
        Tensor shrunk = Resize.bicubic(image, 116, 148);
        assertThat(Golden.maxAbsoluteDifference(guidance.narrow(1, 0, 116).narrow(2, 0, 148), shrunk))
                .isZero();
        for (int y = 116; y < 128; y++) {
            assertThat(Golden.maxAbsoluteDifference(guidance.select(1, y), guidance.select(1, 115)))
                    .isZero();
        }
        for (int x = 148; x < 160; x++) {
            assertThat(Golden.maxAbsoluteDifference(guidance.select(2, x), guidance.select(2, 147)))
                    .isZero();
        }
    }

    @ParameterizedTest
    @CsvSource({"1", "2", "4", "8"})
    void regionsOfAnEnlargedPictureAreThoseOfTheWhole(int ratio) {
        Tensor image = torch.randn(3, 13, 11);
        Tensor whole = Resize.bicubic(image, 13 * ratio, 11 * ratio);
        int height = 13 * ratio - ratio / 2;
        int width = 11 * ratio - ratio / 2;

        PixelSource enlarged = Resize.enlarged(image, ratio, height, width);

        assertThat(enlarged.height()).isEqualTo(height);
        assertThat(enlarged.width()).isEqualTo(width);
        for (int top = 0; top < height; top += 5) {
            for (int left = 0; left < width; left += 7) {
                int rows = Math.min(9, height - top);
                int columns = Math.min(12, width - left);
                Tensor expected = whole.narrow(1, top, rows).narrow(2, left, columns);
                assertThat(Golden.maxAbsoluteDifference(enlarged.region(top, left, rows, columns), expected))
                        .isZero();
            }
        }
    }

    private static Tensor resized(Golden golden, int number, Tensor expected) {
        Tensor image = golden.float32(number + "_in")
                .div(new Scalar(127.5))
                .sub(new Scalar(1.0))
                .permute(2, 0, 1);
        return Resize.bicubic(image, (int) expected.size(1), (int) expected.size(2));
    }
}
