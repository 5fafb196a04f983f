// The gradients of attention in bfloat16 through mma.sync, for compute capability 8.0 and later: both passes of
// backward.cuh.
//
// A block of eight warps owns a pair of tiles of one head, four warps a tile, 16 rows each. What either tile meets
// passes through shared memory one tile at a time, kStages - 1 of them copied ahead: GPUs with 99 KB have room for one.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/backward.cuh"
#include "cuda/bfloat16_tiles.cuh"
#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"

namespace scaledit::cuda {

constexpr int kTileThreads = 128;
constexpr int kBackwardThreads = kPairTiles * kTileThreads;

template <int kHeadDim, int kStages>
struct BackwardMemory {
    using Tile = SharedTile<kHeadDim>;
    static constexpr std::uint32_t kStatisticsBytes = 2 * kTileTokens * sizeof(float);
    static constexpr std::uint32_t kStageBytes = 2 * Tile::kBytes + kStatisticsBytes;
    static constexpr std::uint32_t kBytes = 2 * kPairTiles * Tile::kBytes + kStages * kStageBytes;
    std::uint32_t base;

    // `side` 0 is left, 1 right.
    __device__ Tile own(int tile, int side) const {
        return {base + static_cast<std::uint32_t>(2 * tile + side) * Tile::kBytes};
    }
    __device__ Tile met(int stage, int side) const {
        return {stage_begin(stage) + kStatisticsBytes + static_cast<std::uint32_t>(side) * Tile::kBytes};
    }
    __device__ std::uint32_t stage_begin(int stage) const {
        return base + 2 * kPairTiles * Tile::kBytes + static_cast<std::uint32_t>(stage) * kStageBytes;
    }
};

// Walks through the tiles of runs.
struct TileWalk {
    const TileRun* run;
    const TileRun* last;
    std::int32_t done;  // tiles of *run that are behind

    __device__ bool ended() const { return run == last; }
    __device__ std::int32_t tile() const { return run->first + done; }
    __device__ void advance() {
        if (run->first + ++done == run->end) {
            ++run;
            done = 0;
        }
    }
};

template <int kHeadDim, bool kOfKeys, int kStages>
__global__ void __launch_bounds__(kBackwardThreads, 1)
    propagate_bfloat16(const __grid_constant__ BackwardParameters p) {
    extern __shared__ __align__(128) unsigned char shared[];
    using Tile = SharedTile<kHeadDim>;
    using Memory = BackwardMemory<kHeadDim, kStages>;
    constexpr int kColumns = kTileTokens / 8;  // eights of them
    constexpr int kSteps = kHeadDim / 16;
    const Memory memory{ptx::shared_address(shared)};
    const auto thread = static_cast<int>(threadIdx.x);
    const int lane = thread % 32;
    const int group = thread / kTileThreads;
    const int warp_row = thread % kTileThreads / 32 * 16;
    ptx::wait_for_kernels();
    const BackwardJob job = p.job(static_cast<std::int32_t>(blockIdx.x));
    const TilePair& pair = p.pairs[job.pair];
    const std::int32_t tile = pair.tile[group];
    const TokenRange rows = tile < 0 ? TokenRange{0, 0} : p.tiles[tile];
    TileWalk walk{p.runs + pair.runs_first, p.runs + pair.runs_end, 0};
    TileWalk ahead = walk;

    const auto copy_next = [&](int stage) {
        if (!ahead.ended()) {
            const TokenRange range = p.tiles[ahead.tile()];
            memory.met(stage, 0).template copy<kBackwardThreads>(p.met_left, job.head, range.first, range.tokens,
                                                                 thread);
            memory.met(stage, 1).template copy<kBackwardThreads>(p.met_right, job.head, range.first, range.tokens,
                                                                 thread);
            if (kOfKeys && thread < 32) {
                ptx::copy_async<16>(memory.stage_begin(stage) + static_cast<std::uint32_t>(thread) * 16,
                                    p.statistics_of(job.head, ahead.tile()) + 4 * thread);
            }
            ahead.advance();
        }
        ptx::commit_copies();
    };
    if (rows.tokens > 0) {
        const int of_tile = thread % kTileThreads;
        memory.own(group, 0).template copy<kTileThreads>(p.own_left, job.head, rows.first, rows.tokens, of_tile);
        memory.own(group, 1).template copy<kTileThreads>(p.own_right, job.head, rows.first, rows.tokens, of_tile);
    }
#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
        copy_next(stage);
    }

    // This lane's place in the four matrices of an ldmatrix: as rows 0-15 first, or as chunks first.
    const int row_first = lane % 16;
    const int row_first_chunk = lane / 16;
    const int chunk_first = lane % 8 + lane / 16 * 8;
    const int chunk_first_chunk = lane / 8 % 2;
    const int quad = lane % 4;
    const float scale = p.scale * ptx::kLog2E;

