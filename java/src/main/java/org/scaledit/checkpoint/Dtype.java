package org.scaledit.checkpoint;

import java.util.Arrays;
import java.util.Optional;
import java.util.stream.Collectors;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/** The number formats of a safetensors file that torch knows too. */
public enum Dtype {
    F64(8, torch.ScalarType.Double),
    F32(4, torch.ScalarType.Float),
    F16(2, torch.ScalarType.Half),
    BF16(2, torch.ScalarType.BFloat16),
    I64(8, torch.ScalarType.Long),
    I32(4, torch.ScalarType.Int),
    I16(2, torch.ScalarType.Short),
    I8(1, torch.ScalarType.Char),
    U8(1, torch.ScalarType.Byte),
    BOOL(1, torch.ScalarType.Bool),
    F8_E4M3(1, torch.ScalarType.Float8_e4m3fn),
    F8_E5M2(1, torch.ScalarType.Float8_e5m2);

    private final int bytes;
    private final torch.ScalarType scalarType;

    Dtype(int bytes, torch.ScalarType scalarType) {
        this.bytes = bytes;
        this.scalarType = scalarType;
    }

    /** Size of one element. */
    public int bytes() {
        return bytes;
    }

    /** Whether it has fractions. */
    boolean isFloating() {
        return switch (this) {
            case F64, F32, F16, BF16, F8_E4M3, F8_E5M2 -> true;
            case I64, I32, I16, I8, U8, BOOL -> false;
        };
    }

    public torch.ScalarType scalarType() {
        return scalarType;
    }

    /** @throws IllegalArgumentException if a safetensors file cannot hold such numbers */
    public static Dtype of(Tensor tensor) {
        torch.ScalarType type = tensor.scalar_type().intern();
        return Arrays.stream(values())
                .filter(dtype -> dtype.scalarType == type)
                .findFirst()
                .orElseThrow(() -> new IllegalArgumentException(
                        "a tensor of " + type + " cannot be written, expected one of " + names()));
    }

    static Optional<Dtype> named(String name) {
        return Arrays.stream(values())
                .filter(dtype -> dtype.name().equals(name))
                .findFirst();
    }

    static String names() {
        return Arrays.stream(values()).map(Dtype::name).collect(Collectors.joining(", "));
    }
}
