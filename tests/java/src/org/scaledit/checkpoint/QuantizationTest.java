package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CancellationException;
import java.util.stream.Stream;
import org.assertj.core.data.Percentage;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.file.UnfinishedFolder;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

class QuantizationTest {
    private static final String CLIP = "text_encoder/model.safetensors";

    @TempDir
    Path folder;

    private Path output() {
        return folder.resolve("int8");
    }

    @Test
    void changesNumbersByNoMoreThanHalfAScaleAndBiasesByFloat16sRounding() {
        List<Quantization.Part> parts = new ArrayList<>();
        Quantization.write(List.of(Golden.tinyFlux()), output(), parts::add);
        assertThat(parts.stream().map(Quantization.Part::name))
                .containsExactly("text_encoder", "text_encoder_2", "transformer", "vae");
        ModelDirectory before = ModelDirectory.open(Golden.tinyFlux());
        ModelDirectory after = ModelDirectory.open(output());
        for (Quantization.Part part : parts) {
            double squaredError = 0;
            double squaredNorm = 0;
            try (Safetensors source = before.weights(part.name());
                    Safetensors written = after.weights(part.name())) {
                assertThat(written.names()).containsExactlyElementsOf(source.names());
                assertThat(part.bytesBefore()).isEqualTo(source.bytes());
                assertThat(part.bytesAfter()).isEqualTo(written.bytes()).isLessThan(source.bytes());
                for (String name : source.names()) {
                    boolean matrix = source.info(name).shape().size() >= 2;
                    assertThat(written.isQuantised(name)).isEqualTo(matrix);
                    assertThat(written.info(name).dtype()).isEqualTo(matrix ? Dtype.I8 : Dtype.F16);
                    assertThat(written.info(name).shape())
                            .isEqualTo(source.info(name).shape());
                    float[] numbers = Tensors.compute(() -> Tensors.floats(source.tensor(name)));
                    float[] back = Tensors.compute(() -> Tensors.floats(written.tensor(name)));
                    int row = matrix
                            ? numbers.length / source.info(name).shape().get(0).intValue()
                            : 1;
                    for (int first = 0; first < numbers.length; first += row) {
                        float largest = 0;
                        for (int i = first; i < first + row; i++) {
                            largest = Math.max(largest, Math.abs(numbers[i]));
                        }
                        // Half of a row's scale, or half a unit in float16's last place; and float32's own rounding.
                        double most = matrix ? largest / 127 * 0.50001 : Math.max(largest * 0x1p-11, 0x1p-25);
                        for (int i = first; i < first + row; i++) {
                            double error = Math.abs((double) numbers[i] - back[i]);
                            assertThat(error).as(name).isLessThanOrEqualTo(most);
                            squaredError += error * error;
                            squaredNorm += (double) numbers[i] * numbers[i];
                        }
                    }
                }
            }
            assertThat(part.relativeError())
                    .isCloseTo(Math.sqrt(squaredError / squaredNorm), Percentage.withPercentage(0.1))
                    .isBetween(1e-3, 0.01);
            assertThat(part.beyondFloat16()).isEmpty();
        }
    }

    @Test
    void copiesEverythingElse() throws IOException {
        Quantization.write(List.of(Golden.tinyFlux()), output(), part -> {});
        for (Path file : UnfinishedFolder.files(Golden.tinyFlux())) {
            String name = Golden.tinyFlux().relativize(file).toString();
            if (name.contains(".safetensors")) {
                continue;
            }
            assertThat(output().resolve(name)).hasSameBinaryContentAs(file);
        }
        assertThat(UnfinishedFolder.files(output()).stream()
                        .map(file -> output().relativize(file).toString())
                        .filter(name -> name.contains(".safetensors")))
                .containsExactly(
                        "text_encoder/model.safetensors",
                        "text_encoder_2/model.safetensors",
                        "transformer/diffusion_pytorch_model.safetensors",
                        "vae/diffusion_pytorch_model.safetensors");
    }

