// Attention in bfloat16 through mma.sync, for compute capability 8.0 and later: the exact twin of the quantised
// kernels.
//
// A block of four warps owns one query tile (up to 64 rows) of one head; each warp has 16 rows. Keys and values pass
// through shared memory 64 tokens at a time, the next 64 being copied while these are used.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/bfloat16_tiles.cuh"
#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"

namespace scaledit::cuda {

struct Bfloat16Parameters {
    const TokenRange* queries;
    const TokenRange* keys;
    const std::int32_t* offsets;
    const std::int32_t* schedule;
    DeviceTensor query, key, value, output;
    float* log_sum_exp;  // or null
    std::int64_t tokens;
    int heads;
    float scale;
};

constexpr int kBlockKeys = kTileTokens;
constexpr int kBlockThreads = 128;

template <int kHeadDim>
constexpr int kBfloat16SharedBytes = 5 * kBlockKeys* kHeadDim * 2;  // query; key and value, twice

// Walks through the keys of a query tile, kBlockKeys or fewer at a time.
struct KeyWalk {
    const TokenRange* range;
    const TokenRange* last;
    std::int32_t done;  // tokens of *range that are behind

    __device__ bool ended() const { return range == last; }
    __device__ std::int32_t first() const { return range->first + done; }
    __device__ int count() const { return min(kBlockKeys, range->tokens - done); }
    __device__ void advance() {
        done += kBlockKeys;
        if (done >= range->tokens) {
            ++range;
            done = 0;
        }
    }
};

template <int kHeadDim>
__global__ void __launch_bounds__(kBlockThreads, 2) attend_bfloat16(const Bfloat16Parameters p) {
    extern __shared__ __align__(128) unsigned char shared[];
    using Tile = SharedTile<kHeadDim>;
    constexpr std::uint32_t kTileBytes = kBlockKeys * kHeadDim * 2;
    constexpr int kSteps = kHeadDim / 16;
    const std::uint32_t base = ptx::shared_address(shared);
    const Tile query_tile{base};
    const auto key_tile = [&](int stage) { return Tile{base + kTileBytes * (1 + stage)}; };
    const auto value_tile = [&](int stage) { return Tile{base + kTileBytes * (3 + stage)}; };

    const auto thread = static_cast<int>(threadIdx.x);
    const int lane = thread % 32;
    const int warp_row = thread / 32 * 16;
    const std::int32_t tile = p.schedule[blockIdx.x / p.heads];
    const int head = static_cast<int>(blockIdx.x) % p.heads;
    const TokenRange own = p.queries[tile];
    KeyWalk walk{p.keys + p.offsets[tile], p.keys + p.offsets[tile + 1], 0};
    KeyWalk ahead = walk;

    const auto copy_next = [&](int stage) {
        if (!ahead.ended()) {
            key_tile(stage).template copy<kBlockThreads>(p.key, head, ahead.first(), ahead.count(), thread);
            value_tile(stage).template copy<kBlockThreads>(p.value, head, ahead.first(), ahead.count(), thread);
            ahead.advance();
        }
        ptx::commit_copies();
    };
    query_tile.template copy<kBlockThreads>(p.query, head, own.first, own.tokens, thread);
    copy_next(0);

    // This lane's place in the four matrices of an ldmatrix: as rows 0-15 first, or as chunks first.
    const int row_first = lane % 16;
    const int row_first_chunk = lane / 16;
    const int chunk_first = lane % 8 + lane / 16 * 8;
    const int chunk_first_chunk = lane / 8 % 2;

    std::uint32_t q[kSteps][4];
    float out[kHeadDim / 8][4] = {};
    float row_max[2] = {-INFINITY, -INFINITY};  // of Q K^T, before the scale
    float row_sum[2] = {0, 0};                  // this lane's part
    const float scale = p.scale * ptx::kLog2E;

    int stage = 0;
    for (bool begun = false; !walk.ended(); walk.advance(), stage ^= 1) {
        copy_next(stage ^ 1);
        ptx::wait_copies<1>();
        __syncthreads();
        if (!begun) {
            begun = true;
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                ptx::load_matrices(q[k], query_tile.chunk(warp_row + row_first, 2 * k + row_first_chunk));
            }
        }

        float s[kBlockKeys / 8][4] = {};
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
#pragma unroll
            for (int n = 0; n < kBlockKeys / 16; ++n) {
                std::uint32_t keys[4];
                ptx::load_matrices(keys, key_tile(stage).chunk(16 * n + chunk_first, 2 * k + chunk_first_chunk));
                ptx::multiply_add(s[2 * n], q[k], keys[0], keys[1]);
                ptx::multiply_add(s[2 * n + 1], q[k], keys[2], keys[3]);
            }
        }

        const int count = walk.count();
        if (count < kBlockKeys) {
#pragma unroll
            for (int n = 0; n < kBlockKeys / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (8 * n + lane % 4 * 2 + i % 2 >= count) {
                        s[n][i] = -INFINITY;
                    }
                }
            }
        }

#pragma unroll
        for (int half = 0; half < 2; ++half) {  // rows lane / 4 and lane / 4 + 8
            float largest = row_max[half];
#pragma unroll
            for (int n = 0; n < kBlockKeys / 8; ++n) {
                largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            }
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
            const float shift = largest * scale;
            const float shrink = ptx::exp2(row_max[half] * scale - shift);
            row_max[half] = largest;
            float sum = 0;
#pragma unroll
            for (int n = 0; n < kBlockKeys / 8; ++n) {
                s[n][2 * half] = ptx::exp2(fmaf(s[n][2 * half], scale, -shift));
                s[n][2 * half + 1] = ptx::exp2(fmaf(s[n][2 * half + 1], scale, -shift));
                sum += s[n][2 * half] + s[n][2 * half + 1];
            }
            row_sum[half] = fmaf(row_sum[half], shrink, sum);
#pragma unroll
            for (int n = 0; n < kHeadDim / 8; ++n) {
                out[n][2 * half] *= shrink;
                out[n][2 * half + 1] *= shrink;
            }
        }

#pragma unroll
        for (int k = 0; k < kBlockKeys / 16; ++k) {
            const std::uint32_t weights[4] = {
                ptx::pack_bfloat(s[2 * k][0], s[2 * k][1]), ptx::pack_bfloat(s[2 * k][2], s[2 * k][3]),
                ptx::pack_bfloat(s[2 * k + 1][0], s[2 * k + 1][1]), ptx::pack_bfloat(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < kHeadDim / 16; ++n) {
                std::uint32_t values[4];
                ptx::load_matrices_transposed(values,
                                              value_tile(stage).chunk(16 * k + row_first, 2 * n + row_first_chunk));
                ptx::multiply_add(out[2 * n], weights, values[0], values[1]);
                ptx::multiply_add(out[2 * n + 1], weights, values[2], values[3]);
            }
        }
        __syncthreads();  // the next turn copies over this stage
    }

    float share[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = warp_row + lane / 4 + 8 * half;
        float sum = row_sum[half];
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        share[half] = 1 / sum;
        if (p.log_sum_exp != nullptr && lane % 4 == 0 && row < own.tokens) {
            p.log_sum_exp[head * p.tokens + own.first + row] = row_max[half] * p.scale + logf(sum);
        }
    }
    write_tile<kHeadDim>(p.output, own, head, out, share, thread);
}

}  // namespace scaledit::cuda
