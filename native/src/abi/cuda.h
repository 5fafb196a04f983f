// What the C ABI's functions for GPUs have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "error.h"

namespace scaledit::abi {

constexpr std::size_t kGpuAlignment = 16;  // of a kernel's loads and stores

inline void expect_gpu_stride(std::int64_t stride, std::string_view argument) {
    expect(stride % 8 == 0, argument, stride, "a multiple of 8 elements on a GPU");
}

#if !SCALEDIT_CUDA
[[noreturn]] inline void refuse_without_cuda() {
    throw Error(SCALEDIT_UNSUPPORTED, "this build of scaledit has no CUDA, expected one made with it");
}
#endif

}  // namespace scaledit::abi
