// What CUDA's errors become. None of it needs a GPU.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <string>

#include "cuda/device.h"
#include "error.h"

namespace scaledit {
namespace {

TEST(CudaErrors, OfAMachineWithoutAGpuAreToldFromOthers) {
    const auto expect_error = [](cudaError_t result, scaledit_status status, const std::string& sentence) {
        try {
            cuda::expect_gpu(result, "cudaGetDevice");
            ADD_FAILURE() << sentence;
        } catch (const Error& error) {
            EXPECT_EQ(error.status(), status) << sentence;
            EXPECT_EQ(error.what(), sentence + cudaGetErrorString(result));
        }
    };
    for (const cudaError_t result :
         {cudaErrorNoDevice, cudaErrorInsufficientDriver, cudaErrorInitializationError, cudaErrorStubLibrary,
          cudaErrorSystemNotReady, cudaErrorSystemDriverMismatch, cudaErrorCompatNotSupportedOnDevice}) {
        expect_error(result, SCALEDIT_UNSUPPORTED, "CUDA finds no GPU: ");
    }
    for (const cudaError_t result : {cudaErrorIllegalAddress, cudaErrorLaunchFailure, cudaErrorECCUncorrectable}) {
        expect_error(result, SCALEDIT_INTERNAL_ERROR, "cudaGetDevice failed: ");
    }
    cuda::expect_gpu(cudaSuccess, "cudaGetDevice");
}

}  // namespace
}  // namespace scaledit