    float log2_sum_exp[2] = {};
    float delta[2] = {};
    if (!kOfKeys && rows.tokens > 0) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* of_row = p.statistics_of(job.head, tile) + warp_row + lane / 4 + 8 * half;
            log2_sum_exp[half] = of_row[0];
            delta[half] = of_row[kTileTokens];
        }
    }
    float left[kHeadDim / 8][4] = {};
    float right[kHeadDim / 8][4] = {};  // of keys only

    // products [16 rows of own, 64 of met], summed over channels
    const auto multiply = [&](float(&products)[kColumns][4], const Tile& own, const Tile& met) {
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
            std::uint32_t rows_of_own[4];
            ptx::load_matrices(rows_of_own, own.chunk(warp_row + row_first, 2 * k + row_first_chunk));
#pragma unroll
            for (int n = 0; n < kColumns / 2; ++n) {
                std::uint32_t rows_of_met[4];
                ptx::load_matrices(rows_of_met, met.chunk(16 * n + chunk_first, 2 * k + chunk_first_chunk));
                ptx::multiply_add(products[2 * n], rows_of_own, rows_of_met[0], rows_of_met[1]);
                ptx::multiply_add(products[2 * n + 1], rows_of_own, rows_of_met[2], rows_of_met[3]);
            }
        }
    };
    // sums [16, kHeadDim] += factors [16, 16 rows of met] met
    const auto gather = [&](float(&sums)[kHeadDim / 8][4], const std::uint32_t(&factors)[4], const Tile& met, int k) {
#pragma unroll
        for (int n = 0; n < kSteps; ++n) {
            std::uint32_t rows_of_met[4];
            ptx::load_matrices_transposed(rows_of_met, met.chunk(16 * k + row_first, 2 * n + row_first_chunk));
            ptx::multiply_add(sums[2 * n], factors, rows_of_met[0], rows_of_met[1]);
            ptx::multiply_add(sums[2 * n + 1], factors, rows_of_met[2], rows_of_met[3]);
        }
    };

    for (int turn = 0; !walk.ended(); walk.advance(), ++turn) {
        copy_next((turn + kStages - 1) % kStages);
        ptx::wait_copies<kStages - 1>();
        __syncthreads();
        const int stage = turn % kStages;
        if ((walk.run->cells >> group & 1U) != 0) {
            const Tile met_left = memory.met(stage, 0);
            const Tile met_right = memory.met(stage, 1);
            const auto* statistics =
                reinterpret_cast<const float*>(shared + (memory.stage_begin(stage) - memory.base)) + 2 * quad;
            float s[kColumns][4] = {};  // scores, then weights
            multiply(s, memory.own(group, 0), met_left);
#pragma unroll
            for (int n = 0; n < kColumns; ++n) {
                float shift[4] = {log2_sum_exp[0], log2_sum_exp[0], log2_sum_exp[1], log2_sum_exp[1]};
                if constexpr (kOfKeys) {
                    const float2 of_columns = *reinterpret_cast<const float2*>(statistics + 8 * n);
                    shift[0] = shift[2] = of_columns.x;
                    shift[1] = shift[3] = of_columns.y;
                }
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    s[n][i] = ptx::exp2(fmaf(s[n][i], scale, -shift[i]));
                }
            }
            if constexpr (kOfKeys) {  // missing columns have an infinite log-sum-exp
#pragma unroll
                for (int k = 0; k < kTileTokens / 16; ++k) {
                    const std::uint32_t weights[4] = {ptx::pack_bfloat(s[2 * k][0], s[2 * k][1]),
                                                      ptx::pack_bfloat(s[2 * k][2], s[2 * k][3]),
                                                      ptx::pack_bfloat(s[2 * k + 1][0], s[2 * k + 1][1]),
                                                      ptx::pack_bfloat(s[2 * k + 1][2], s[2 * k + 1][3])};
                    gather(right, weights, met_right, k);
                }
            } else {
                const int tokens = p.tiles[walk.tile()].tokens;
                if (tokens < kTileTokens) {
#pragma unroll
                    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            if (8 * n + quad * 2 + i % 2 >= tokens) {
                                s[n][i] = 0;
                            }
                        }
                    }
                }
            }
            float d[kColumns][4] = {};  // the weights' gradients
            multiply(d, memory.own(group, 1), met_right);
#pragma unroll
            for (int k = 0; k < kTileTokens / 16; ++k) {
                std::uint32_t gradients[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int n = 2 * k + i / 2;
                    float2 less = {delta[i % 2], delta[i % 2]};
                    if constexpr (kOfKeys) {
                        less = *reinterpret_cast<const float2*>(statistics + kTileTokens + 8 * n);
                    }
                    const int at = 2 * (i % 2);
                    gradients[i] =
                        ptx::pack_bfloat(s[n][at] * (d[n][at] - less.x), s[n][at + 1] * (d[n][at + 1] - less.y));
                }
                gather(left, gradients, met_left, k);
            }
        }
        __syncthreads();  // the next turn copies over this stage
    }

    write_tile<kHeadDim>(p.left_gradient, rows, job.head, left, {p.scale, p.scale}, thread % kTileThreads);
    if constexpr (kOfKeys) {
        write_tile<kHeadDim>(p.right_gradient, rows, job.head, right, {1, 1}, thread % kTileThreads);
    }
}

}  // namespace scaledit::cuda