    /** It is quantised with the model, keeps what its metadata say, and is read as before. */
    @Test
    void takesALoraAlong() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("model"));
        Path lora = Golden.path("golden/lora/scaledit_lora.safetensors");
        Files.copy(lora, model.resolve("lora.safetensors"));
        List<String> parts = new ArrayList<>();
        Quantization.write(List.of(model), output(), part -> parts.add(part.name()));
        assertThat(parts).hasSize(5).endsWith("lora.safetensors");
        try (Safetensors before = Safetensors.open(lora);
                Safetensors after = Safetensors.open(output().resolve("lora.safetensors"))) {
            assertThat(after.metadata()).isEqualTo(before.metadata());
            assertThat(after.names()).isEqualTo(before.names());
        }
        Lora.load(output().resolve("lora.safetensors")).close();
    }

    /** As Black Forest Labs' download has them, which would take a day to write and which nobody would load. */
    @Test
    void leavesOutWeightsThatAreNoPartsAndNoLora() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("model"));
        Files.copy(model.resolve("vae/diffusion_pytorch_model.safetensors"), model.resolve("ae.safetensors"));
        Path fp16 = model.resolve("vae/diffusion_pytorch_model.fp16.safetensors");
        Files.copy(model.resolve("ae.safetensors"), fp16);
        Path more = Files.createDirectory(model.resolve("more"));
        Files.copy(model.resolve("ae.safetensors"), more.resolve("ae.safetensors"));
        List<String> parts = new ArrayList<>();
        Quantization.write(List.of(model), output(), part -> parts.add(part.name()));
        assertThat(parts).containsExactly("text_encoder", "text_encoder_2", "transformer", "vae");
        assertThat(output().resolve("ae.safetensors")).doesNotExist();
        assertThat(output().resolve("more")).doesNotExist();
        assertThat(output().resolve("vae/diffusion_pytorch_model.fp16.safetensors"))
                .doesNotExist();
    }

    @Test
    void partsMayBeLinks() throws IOException {
        Path elsewhere = Golden.copyOfTinyFlux(folder.resolve("elsewhere"));
        Path model = Files.createDirectory(folder.resolve("model"));
        try (Stream<Path> entries = Files.list(elsewhere)) {
            for (Path entry : entries.toList()) {
                Files.createSymbolicLink(model.resolve(entry.getFileName()), entry);
            }
        }
        Quantization.write(List.of(model), output(), part -> {});
        Quantization.write(List.of(elsewhere), folder.resolve("other"), part -> {});
        List<Path> written = UnfinishedFolder.files(folder.resolve("other"));
        assertThat(UnfinishedFolder.files(output())).hasSameSizeAs(written);
        for (Path file : written) {
            assertThat(output().resolve(folder.resolve("other").relativize(file)))
                    .hasSameBinaryContentAs(file);
        }
    }

    /** Row by row the largest value stays the largest. */
    @Test
    void onceMoreChangesNothingThatCounts() {
        Quantization.write(List.of(Golden.tinyFlux()), output(), part -> {});
        Quantization.write(
                List.of(output()),
                folder.resolve("again"),
                part -> assertThat(part.relativeError()).isLessThan(1e-6));
    }

    /** The tiny model with one tensor of CLIP's changed. */
    private Path changed(String tensor, Declaration declared, Tensor value) throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("model"));
        Path file = model.resolve(CLIP);
        Tensors.run(() -> {
            Map<String, Declaration> contents = new LinkedHashMap<>();
            Map<String, Tensor> tensors = new HashMap<>();
            try (Safetensors source = Safetensors.open(Golden.tinyFlux().resolve(CLIP))) {
                source.names().forEach(name -> {
                    contents.put(
                            name,
                            Declaration.of(
                                    source.info(name).dtype(), source.info(name).dimensions()));
                    tensors.put(name, source.tensor(name));
                });
                contents.put(tensor, declared);
                tensors.put(tensor, value);
                try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, Map.of())) {
                    contents.keySet().forEach(name -> writer.write(name, Objects.requireNonNull(tensors.get(name))));
                    writer.commit();
                }
            }
        });
        return model;
    }

    @Test
    void keepsWhatFloat16CannotHoldAndWhatIsNoNumber() throws IOException {
        String norm = "text_model.final_layer_norm.weight";
        try (Tensor large = Tensors.of(new float[64], 64).fill_(new Scalar(65536))) {
            Path model = changed(norm, Declaration.of(Dtype.F32, 64), large);
            List<String> beyond = new ArrayList<>();
            Quantization.write(List.of(model), output(), part -> beyond.addAll(part.beyondFloat16()));
            assertThat(beyond).containsExactly(norm);
        }
        try (Safetensors written = Safetensors.open(output().resolve(CLIP))) {
            assertThat(written.info(norm).dtype()).isEqualTo(Dtype.F32);
            Tensors.run(
                    () -> assertThat(written.tensor(norm).max().item_float()).isEqualTo(65536));
        }
    }

    @Test
    void positionsStayIntegers() throws IOException {
        String positions = "text_model.embeddings.position_ids";
        try (Tensor numbers = Tensors.of(new long[] {0, 1, 2}, 1, 3)) {
            Quantization.write(
                    List.of(changed(positions, Declaration.of(Dtype.I64, 1, 3), numbers)), output(), part -> {});
        }
        try (Safetensors written = Safetensors.open(output().resolve(CLIP))) {
            assertThat(written.info(positions).dtype()).isEqualTo(Dtype.I64);
            Tensors.run(
                    () -> assertThat(Tensors.longs(written.tensor(positions))).containsExactly(0, 1, 2));
        }
    }

    /** Three equal ones and one whose norm is another: a quarter of the difference. */
    @Test
    void severalModelsBecomeTheirMean() throws IOException {
        String norm = "text_model.final_layer_norm.weight";
        Path tiny = Golden.tinyFlux();
        try (Tensor threes = Tensors.of(new float[32], 32).fill_(new Scalar(3))) {
            Path model = changed(norm, Declaration.of(Dtype.F32, 32), threes);
            Quantization.write(List.of(tiny, tiny, model, tiny), output(), part -> {});
        }
        Quantization.write(List.of(tiny), folder.resolve("one"), part -> {});
        for (Path file : UnfinishedFolder.files(output())) {
            String name = output().relativize(file).toString();
            if (!name.equals(CLIP)) {
                assertThat(file).hasSameBinaryContentAs(folder.resolve("one").resolve(name));
            }
        }
        try (Safetensors before = Safetensors.open(tiny.resolve(CLIP));
                Safetensors mean = Safetensors.open(output().resolve(CLIP))) {
            Tensors.run(() -> {
                float[] expected = Tensors.floats(Tensors.toFloat32(before.tensor(norm))
                        .mul(new Scalar(0.75))
                        .add(new Scalar(0.75)));
                assertThat(Tensors.floats(mean.tensor(norm))).containsExactly(expected, within(1e-3f));
            });
        }
    }

    @Test
    void modelsOfOtherShapesHaveNoMean() throws IOException {
        String norm = "text_model.final_layer_norm.weight";
        Path tiny = Golden.tinyFlux();
        try (Tensor shorter = Tensors.of(new float[16], 16)) {
            Path model = changed(norm, Declaration.of(Dtype.F32, 16), shorter);
            assertNoMean(
                    model,
                    "tensor " + norm + " in " + model.resolve(CLIP) + " has shape [16], expected [32] as in "
                            + tiny.resolve(CLIP));
        }
        leavesNothing();
    }

    @Test
    void modelsOfOtherTensorsHaveNoMean() throws IOException {
        Path tiny = Golden.tinyFlux();
        try (Tensor more = Tensors.of(new float[2], 2)) {
            Path model = changed("more", Declaration.of(Dtype.F32, 2), more);
            assertNoMean(
                    model,
                    "tensor more is missing in " + tiny.resolve("text_encoder") + ", expected as in "
                            + model.resolve(CLIP));
            assertThatThrownBy(() -> Quantization.write(List.of(model, tiny), output(), part -> {}))
                    .hasMessage("tensor more is missing in " + tiny.resolve("text_encoder") + ", expected as in "
                            + model.resolve(CLIP));
        }
        leavesNothing();
    }

    @Test
    void modelsOfOtherWordsHaveNoMean() throws IOException {
        Path model = Golden.copyOfTinyFlux(folder.resolve("model"));
        Path vocabulary = model.resolve("tokenizer/vocab.json");
        Files.writeString(vocabulary, " ", StandardOpenOption.APPEND);
        assertNoMean(
                model,
                vocabulary + " is not the same as " + Golden.tinyFlux().resolve("tokenizer/vocab.json")
                        + ", expected models with the same tokenizers");
        leavesNothing();
    }

    private void assertNoMean(Path other, String message) {
        assertThatThrownBy(() -> Quantization.write(List.of(Golden.tinyFlux(), other), output(), part -> {}))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(message);
    }

    private void leavesNothing() throws IOException {
        try (Stream<Path> entries = Files.list(folder)) {
            assertThat(entries.map(entry -> entry.getFileName().toString()).filter(name -> !name.equals("model")))
                    .isEmpty();
        }
    }

    @Test
    void namesANumberThatIsNotFinite() throws IOException {
        String bias = "text_model.final_layer_norm.bias";
        try (Tensor broken = Tensors.of(new float[32], 32).fill_(new Scalar(Double.NaN))) {
            Path model = changed(bias, Declaration.of(Dtype.F32, 32), broken);
            assertThatThrownBy(() -> Quantization.write(List.of(model), output(), part -> {}))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage("tensor " + bias + " in " + model.resolve(CLIP)
                            + " has a number that is not finite, and cannot be quantised");
            assertNoMean(
                    model,
                    "tensor " + bias + " in " + model.resolve(CLIP)
                            + " has a number that is not finite, and cannot be quantised");
        }
        leavesNothing();
    }

    @Test
    void anInterruptLeavesNothing() throws IOException {
        assertThatThrownBy(() -> Quantization.write(
                        List.of(Golden.tinyFlux()),
                        output(),
                        part -> Thread.currentThread().interrupt()))
                .isInstanceOf(CancellationException.class);
        assertThat(Thread.interrupted()).isFalse();
        leavesNothing();
    }

    @Test
    void replacesNothing() throws IOException {
        Files.createDirectory(output());
        assertThatThrownBy(() -> Quantization.write(List.of(Golden.tinyFlux()), output(), part -> {}))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("cannot write " + output() + ": it exists already");
        assertThat(output()).isEmptyDirectory();
    }
}
