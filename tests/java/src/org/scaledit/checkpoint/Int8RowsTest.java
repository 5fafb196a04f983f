package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

class Int8RowsTest {
    @TempDir
    Path folder;

    @ParameterizedTest
    @CsvSource({"48 64", "6 5 3 3", "1 7", "5 1"})
    void movesNoNumberByMoreThanHalfItsRowsScale(String shape) {
        long[] sizes =
                Arrays.stream(shape.split(" ")).mapToLong(Long::parseLong).toArray();
        Tensors.run(() -> {
            Tensor weight = torch.randn(sizes);
            weight.select(0, 0).fill_(new Scalar(0)); // a row of zeros stays one
            Int8Rows quantised = Int8Rows.of(weight);
            assertThat(quantised.values().scalar_type().intern()).isEqualTo(torch.ScalarType.Char);
            assertThat(quantised.values().shape()).containsExactly(sizes);
            assertThat(quantised.scales().shape()).containsExactly(sizes[0], 1);
            float[] scales = Tensors.floats(quantised.scales());
            float[] numbers = Tensors.floats(weight);
            float[] back = Tensors.floats(quantised.plain());
            int columns = numbers.length / scales.length;
            for (int i = 0; i < numbers.length; i++) {
                float scale = scales[i / columns];
                assertThat(back[i]).isBetween(numbers[i] - scale * 0.5001f, numbers[i] + scale * 0.5001f);
            }
            assertThat(back[0]).isZero();
        });
    }

    @Test
    void usesTheWholeRangeOfEachRow() {
        Tensors.run(() -> {
            Int8Rows quantised = Int8Rows.of(Tensors.of(new float[] {1, -2.54f, 0.02f, 100, 50.2f, -3e-39f}, 2, 3));
            assertThat(Tensors.longs(quantised.values())).containsExactly(50, -127, 1, 127, 64, 0);
            assertThat(Tensors.floats(quantised.scales())).containsExactly(2.54f / 127, 100 / 127f);
        });
    }

