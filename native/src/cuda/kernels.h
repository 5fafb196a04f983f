// Which kernel computes a call.
#pragma once

#include <cstdint>
#include <string>

namespace scaledit::cuda {

enum class Kernel {
    kBfloat16Mma,    // attention_bfloat16.cuh
    kBfloat16Wgmma,  // attention_bfloat16_hopper.cuh
    kInt8Fp16Mma,    // attention_int8_mma.cuh, values in FP16
    kInt8Fp8Mma,     // attention_int8_mma.cuh, values in FP8
    kInt8Wgmma       // attention_int8_hopper.cuh
};

// `arithmetic` is a scaledit_arithmetic that GPUs have and `kernels` a scaledit_cuda_kernels, for which
// check_kernels() looks. Compute capabilities are 10 * major + minor: the GPU's, and the one that this build's code for
// it was compiled for (0: there is none).

// "9.0".
std::string version(int compute_capability);

// Refuses what is no scaledit_cuda_kernels (SCALEDIT_INVALID_ARGUMENT).
void check_kernels(std::int32_t kernels);

// The kernel of a family, whatever the GPU; BEST: the best of all.
Kernel kernel_of(std::int32_t arithmetic, std::int32_t kernels);

// The kernel for a GPU. Throws Error (SCALEDIT_UNSUPPORTED) where the GPU cannot run the family, or the build has no
// code for it.
Kernel resolve(std::int32_t arithmetic, std::int32_t kernels, int compute_capability, int code_version);

}  // namespace scaledit::cuda
