package org.scaledit.inception;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.nio.file.Path;
import java.util.function.ToDoubleBiFunction;
import org.assertj.core.data.Percentage;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.tensor.Placement;

class FeatureStatisticsTest {
    private static final Path PICTURE = Path.of("fox.png");

    private final PointerScope scope = new PointerScope();

    @AfterEach
    void closeScope() {
        scope.close();
    }

    private static Tensor vectors(int count, int features, ToDoubleBiFunction<Integer, Integer> value) {
        Tensor vectors = torch.empty(new long[] {count, features}, new TensorOptions(torch.ScalarType.Double), null);
        for (int i = 0; i < count; i++) {
            for (int j = 0; j < features; j++) {
                vectors.data_ptr_double().put((long) i * features + j, value.applyAsDouble(i, j));
            }
        }
        return vectors;
    }

    /** Two vectors for each feature, whose mean is {@code mean} and whose covariance is diagonal, with these deviations. */
    private static Tensor diagonal(double mean, double... deviations) {
        int count = 2 * deviations.length;
        double length = Math.sqrt((count - 1) / 2.0);
        return vectors(
                count,
                deviations.length,
                (i, j) -> mean + (i / 2 == j ? (i % 2 == 0 ? length : -length) * deviations[j] : 0));
    }

    private static double distance(Tensor first, Tensor second) {
        try (FeatureStatistics one = of(first);
                FeatureStatistics other = of(second)) {
            return one.frechetDistance(other);
        }
    }

    private static FeatureStatistics of(Tensor vectors) {
        FeatureStatistics statistics = new FeatureStatistics((int) vectors.size(1), Placement.FLOAT32_CPU);
        long half = vectors.size(0) / 2;
        statistics.add(vectors.narrow(0, 0, half), PICTURE);
        statistics.add(vectors.narrow(0, half, vectors.size(0) - half), PICTURE);
        assertThat(statistics.count()).isEqualTo(vectors.size(0));
        return statistics;
    }

    @Test
    void ofDiagonalGaussiansItIsThatOfTheirMeansAndDeviations() {
        double distance = distance(diagonal(1, 1, 2, 0, 0.5), diagonal(-2, 3, 2, 1, 0.25));
        assertThat(distance).isCloseTo(4 * 9 + 4 + 0 + 1 + 0.0625, within(1e-9));
    }

    @Test
    void ofTheSameVectorsItIsNothing() {
        Tensor many = torch.randn(300, 64);
        assertThat(distance(many, many)).isLessThan(1e-10);
        Tensor few = torch.randn(5, 512);
        assertThat(distance(few, few)).isLessThan(1e-10);
    }

    @Test
    void ofShiftedVectorsItIsTheSquareOfTheShift() {
        for (Tensor vectors : new Tensor[] {torch.randn(300, 64), torch.randn(5, 64)}) {
            Tensor exact = vectors.to(torch.ScalarType.Double);
            assertThat(distance(exact, exact.add(new Scalar(0.5)))).isCloseTo(64 * 0.25, within(1e-9));
        }
    }

    /**
     * By NumPy: the last term from the singular values of X₁ X₂ᵀ, X centred and divided by (count − 1)^½. SciPy's {@code
     * sqrtm} says the same to 1e-14 where there are more vectors than features, and to 2e-8 where there are fewer.
     */
    @ParameterizedTest
    @CsvSource({"40, 50, 8, 1.1627462918588076", "6, 9, 32, 29.99261276051351", "9, 6, 32, 34.14731670375623"})
    void ofFullCovariancesItIsWhatNumpySays(int count, int otherCount, int features, double expected) {
        Tensor first =
                vectors(count, features, (i, j) -> Math.sin(1.7 * i * (j + 1) + j) + 0.3 * Math.cos(i + 0.5 * j));
        Tensor second =
                vectors(otherCount, features, (i, j) -> Math.sin(0.9 * i * (j + 1) + j) - 0.8 * Math.cos(i + 0.5 * j));

        assertThat(distance(first, second)).isCloseTo(expected, Percentage.withPercentage(1e-10));
        assertThat(distance(second, first)).isCloseTo(expected, Percentage.withPercentage(1e-10));
    }

    @ParameterizedTest
    @ValueSource(doubles = {Double.NaN, Double.POSITIVE_INFINITY})
    void whatIsNotFiniteIsToldWithItsPicture(double value) {
        try (FeatureStatistics statistics = new FeatureStatistics(4, Placement.FLOAT32_CPU)) {
            Tensor vectors = vectors(3, 4, (i, j) -> i == 1 && j == 2 ? value : 0);
            assertThatThrownBy(() -> statistics.add(vectors, PICTURE))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("the network has features of fox.png that are not finite, expected numbers: its weights"
                            + " are not those it should have");
            assertThat(statistics.count()).isZero();
        }
    }

    @Test
    void aSingleVectorHasNoCovariance() {
        assertThatThrownBy(() -> distance(torch.randn(1, 4), torch.randn(5, 4)))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("a covariance of 1 vectors, expected 2 or more");
    }
}