    private Path file(Map<String, Declaration> contents, Map<String, float[]> values) {
        Path file = folder.resolve("model.safetensors");
        Tensors.run(() -> {
            try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, Map.of())) {
                contents.forEach((name, declared) -> writer.write(
                        name,
                        Tensors.of(
                                Objects.requireNonNull(values.get(name)),
                                declared.shape().stream()
                                        .mapToLong(Long::longValue)
                                        .toArray())));
                writer.commit();
            }
        });
        return file;
    }

    private Path quantised(Dtype format, float scale, long... scaleShape) {
        Map<String, Declaration> contents = new LinkedHashMap<>();
        contents.put("a.weight", Declaration.of(Dtype.I8, 2, 1, 1, 2));
        contents.put("a.weight_scale", Declaration.of(format, scaleShape));
        contents.put("a.bias", Declaration.of(Dtype.F16, 2));
        int scales = (int) Arrays.stream(scaleShape).reduce(1, Math::multiplyExact);
        float[] all = new float[scales];
        Arrays.fill(all, 0.5f);
        all[scales - 1] = scale;
        return file(
                contents,
                Map.of("a.weight", new float[] {-127, 3, 2, 1}, "a.weight_scale", all, "a.bias", new float[] {7, 8}));
    }

    @Test
    void areNumbersToWhoeverReadsThem() {
        Path file = quantised(Dtype.F32, 4, 2, 1);
        try (Safetensors source = Safetensors.open(file)) {
            assertThat(source.names()).containsExactly("a.weight", "a.bias");
            assertThat(source.isQuantised("a.weight")).isTrue();
            assertThat(source.isQuantised("a.bias")).isFalse();
            Weights.check(source, Map.of("a.weight", new long[] {2, 1, 1, 2}, "a.bias", new long[] {2}));
            Tensors.run(
                    () -> assertThat(Tensors.floats(source.tensor("a.weight"))).containsExactly(-63.5f, 1.5f, 8, 4));
            assertThatThrownBy(() -> Weights.check(source, Map.of("a.weight", new long[] {2, 2})))
                    .hasMessageEndingWith("tensor a.weight in " + file + " has shape [2, 1, 1, 2], expected [2, 2]");
        }
        try (Weights weights = Weights.of(Safetensors.open(file), Placement.BFLOAT16_CPU)) {
            Tensor weight = weights.load("a.weight", 2, 1, 1, 2);
            assertThat(weight.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
            assertThat(Tensors.floats(weight)).containsExactly(-63.5f, 1.5f, 8, 4);
            assertThat(weights.loadedBytes()).isEqualTo(8);
            Tensor lower = weights.loadStacked(List.of("a.weight"), 1, 2, 2, 1, 1, 2);
            assertThat(Tensors.floats(lower)).containsExactly(8, 4);
        }
    }

    /** To FP8 they go from float32, as others do. */
    @Test
    void areQuantisedAnewForFp8() {
        Path file = file(
                Map.of("w", Declaration.of(Dtype.I8, 2, 2), "w_scale", Declaration.of(Dtype.F32, 2, 1)),
                Map.of("w", new float[] {100, 1, 2, 3}, "w_scale", new float[] {0.1f, 2}));
        try (Weights weights = Weights.of(Safetensors.open(file), Placement.BFLOAT16_CPU)) {
            Tensors.run(() -> {
                Matrix expected = Matrix.quantised(Tensors.of(new float[] {100 * 0.1f, 0.1f, 4, 6}, 2, 2));
                Matrix loaded = weights.loadQuantised(List.of("w"), 0, 1, 2, 2);
                assertThat(loaded.plain(torch.ScalarType.Float).equal(expected.plain(torch.ScalarType.Float)))
                        .isTrue();
            });
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "F16 | 2 1 | is F16 [2, 1], expected F32 [2, 1], a scale for each row of a.weight",
                "F32 | 2   | is F32 [2], expected F32 [2, 1], a scale for each row of a.weight",
                "F32 | 3 1 | is F32 [3, 1], expected F32 [2, 1], a scale for each row of a.weight",
            })
    void namesScalesOfAnotherKind(Dtype format, String shape, String sentence) {
        Path file = quantised(
                format,
                1,
                Arrays.stream(shape.split(" ")).mapToLong(Long::parseLong).toArray());
        assertThatThrownBy(() -> Safetensors.open(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("tensor a.weight_scale in " + file + " " + sentence);
    }

    @ParameterizedTest
    @CsvSource({"NaN", "Infinity", "-1"})
    void namesAScaleThatIsNone(float scale) {
        Path file = quantised(Dtype.F32, scale, 2, 1);
        try (Safetensors source = Safetensors.open(file);
                Weights weights = Weights.of(source, Placement.FLOAT32_CPU)) {
            assertThatThrownBy(() -> weights.load("a.weight", 2, 1, 1, 2))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage("tensor a.weight_scale in " + file + " has a scale that is negative or not finite");
            assertThat(weights.loadedBytes()).isZero();
        }
    }

    @Test
    void namesValuesWithoutScalesAndScalesWithoutValues() {
        Path file = file(
                Map.of("w", Declaration.of(Dtype.I8, 2, 2), "x_scale", Declaration.of(Dtype.F32, 2, 1)),
                Map.of("w", new float[4], "x_scale", new float[2]));
        try (Safetensors source = Safetensors.open(file)) {
            assertThatThrownBy(() -> Weights.check(source, Map.of("w", new long[] {2, 2})))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage("tensor w in " + file + " is in INT8 without scales, expected w_scale beside it");
            assertThatThrownBy(() -> Weights.check(source, Map.of()))
                    .hasMessageStartingWith("tensor ")
                    .hasMessageContaining("belongs to nothing in this model, nor do 1 others");
        }
    }

    @Test
    void aModelOfShardsMayHaveValuesAndScalesApart() throws IOException {
        Path values = file(Map.of("w", Declaration.of(Dtype.I8, 1, 2)), Map.of("w", new float[] {3, -4}));
        Files.move(values, folder.resolve("m-1.safetensors"));
        Path scales = file(Map.of("w_scale", Declaration.of(Dtype.F32, 1, 1)), Map.of("w_scale", new float[] {2}));
        Files.move(scales, folder.resolve("m-2.safetensors"));
        Files.writeString(
                folder.resolve("m.safetensors.index.json"),
                "{\"weight_map\": {\"w\": \"m-1.safetensors\", \"w_scale\": \"m-2.safetensors\"}}");
        try (Safetensors source = Safetensors.openModel(folder, "m")) {
            assertThat(source.names()).containsExactly("w");
            Tensors.run(() -> assertThat(Tensors.floats(source.tensor("w"))).containsExactly(6, -8));
        }
    }
}
