package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.attention.CudaAttention;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Gpu;

/** Weights on their way to a GPU, against the same ones through the file's map. */
@Tag("gpu")
class UploadGpuTest {
    /** Beyond two buffers of 64 MiB each, at one's very end, of odd sizes, and small ones one after the other. */
    private static final Map<String, Declaration> CONTENTS = new LinkedHashMap<>();

    static {
        CONTENTS.put("byte", Declaration.of(Dtype.U8, 1)); // whatever comes after it begins at an odd place
        CONTENTS.put("float32", Declaration.of(Dtype.F32, 6001, 7003)); // 160 MiB
        CONTENTS.put("bfloat16", Declaration.of(Dtype.BF16, 8192, 4096)); // 64 MiB
        CONTENTS.put("float16", Declaration.of(Dtype.F16, 8193, 4097));
        CONTENTS.put("fp8", Declaration.of(Dtype.F8_E4M3, 3001, 33));
        for (int i = 0; i < 40; i++) {
            CONTENTS.put("small." + i, Declaration.of(Dtype.BF16, 1 + i));
        }
    }

    @TempDir
    static Path folder;

    private static Path file;

    @BeforeAll
    static void write() {
        CudaAttention.requireGpu();
        torch.manual_seed(11);
        file = folder.resolve("weights.safetensors");
        try (SafetensorsWriter writer = SafetensorsWriter.create(file, CONTENTS, Map.of())) {
            CONTENTS.forEach((name, declaration) -> Tensors.run(() -> writer.write(
                    name,
                    torch.randn(declaration.shape().stream()
                                    .mapToLong(Long::longValue)
                                    .toArray())
                            .to(declaration.dtype().scalarType()))));
            writer.commit();
        }
    }

    /** Bit for bit. */
    private static void assertSame(Tensor onGpu, Tensor expected) {
        Tensors.run(() -> {
            assertThat(onGpu.is_cuda()).isTrue();
            assertThat(onGpu.scalar_type().intern())
                    .isEqualTo(expected.scalar_type().intern());
            assertThat(onGpu.shape()).isEqualTo(expected.shape());
            Tensor bits = onGpu.cpu().flatten().view(torch.ScalarType.Byte);
            assertThat(bits.equal(expected.contiguous().flatten().view(torch.ScalarType.Byte)))
                    .isTrue();
        });
    }

    @Test
    void aTensorArrivesAsItIsStored() {
        try (Safetensors source = Safetensors.open(file)) {
            for (String name : CONTENTS.keySet()) {
                Tensors.run(() -> {
                    Tensor stored = source.tensor(name);
                    assertSame(source.uploadedRows(name, 0, stored.size(0)), stored);
                    long first = stored.size(0) / 3;
                    assertSame(source.uploadedRows(name, first, 1), stored.narrow(0, first, 1));
                });
            }
        }
    }

    @Test
    void rowsInInt8ArriveAsNumbers() {
        Path int8 = folder.resolve("int8.safetensors");
        Map<String, Declaration> contents = new LinkedHashMap<>();
        contents.put("w", Declaration.of(Dtype.I8, 301, 3, 11));
        contents.put("w_scale", Declaration.of(Dtype.F32, 301, 1));
        Tensors.run(() -> {
            Int8Rows quantised = Int8Rows.of(torch.randn(301, 3, 11));
            try (SafetensorsWriter writer = SafetensorsWriter.create(int8, contents, Map.of())) {
                writer.write("w", quantised.values());
                writer.write("w_scale", quantised.scales());
                writer.commit();
            }
            try (Safetensors source = Safetensors.open(int8)) {
                assertSame(source.uploadedRows("w", 0, 301), quantised.plain());
                assertSame(source.uploadedRows("w", 100, 7), quantised.plain().narrow(0, 100, 7));
                assertThat(source.mappedFiles()).isZero();
            }
            Placement gpu = new Placement(torch.ScalarType.BFloat16, true);
            try (Weights weights = Weights.of(Safetensors.open(int8), gpu)) {
                assertSame(weights.load("w", 301, 3, 11), quantised.plain().to(torch.ScalarType.BFloat16));
            }
        });
    }

    /** Queued behind each other, nothing waited for: a buffer that was filled again too early would show. */
    @Test
    void manyAtATimeArriveAsTheyAreStored() {
        try (Safetensors source = Safetensors.open(file)) {
            Tensors.run(() -> {
                Map<String, Tensor> onGpu = new LinkedHashMap<>();
                CONTENTS.forEach((name, declaration) -> onGpu.put(
                        name, source.uploadedRows(name, 0, declaration.shape().get(0))));
                onGpu.forEach((name, tensor) -> assertSame(tensor, source.tensor(name)));
            });
        }
    }

    @Test
    void weightsAreThoseOfTheCpu() {
        try (Weights onGpu = Weights.of(Safetensors.open(file), Gpu.BFLOAT16);
                Weights wide = Weights.of(Safetensors.open(file), Gpu.FLOAT32);
                Safetensors source = Safetensors.open(file)) {
            Tensors.run(() -> {
                Tensor float32 = source.tensor("float32");
                assertSame(onGpu.load("float32", 6001, 7003), float32.to(torch.ScalarType.BFloat16));
                assertSame(wide.load("float32", 6001, 7003), float32);
                Tensor bfloat16 = source.tensor("bfloat16");
                assertSame(
                        onGpu.loadStacked(List.of("bfloat16", "bfloat16"), 1, 2, 8192, 4096),
                        Tensors.concatenate(0, bfloat16.narrow(0, 4096, 4096), bfloat16.narrow(0, 4096, 4096)));
                Matrix quantised = onGpu.loadQuantised(List.of("bfloat16"), 0, 4, 8192, 4096);
                Matrix expected = Matrix.quantised(Tensors.toFloat32(bfloat16.narrow(0, 0, 2048)));
                assertSame(quantised.values(), expected.values());
                assertSame(quantised.scales().orElseThrow(), expected.scales().orElseThrow());
            });
        }
    }

    /** Where a map would end the process. */
    @Test
    void aFileThatIsCutOffIsOneSentenceAndLeavesNothingOnTheGpu() throws IOException {
        Path cut = folder.resolve("cut.safetensors");
        try (SafetensorsWriter writer =
                SafetensorsWriter.create(cut, Map.of("weight", Declaration.of(Dtype.F32, 64, 64)), Map.of())) {
            Tensors.run(() -> writer.write("weight", torch.randn(64, 64)));
            writer.commit();
        }
        long before = Gpu.allocatedBytes();
        try (Weights weights = Weights.of(Safetensors.open(cut), Gpu.BFLOAT16)) {
            long bytes;
            try (RandomAccessFile opened = new RandomAccessFile(cut.toFile(), "rw")) {
                bytes = opened.length();
                opened.setLength(5000);
            }
            assertThatThrownBy(() -> weights.load("weight", 64, 64))
                    .isInstanceOf(CheckpointException.class)
                    .hasMessage(cut + " has 5000 bytes, expected the " + bytes + " that it had when it was opened");
            assertThat(Gpu.allocatedBytes()).isEqualTo(before);
        }
    }

    @Test
    void anInterruptEndsALoadAndTheNextOneWorks() {
        try (Weights weights = Weights.of(Safetensors.open(file), Gpu.BFLOAT16)) {
            Thread.currentThread().interrupt();
            assertThatThrownBy(() -> weights.load("float32", 6001, 7003)).isInstanceOf(CancellationException.class);
            assertThat(weights.loadedBytes()).isZero();
            assertThat(weights.load("float32", 6001, 7003).is_cuda()).isTrue();
        }
    }
}
