// What a transformer block does to each token by itself, on an NVIDIA GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "scaledit/scaledit.h"

namespace scaledit::cuda {

constexpr std::int32_t kMostHiddenWidth = 8192;  // of all but quantize() and those with GELU
constexpr std::int32_t kMostWidth = 16384;       // of these

constexpr std::int32_t kMostNormParts = 65535;  // of the gradient of a batch's norm

constexpr std::int32_t kMostNormChannels = 1024;  // of group_norm()
constexpr std::int32_t kGroupNormBlocks = 528;    // that measure a picture: four for each multiprocessor of a Hopper

// What scaledit_cuda_group_norm() needs, in bytes: of each block two sums of every channel, and a factor and a term.
constexpr std::size_t group_norm_workspace(std::int32_t channels) {
    return static_cast<std::size_t>(kGroupNormBlocks + 1) * 2 * static_cast<std::size_t>(channels) * sizeof(float);
}

constexpr std::int32_t kPackedWidthMultiple = 64;  // of pack_rows(): rows of 8-byte words
constexpr std::int32_t kScaleChannels = 32;        // of a packed row that share a bfloat16 scale

// Codes of key and value, and their scales.
constexpr std::int64_t packed_row_bytes(std::int32_t width) {
    return std::int64_t{2} * width + std::int64_t{2} * (2 * width / kScaleChannels);
}

// Sizes, strides, types and overlaps are checked already, and there is a row; the first matrix's GPU runs the kernel.
// All throw Error, as device.h says.

void run(const scaledit_cuda_add_gated_arguments& arguments);
void run(const scaledit_cuda_modulate_arguments& arguments);
void run(const scaledit_cuda_quantize_arguments& arguments);
void run(const scaledit_cuda_norm_and_rotate_arguments& arguments);
void run(const scaledit_cuda_group_norm_arguments& arguments);
void run(const scaledit_cuda_pack_rows_arguments& arguments);
void run(const scaledit_cuda_unpack_rows_arguments& arguments);
void run(const scaledit_cuda_batch_modulate_arguments& arguments);
void run(const scaledit_cuda_batch_modulate_gradient_arguments& arguments);
void run(const scaledit_cuda_batch_add_gated_arguments& arguments);
void run(const scaledit_cuda_batch_add_gated_gradient_arguments& arguments);
void run(const scaledit_cuda_batch_norm_and_rotate_arguments& arguments);
void run(const scaledit_cuda_batch_norm_and_rotate_gradient_arguments& arguments);
void run(const scaledit_cuda_join_gelu_arguments& arguments);
void run(const scaledit_cuda_gelu_gradient_arguments& arguments);

}  // namespace scaledit::cuda
