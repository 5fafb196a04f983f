package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class CudaTest {
    /** As torch's allocator, CUDA, cuBLAS, cuDNN, torch's convolutions and the native core word it. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 1.75 MiB"
                        + " is free. Of the allocated memory 22.86 GiB is allocated by PyTorch",
                "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the CUDA documentation.",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                "GET was unable to find an engine to execute this computation",
                "attention failed: out of memory"
            })
    void wantOfMemoryIsRecognised(String message) {
        assertThat(Cuda.isOutOfMemory(new RuntimeException(message))).isTrue();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "CUDA error: device-side assert triggered",
                "CUDA error: an illegal memory access was encountered",
                "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
                "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"
            })
    void otherFailuresAreNot(String message) {
        assertThat(Cuda.isOutOfMemory(new RuntimeException(message))).isFalse();
        assertThat(Cuda.isOutOfMemory(new RuntimeException())).isFalse();
    }
}
