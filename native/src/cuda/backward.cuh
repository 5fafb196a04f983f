// What the kernels of attention's gradients have in common.
//
// Every gradient is summed by one thread in one order, so results are the same bits every time: one pass gathers the
// gradients of queries from the keys they attend to, another those of keys and values from their queries. Weights are
// computed in both, from the log-sum-exp.
//
// Both passes are the same: a tile of its own, 64 rows of `left` and of `right`, meets others.
//
//                  left       right              gradients
//   of queries     queries    output gradients   left += dS K
//   of keys        keys       values             left += dS^T Q,  right += P^T dO
//
//   with  P = exp(scale Q K^T - log-sum-exp),  dS = P (dO V^T - delta),  delta = the sum of O dO of a row;
//
// the gradients of `left` times the scale.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"

namespace scaledit::cuda {

// A pair of tiles and a head. A negative head: there are no more.
struct BackwardJob {
    std::int32_t pair;
    std::int32_t head;
};

// Of one pass, over the pairs of tiles whose gradients it computes.
struct BackwardParameters {
    const TokenRange* tiles;
    std::int32_t tile_count;
    std::int32_t heads;
    const TilePair* pairs;
    const TileRun* runs;
    std::int32_t pair_count;
    std::int32_t long_pairs;
    DeviceTensor own_left, own_right, met_left, met_right;
    DeviceTensor left_gradient, right_gradient;
    const float* statistics;  // [heads, tiles, 2, kTileTokens]: log-sum-exp, then delta
    std::int32_t* next;       // jobs that are given out; 0 before
    float scale;

    __device__ const float* statistics_of(std::int32_t head, std::int32_t tile) const {
        return statistics + (std::int64_t{head} * tile_count + tile) * (2 * kTileTokens);
    }
    // Long pairs first, a pair's heads one after the other; then the image's, a head's one after the other, whose tiles
    // then stay in the cache.
    __device__ BackwardJob job(std::int32_t index) const {
        const std::int32_t of_image = index - long_pairs * heads;
        const std::int32_t image_pairs = pair_count - long_pairs;
        if (of_image < 0) {
            return {index / heads, index % heads};
        }
        return of_image < image_pairs * heads ? BackwardJob{long_pairs + of_image % image_pairs, of_image / image_pairs}
                                              : BackwardJob{0, -1};
    }
};

struct StatisticsParameters {
    const TokenRange* tiles;
    const std::int32_t* key_tokens;
    const std::int32_t* query_tokens;
    std::int64_t tokens;
    DeviceTensor output, output_gradient;
    DeviceTensor query_gradient, key_gradient, value_gradient;
    const float* log_sum_exp;  // [heads, tokens]
    float* statistics;
    std::int32_t* next;  // [2]
};

constexpr int kStatisticsThreads = 256;

// A block for each tile (x) and head (y). Tokens that a tile lacks, and those that attend to nobody, get an infinite
// log-sum-exp: they weigh nothing. The latter's gradients are zero, as are those of keys to which nobody attends:
// nobody else writes these.
template <int kHeadDim>
__global__ void __launch_bounds__(kStatisticsThreads) find_statistics(const __grid_constant__ StatisticsParameters p) {
    constexpr int kLanes = kHeadDim / 8;  // of a row, 16 bytes each
    ptx::wait_for_kernels();
    ptx::launch_dependents();
    const auto tile = static_cast<std::int32_t>(blockIdx.x);
    const auto head = static_cast<std::int32_t>(blockIdx.y);
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kLanes;
    const TokenRange range = p.tiles[tile];
    const bool attends = p.key_tokens[tile] > 0;
    const bool is_met = p.query_tokens[tile] > 0;
    constexpr uint4 kZeros{0, 0, 0, 0};
    float* statistics = p.statistics + (std::int64_t{head} * gridDim.x + tile) * (2 * kTileTokens);
    if (tile == 0 && head == 0 && thread < 2) {
        p.next[thread] = 0;
    }
#pragma unroll
    for (int row = thread / kLanes; row < kTileTokens; row += kStatisticsThreads / kLanes) {
        const std::int64_t token = range.first + row;
        const bool real = row < range.tokens;
        float product = 0;
        if (real && attends) {
            const uint4 output = ptx::load_once(p.output.row(token, head) + 8 * lane);
            const uint4 gradient = ptx::load_once(p.output_gradient.row(token, head) + 8 * lane);
            const auto* a = reinterpret_cast<const __nv_bfloat162*>(&output);
            const auto* b = reinterpret_cast<const __nv_bfloat162*>(&gradient);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float2 x = __bfloat1622float2(a[i]);
                const float2 y = __bfloat1622float2(b[i]);
                product = fmaf(x.x, y.x, fmaf(x.y, y.y, product));
            }
        } else if (real) {
            *reinterpret_cast<uint4*>(p.query_gradient.row(token, head) + 8 * lane) = kZeros;
        }
        if (real && !is_met) {
            *reinterpret_cast<uint4*>(p.key_gradient.row(token, head) + 8 * lane) = kZeros;
            *reinterpret_cast<uint4*>(p.value_gradient.row(token, head) + 8 * lane) = kZeros;
        }
#pragma unroll
        for (int step = 1; step < kLanes; step *= 2) {
            product += __shfl_xor_sync(0xffffffffU, product, step);
        }
        if (lane == 0) {
            statistics[row] = real && attends ? p.log_sum_exp[head * p.tokens + token] * ptx::kLog2E : INFINITY;
            statistics[kTileTokens + row] = product;
        }
    }
}

}  // namespace scaledit::cuda
