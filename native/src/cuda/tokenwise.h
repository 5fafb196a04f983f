// What a transformer block does to each token by itself, on an NVIDIA GPU.
#pragma once

#include <cstdint>

#include "scaledit/scaledit.h"

namespace scaledit::cuda {

constexpr std::int32_t kMostHiddenWidth = 8192;  // of all but quantize()
constexpr std::int32_t kMostWidth = 16384;       // of quantize()

// Sizes, strides, types and overlaps are checked already, and there is a row; the first matrix's GPU runs the kernel.
// All throw Error, as device.h says.

void run(const scaledit_cuda_add_gated_arguments& arguments);
void run(const scaledit_cuda_modulate_arguments& arguments);
void run(const scaledit_cuda_quantize_arguments& arguments);
void run(const scaledit_cuda_norm_and_rotate_arguments& arguments);

}  // namespace scaledit::cuda
