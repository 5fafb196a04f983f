// Tiles of bfloat16 rows, as wgmma takes them, and what the warps of a warpgroup do together: shared by the kernels for
// compute capability 9.x that work on the caller's tensors as they lie.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/bfloat16_tiles.cuh"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"
#include "cuda/ptx_hopper.cuh"

namespace scaledit::cuda::bfloat16_hopper {

constexpr int kWarpgroup = 128;
constexpr int kWarps = kWarpgroup / 32;  // of a warpgroup; of the producers, each fills every fourth slot

constexpr int kPanelChannels = 64;
constexpr int kRowBytes = 2 * kPanelChannels;

// Copies a tile's rows into panels of kPanelRows rows, by kCopiers threads, each with a group of copies; those from
// `rows` on become zeros.
template <int kHeadDim, int kPanelRows, unsigned kCopiers>
__device__ inline void copy_tile(std::uint32_t destination, const __nv_bfloat16* source, std::int64_t token_stride,
                                 int rows, unsigned copier) {
    constexpr unsigned kChunks = kHeadDim / 8;         // of 16 bytes
    constexpr int kRows = kCopiers / kChunks;          // at once
    constexpr unsigned kPanelChunks = kRowBytes / 16;  // as many as the rows after which the swizzle repeats
    const unsigned first = copier / kChunks;
    const unsigned chunk = copier % kChunks;
    const std::uint32_t at = destination + chunk / kPanelChunks * kPanelRows * kRowBytes + first * kRowBytes +
                             swizzled_chunk(kRowBytes, first, chunk % kPanelChunks) * 16;
    source += first * token_stride + chunk * 8;
    const int left = rows - static_cast<int>(first);
#pragma unroll
    for (int i = 0; i < kTileTokens / kRows; ++i) {
        // `first` is below kRows, a power of two: the swizzle of its sum with kRows * i is that of both in turn.
        const std::uint32_t turned = at ^ static_cast<std::uint32_t>(kRows * i) % kPanelChunks * 16;
        ptx::copy_async(turned + static_cast<std::uint32_t>(kRows * i * kRowBytes), source,
                        kRows * i < left ? 16U : 0U);
        source += kRows * token_stride;
    }
    ptx::commit_copies();
}

// A consumer's number in its warpgroup, as if it were not known before: what follows from it is computed where it is
// needed and takes no registers elsewhere.
__device__ inline int thread_of_warpgroup() {
    std::uint32_t thread[1] = {threadIdx.x % kWarpgroup};
    ptx::pin(thread);
    return static_cast<int>(thread[0]);
}

// Through a shuffle, so the compiler sees that it is the same for a warp, and so is all that follows from it.
template <typename Number>
__device__ inline Number same_for_warp(Number number) {
    return __shfl_sync(0xffffffffU, number, 0);
}

}  // namespace scaledit::cuda::bfloat16_hopper
