package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.file.UnfinishedFile;
import org.scaledit.tensor.Tensors;

class SafetensorsWriterTest {
    @TempDir
    Path folder;

    private static Map<String, Declaration> contents(Dtype dtype) {
        Map<String, Declaration> contents = new LinkedHashMap<>();
        contents.put("scalar", Declaration.of(dtype));
        contents.put("empty", Declaration.of(dtype, 0, 5));
        contents.put("matrix", Declaration.of(dtype, 2, 3));
        return contents;
    }

    @ParameterizedTest
    @EnumSource(Dtype.class)
    void whatIsWrittenIsRead(Dtype dtype) {
        Path file = folder.resolve("written.safetensors");
        Tensor matrix = Tensors.of(new float[] {0, 1, 2, 3, 4, 5}, 3, 2).t(); // not contiguous
        try (SafetensorsWriter writer =
                SafetensorsWriter.create(file, contents(dtype), Map.of("prompt", "a \"fox\"\n\u732b"))) {
            writer.write("scalar", torch.tensor(1.0f).squeeze());
            writer.write("empty", torch.empty(0, 5));
            writer.write("matrix", matrix);
            writer.commit();
        }
        try (Safetensors source = Safetensors.open(file)) {
            assertThat(source.metadata()).containsExactly(Map.entry("prompt", "a \"fox\"\n\u732b"));
            assertThat(source.info("empty").shape()).containsExactly(0L, 5L);
            assertThat(source.info("scalar").offset() % 8).isZero();
            Tensors.run(() -> {
                assertThat(source.tensor("scalar").to(torch.ScalarType.Float).item_float())
                        .isOne();
                assertThat(source.tensor("matrix").scalar_type().intern()).isEqualTo(dtype.scalarType());
                float[] expected =
                        dtype == Dtype.BOOL ? new float[] {0, 1, 1, 1, 1, 1} : new float[] {0, 2, 4, 1, 3, 5};
                assertThat(Tensors.floats(source.tensor("matrix"))).containsExactly(expected);
            });
        }
    }

    @Test
    void leavesNothingUnlessItIsCommitted() throws IOException {
        Path file = Files.writeString(folder.resolve("kept.safetensors"), "older");
        try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents(Dtype.F32), Map.of())) {
            writer.write("scalar", torch.ones().squeeze());
            assertThatThrownBy(writer::commit)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("still lacks [empty, matrix]");
        }
        assertThat(Files.readString(file)).isEqualTo("older");
        assertThat(folder).isDirectoryContaining(file::equals);
        assertThat(Files.list(folder)).containsExactly(file);
    }

    @Test
    void refusesWhatWasNotDeclared() {
        Path file = folder.resolve("x.safetensors");
        try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents(Dtype.F32), Map.of())) {
            assertThatThrownBy(() -> writer.write("matrix", torch.ones(2, 3)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("tensor matrix does not come next in " + file)
                    .hasMessageContaining("[scalar, empty, matrix]");
            assertThatThrownBy(() -> writer.write("scalar", torch.ones(2)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("tensor scalar for " + file + " has shape [2], expected []");
        }
        assertThat(folder).isEmptyDirectory();
    }

    @Test
    void leavesNothingWhereContentsAreImpossible() {
        Declaration large = Declaration.of(Dtype.F32, 1L << 60);
        for (Map<String, Declaration> contents :
                List.of(Map.of("x", Declaration.of(Dtype.F32, 1L << 62)), Map.of("x", large, "y", large))) {
            assertThatThrownBy(() -> SafetensorsWriter.create(folder.resolve("x.safetensors"), contents, Map.of()))
                    .isInstanceOf(ArithmeticException.class);
            assertThat(folder).isEmptyDirectory();
        }
    }

    @Test
    void namesAFullDisk() throws IOException {
        Path file = folder.resolve("x.safetensors");
        Path full = Files.createSymbolicLink(folder.resolve("full"), Path.of("/dev/full"));
        byte[] header = SafetensorsWriter.header(contents(Dtype.F32), Map.of());
        assertThatThrownBy(
                        () -> new SafetensorsWriter(file, new UnfinishedFile(file, full), contents(Dtype.F32), header)
                                .close())
                .isInstanceOf(CheckpointException.class)
                .hasMessage("cannot write " + file + ": No space left on device");
        assertThat(folder).isEmptyDirectory();
    }

    @Test
    void namesAFolderThatIsMissing() {
        Path file = folder.resolve("none/x.safetensors");
        assertThatThrownBy(() -> SafetensorsWriter.create(file, contents(Dtype.F32), Map.of()))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("cannot write " + file + ": its folder does not exist");
    }

    @Test
    void namesAFolderInThePlaceOfTheFile() throws IOException {
        Path file = folder.resolve("taken");
        Files.createDirectories(file.resolve("inside"));
        assertThatThrownBy(() -> SafetensorsWriter.create(file, Map.of(), Map.of()))
                .isInstanceOf(CheckpointException.class)
                .hasMessage("cannot write " + file + ": it is a folder");
        assertThat(Files.list(folder)).containsExactly(file);
    }

    /** Nor does it become a failure of the disk: whoever asked for the file decides what an interrupt means. */
    @Test
    void anInterruptDoesNotDisturbIt() {
        Path file = folder.resolve("whole.safetensors");
        Map<String, Declaration> contents = Map.of("x", Declaration.of(Dtype.F32, 300_000)); // more than a piece
        Tensors.run(() -> {
            Tensor x = torch.randn(300_000);
            Thread.currentThread().interrupt();
            try (SafetensorsWriter writer = SafetensorsWriter.create(file, contents, Map.of())) {
                writer.write("x", x);
                writer.commit();
            } finally {
                assertThat(Thread.interrupted()).isTrue();
            }
            try (Safetensors source = Safetensors.open(file)) {
                assertThat(source.tensor("x").equal(x)).isTrue();
            }
        });
    }
}
