package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Locale;
import java.util.Map;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.FluxDev;

class SafetensorsTest {
    @TempDir
    Path folder;

    private Path file;

    @BeforeEach
    void nameTheFile() {
        file = folder.resolve("model.safetensors");
    }

    /** A file with this header; single quotes stand for double ones. */
    private Path write(String header, byte... data) throws IOException {
        byte[] json = header.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
        return write(json.length, json, data);
    }

    private Path write(long length, byte[] header, byte... data) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        bytes.write(ByteBuffer.allocate(8)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(length)
                .array());
        bytes.write(header);
        bytes.write(data);
        return Files.write(file, bytes.toByteArray());
    }

    private void refuses(String... reasons) {
        var refusal = assertThatThrownBy(() -> Safetensors.open(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(file.toString());
        for (String reason : reasons) {
            refusal.hasMessageContaining(reason);
        }
    }

    @Test
    void readsNamesShapesAndMetadata() throws IOException {
        write(
                "{'__metadata__': {'format': 'pt'}, 'b': {'dtype': 'I16', 'shape': [2, 1], 'data_offsets': [4, 8]},"
                        + " 'a': {'dtype': 'F32', 'shape': [], 'data_offsets': [0, 4]},"
                        + " 'none': {'dtype': 'F64', 'shape': [3, 0], 'data_offsets': [8, 8]}}  ",
                ByteBuffer.allocate(8)
                        .order(ByteOrder.LITTLE_ENDIAN)
                        .putFloat(1.5f)
                        .putShort((short) -2)
                        .putShort((short) 300)
                        .array());
        try (Safetensors source = Safetensors.open(file)) {
            assertThat(source.names()).containsExactly("b", "a", "none");
            assertThat(source.metadata()).isEqualTo(Map.of("format", "pt"));
            assertThat(source.info("b").dtype()).isEqualTo(Dtype.I16);
            assertThat(source.info("b").shape()).containsExactly(2L, 1L);
            assertThat(source.info("b").file()).isEqualTo(file);
            Tensors.run(() -> {
                assertThat(source.tensor("a").item_float()).isEqualTo(1.5f);
                assertThat(source.tensor("b").shape()).containsExactly(2, 1);
                assertThat(Tensors.longs(source.tensor("b"))).containsExactly(-2, 300);
                assertThat(source.tensor("none").shape()).containsExactly(3, 0);
            });
            assertThatThrownBy(() -> source.tensor("c"))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage("tensor c is missing in " + file);
        }
    }

    @ParameterizedTest
    @CsvSource({
        "F64, 8, 0000000000000440, 2.5",
        "F32, 4, 00002040, 2.5",
        "F16, 2, 0041, 2.5",
        "BF16, 2, 2040, 2.5",
        "I64, 8, feffffffffffffff, -2",
        "I32, 4, feffffff, -2",
        "I16, 2, feff, -2",
        "I8, 1, fe, -2",
        "U8, 1, fe, 254",
        "BOOL, 1, 01, 1",
        "F8_E4M3, 1, 42, 2.5",
        "F8_E5M2, 1, 41, 2.5",
    })
    void readsEveryDtypeWhereverItLies(String dtype, int bytes, String hex, double value) throws IOException {
        byte[] number = HexFormat.of().parseHex(hex);
        for (int before = 0; before < 9; before++) {
            byte[] data = new byte[before + bytes];
            System.arraycopy(number, 0, data, before, bytes);
            write(
                    String.format(
                            Locale.ROOT,
                            "{'pad': {'dtype': 'U8', 'shape': [%d], 'data_offsets': [0, %d]}, 'x': {'dtype': '%s', 'shape': [1], 'data_offsets': [%d, %d]}}",
                            before,
                            before,
                            dtype,
                            before,
                            before + bytes),
                    data);
            try (Safetensors source = Safetensors.open(file)) {
                Tensors.run(() -> assertThat(
                                source.tensor("x").to(torch.ScalarType.Double).item_double())
                        .isEqualTo(value));
            }
        }
    }

    @Test
    void sharesTheMapAndOutlivesIt() throws IOException {
        write("{'x': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}   ", new byte[8]);
        Safetensors source = Safetensors.open(file);
        assertThat(source.mappedFiles()).isZero();
        Tensor first = source.tensor("x");
        Tensor second = source.tensor("x");
        assertThat(source.mappedFiles()).isOne();
        assertThat(first.data_ptr().address()).isEqualTo(second.data_ptr().address());
        source.close();
        first.fill_(new Scalar(3.0));
        assertThat(Tensors.floats(second)).containsExactly(3, 3);
        assertThat(Files.readAllBytes(file)).endsWith(new byte[8]); // writing to a tensor never reaches the file
        assertThatThrownBy(() -> source.tensor("x"))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("closed");
        first.close();
        second.close();
    }

    @Test
    void readsATensorOfMoreThanTwoGibibytes() throws IOException {
        long length = (1L << 31) + 5;
        FluxDev.writeFile(file, Map.of("x", new long[] {length}));
        try (RandomAccessFile end = new RandomAccessFile(file.toFile(), "rw")) {
            end.seek(end.length() - 2);
            end.write(new byte[] {0x20, 0x40}); // 2.5
        }
        try (Safetensors source = Safetensors.open(file)) {
            Tensors.run(() -> {
                Tensor x = source.tensor("x");
                assertThat(x.numel()).isEqualTo(length);
                assertThat(x.narrow(0, length - 1, 1).item_float()).isEqualTo(2.5f);
            });
        }
    }

    @Test
    void namesAFileThatIsNone() throws IOException {
        refuses("does not exist");
        Files.createDirectory(file);
        refuses("is a directory");
        Files.delete(file);
        Files.createSymbolicLink(file, file);
        refuses("cannot read " + file + ": Too many levels of symbolic links");
        Files.delete(file);
        Files.write(file, new byte[0]);
        refuses("has 0 bytes");
        Files.write(file, new byte[7]);
        refuses("has 7 bytes");
    }

    @Test
    void refusesAHeaderLongerThanTheFile() throws IOException {
        write(3, "{}".getBytes(StandardCharsets.UTF_8));
        refuses("says that its header has 3 bytes, but the file has only 10");
        write(-1, "{}".getBytes(StandardCharsets.UTF_8));
        refuses("header has 18446744073709551615 bytes");
        write(Long.MAX_VALUE, "{}".getBytes(StandardCharsets.UTF_8));
        refuses("header has 9223372036854775807 bytes");
    }

    @Test
    void refusesAHeaderOfMoreThan100Megabytes() throws IOException {
        write(100_000_001, "{}".getBytes(StandardCharsets.UTF_8));
        try (RandomAccessFile sparse = new RandomAccessFile(file.toFile(), "rw")) {
            sparse.setLength(200_000_000);
        }
        refuses("header of 100000001 bytes, at most 100000000");
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                "[]",
                "null",
                "{",
                "{'x'",
                "{'x': ",
                "{} {}",
                "{}x",
                "{'x': nothing}",
                "\u0000\u0000",
                "{'x' 3}"
            })
    void refusesAHeaderThatIsNoJsonObject(String header) throws IOException {
        write(header);
        refuses();
    }

    @Test
    void refusesAHeaderThatIsNotUnicode() throws IOException {
        write(6, new byte[] {'{', '"', (byte) 0xc3, '"', ':', '}'});
        refuses("not valid JSON");
    }

    /** Each would exhaust memory or the stack of a reader that builds what it is told. */
    @Test
    void survivesJsonBombs() throws IOException {
        String deep = "[".repeat(5_000_000);
        write(deep);
        refuses("not a JSON object");
        write("{'x': " + "{'a': ".repeat(1_000_000));
        refuses("tensor x in");
        write("{'x': {'dtype': 'U8', 'data_offsets': [0, 0], 'shape': " + deep);
        refuses("tensor x in", "not an integer");
        write("{'x': {'dtype': 'U8', 'data_offsets': [0, 0], 'shape': [" + "1, ".repeat(1_000_000) + "1]}}");
        refuses("tensor x in", "more than 64 entries");
        write("{'x': {'dtype': 'U8', 'data_offsets': [0, 0], 'shape': [" + "9".repeat(1_000_000) + "]}}");
        refuses("not valid JSON");
        write("{'" + "n".repeat(1_000_000) + "': 3}");
        refuses("not valid JSON");
        write("{'__metadata__': " + deep);
        refuses("__metadata__ is not a JSON object");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{'dtype': 'F32', 'shape': [2]}                                           | has no data_offsets",
                "{'dtype': 'F32', 'data_offsets': [0, 8]}                                 | has no shape",
                "{'shape': [2], 'data_offsets': [0, 8]}                                   | has no dtype",
                "{'dtype': 'F33', 'shape': [2], 'data_offsets': [0, 8]}                   | has the unknown dtype F33,"
                        + " expected one of F64, F32,",
                "{'dtype': 'f32', 'shape': [2], 'data_offsets': [0, 8]}                   | has the unknown dtype f32",
                "{'dtype': 32, 'shape': [2], 'data_offsets': [0, 8]}                      | dtype that is not a string",
                "{'dtype': 'F32', 'dtype': 'F16', 'shape': [2], 'data_offsets': [0, 8]}   | has two dtypes",
                "{'dtype': 'F32', 'shape': [2], 'shape': [2], 'data_offsets': [0, 8]}     | has two shapes",
                "{'dtype': 'F32', 'shape': 2, 'data_offsets': [0, 8]}                     | shape that is not a list",
                "{'dtype': 'F32', 'shape': ['2'], 'data_offsets': [0, 8]}                 | not an integer",
                "{'dtype': 'F32', 'shape': [2.0], 'data_offsets': [0, 8]}                 | not an integer",
                "{'dtype': 'F32', 'shape': [-2], 'data_offsets': [0, 8]}                  | negative entry -2 in its"
                        + " shape",
                "{'dtype': 'F32', 'shape': [2], 'data_offsets': [-8, 0]}                  | negative entry -8 in its"
                        + " data_offsets",
                "{'dtype': 'F32', 'shape': [2], 'data_offsets': [0]}                      | data_offsets [0], expected"
                        + " two",
                "{'dtype': 'F32', 'shape': [2], 'data_offsets': [8, 0]}                   | ends before it begins",
                "{'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 8]}                   | has 8 bytes, expected 12"
                        + " for F32 [3]",
                "{'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 8]}                   | has 8 bytes, expected 0",
                "{'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 12]}                  | but the file has only",
                "{'dtype': 'U8', 'shape': [9223372036854775807], 'data_offsets': [0, 9223372036854775807]} | ends at"
                        + " byte 92233720368547",
                "{'dtype': 'F32', 'shape': [4611686018427387906], 'data_offsets': [0, 8]} | impossible shape",
                "{'dtype': 'F32', 'shape': [4294967296, 4294967296], 'data_offsets': [0, 8]} | impossible shape",
                "{'dtype': 'U8', 'shape': [1], 'data_offsets': [7, 8]}                    | begins 7 bytes after the"
                        + " end of the header",
                "{'dtype': 'U8', 'shape': [1], 'data_offsets': [0, 1], 'more': 1}         | unknown field more",
                "[]                                                                       | not described by a JSON"
                        + " object",
            })
    void namesATensorThatIsDescribedWrongly(String description, String reason) throws IOException {
        write("{'layers.3.weight': " + description + "}", new byte[8]);
        refuses("tensor layers.3.weight in " + file, reason);
    }

    @Test
    void refusesNumbersBeyond64Bits() throws IOException {
        write("{'x': {'dtype': 'U8', 'shape': [9223372036854775808], 'data_offsets': [0, 8]}}", new byte[8]);
        refuses("not valid JSON");
    }

    @Test
    void refusesOverlapsAndHoles() throws IOException {
        String two = "{'a': {'dtype': 'U8', 'shape': [4], 'data_offsets': [0, 4]}, 'b': {'dtype': 'U8', 'shape': [4],"
                + " 'data_offsets': [%d, %d]}}";
        write(two.formatted(4, 8), new byte[8]);
        Safetensors.open(file).close();
        write(two.formatted(3, 7), new byte[7]);
        refuses("tensor b in", "overlaps tensor a");
        write(two.formatted(0, 4), new byte[4]);
        refuses("overlaps tensor");
        write(two.formatted(5, 9), new byte[9]);
        refuses("tensor b in", "begins 1 bytes after the end of tensor a, expected no gap");
        write(two.formatted(4, 8), new byte[9]);
        refuses("has 1 bytes after the end of tensor b");
        write(two.formatted(4, 8), new byte[7]);
        refuses("tensor b in", "truncated");
        write(
                "{'a': {'dtype': 'U8', 'shape': [4], 'data_offsets': [0, 4]}, 'a': {'dtype': 'U8', 'shape': [4],"
                        + " 'data_offsets': [4, 8]}}",
                new byte[8]);
        refuses("has tensor a twice");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{'__metadata__': 3}                              | __metadata__ is not a JSON object",
                "{'__metadata__': {'a': 3}}                       | entry a is not a string",
                "{'__metadata__': {'a': 'x', 'a': 'y'}}           | has a twice",
                "{'__metadata__': {'a': 'x'}, '__metadata__': {}} | __metadata__ twice",
            })
    void refusesMetadata(String header, String reason) throws IOException {
        write(header);
        refuses(reason);
    }

    @Test
    void readsShards() throws IOException {
        writeShards("{'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors'}}");
        try (Safetensors source = Safetensors.openModel(folder, "model")) {
            assertThat(source.names()).containsExactlyInAnyOrder("a", "b");
            assertThat(source.info("b").file()).isEqualTo(folder.resolve("two.safetensors"));
            assertThat(source.path()).isEqualTo(folder.resolve("model.safetensors.index.json"));
        }
    }

    @Test
    void namesWhatShardsAndIndexDisagreeOn() throws IOException {
        refusesModel("has neither model.safetensors nor model.safetensors.index.json");
        writeShards("{'weight_map': {'a': 'one.safetensors', 'b': 'three.safetensors'}}");
        refusesModel("shard " + folder.resolve("three.safetensors") + " is missing");
        writeShards("{'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors', 'c': 'two.safetensors'}}");
        refusesModel("tensor c is not in " + folder.resolve("two.safetensors"));
        writeShards("{'weight_map': {'a': 'one.safetensors', 'b': 'one.safetensors'}}");
        refusesModel("tensor b is not in " + folder.resolve("one.safetensors"));
        FluxDev.writeFile(folder.resolve("two.safetensors"), Map.of("b", new long[] {1}, "c", new long[] {1}));
        writeIndex("{'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors'}}");
        refusesModel("tensor c is in " + folder.resolve("two.safetensors")
                + ", but model.safetensors.index.json does not say so");
        writeIndex("{'weight_map': {'a': '../one.safetensors'}}");
        refusesModel("gives ../one.safetensors as the shard of a");
        writeIndex("{'weight_map': {'a': 3}}");
        refusesModel("gives 3 as the shard of a");
        writeIndex("{'weights': {}}");
        refusesModel("has no object weight_map");
        writeIndex("{'weight_map': {'a': 'one.safetensors', 'a': 'two.safetensors'}}");
        refusesModel("not valid JSON: Duplicate");
        writeIndex("[".repeat(100_000));
        refusesModel("not valid JSON");
    }

    @Test
    void namesATruncatedShard() throws IOException {
        writeShards("{'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors'}}");
        Path shard = folder.resolve("two.safetensors");
        byte[] whole = Files.readAllBytes(shard);
        for (int length = 0; length < whole.length; length++) {
            Files.write(shard, Arrays.copyOf(whole, length));
            refusesModel(shard.toString());
        }
    }

    private void writeShards(String index) throws IOException {
        FluxDev.writeFile(folder.resolve("one.safetensors"), Map.of("a", new long[] {2, 3}));
        FluxDev.writeFile(folder.resolve("two.safetensors"), Map.of("b", new long[] {4}));
        writeIndex(index);
    }

    private void writeIndex(String index) throws IOException {
        Files.writeString(folder.resolve("model.safetensors.index.json"), index.replace('\'', '"'));
    }

    private void refusesModel(String reason) {
        assertThatThrownBy(() -> Safetensors.openModel(folder, "model"))
                .isInstanceOf(CheckpointException.class)
                .hasMessageContaining(reason);
    }
}
