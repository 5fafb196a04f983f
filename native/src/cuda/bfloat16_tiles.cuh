// Tiles of bfloat16 rows: into shared memory as mma.sync takes them, and out of registers.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"

namespace scaledit::cuda {

// 64 rows in shared memory for ldmatrix: 16-byte chunk c of row r lies at chunk c ^ (r & 7), so that the eight rows of
// a matrix meet eight different groups of banks.
template <int kHeadDim>
struct SharedTile {
    static constexpr std::uint32_t kBytes = kTileTokens * kHeadDim * 2;
    static constexpr int kChunks = kHeadDim / 8;
    std::uint32_t base;

    __device__ std::uint32_t chunk(int row, int chunk) const {
        return base + static_cast<std::uint32_t>((row * kChunks + (chunk ^ (row & 7))) * 16);
    }

    // `rows` rows from `first` on; the others become zero, so that nothing beyond a tensor is ever read. By
    // kThreads threads.
    template <int kThreads>
    __device__ void copy(const DeviceTensor& tensor, int head, std::int64_t first, int rows, int thread) const {
#pragma unroll
        for (int i = 0; i < kTileTokens * kChunks / kThreads; ++i) {
            const int index = i * kThreads + thread;
            const int row = index / kChunks;
            const int column = index % kChunks;
            const bool real = row < rows;
            const __nv_bfloat16* source = tensor.row(first + (real ? row : 0), head) + column * 8;
            ptx::copy_async(chunk(row, column), source, real ? 16U : 0U);
        }
    }
};

// Four lanes exchange: lane i of them gets what is part[i] of each.
__device__ inline void exchange(std::uint32_t (&part)[4], int lane) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool set = (lane & bit) != 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if ((i & bit) == 0) {
                const std::uint32_t got = __shfl_xor_sync(0xffffffffU, set ? part[i] : part[i | bit], bit);
                part[i] = set ? got : part[i];
                part[i | bit] = set ? part[i | bit] : got;
            }
        }
    }
}

// A lane's sums of a product, for wgmma in a row and for mma.sync by instruction.
template <int kCount>
__device__ inline float sum_of(const float (&sums)[kCount], int i) {
    return sums[i];
}
template <int kCount>
__device__ inline float sum_of(const float (&sums)[kCount][4], int i) {
    return sums[i / 4][i % 4];
}

// Writes 64 rows' sums, as products of 64 or 16 rows leave them in registers, times a factor of each row; `rows` of
// them are real. By four warps of 16 rows: `thread` is below 128.
template <int kHeadDim, typename Sums>
__device__ inline void write_tile(const DeviceTensor& tensor, const TokenRange& rows, int head, const Sums& sums,
                                  const float (&factor)[2], int thread) {
    const int quad = thread % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = thread / 32 * 16 + thread % 32 / 4 + 8 * half;
        // Each lane has two channels of every eight; after an exchange eight of every 32, a 16-byte store.
        __nv_bfloat16* target = tensor.row(rows.first + row, head) + quad * 8;
#pragma unroll
        for (int n = 0; n < kHeadDim / 32; ++n) {
            std::uint32_t pairs[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = (4 * n + i) * 4 + 2 * half;
                pairs[i] = ptx::pack_bfloat(sum_of(sums, at) * factor[half], sum_of(sums, at + 1) * factor[half]);
            }
            exchange(pairs, quad);
            if (row < rows.tokens) {
                *reinterpret_cast<uint4*>(target + 32 * n) = {pairs[0], pairs[1], pairs[2], pairs[3]};
            }
        }
    }
}

}  // namespace scaledit::cuda
