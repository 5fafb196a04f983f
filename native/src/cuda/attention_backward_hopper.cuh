// The gradients of attention in bfloat16 through wgmma, for compute capability 9.x, on the caller's tensors as they
// lie.
//
// A persistent block has four producer warps and two consumer warpgroups. It takes one pair of tiles after the other, a
// tile for each warpgroup; what either of them meets goes through a ring, left and right of one tile in a slot. What a
// warpgroup does not meet it passes over. It holds one slot at a time and releases slots in order, so the ring cannot
// lock.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "cuda/backward.cuh"
#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/hopper_tiles.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"
#include "cuda/ptx_hopper.cuh"

namespace scaledit::cuda {

namespace bfloat16_hopper::backward {

constexpr int kSlots = kWarps;  // each producer warp fills one
constexpr int kConsumers = kPairTiles;
constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
// A block begins with as many registers a thread as divide 65,536, in eights: more than those in all are waited for in
// vain.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
static_assert(kWarpgroup * (kProducerRegisters + kConsumers * kConsumerRegisters) <=
              kThreads * (65536 / kThreads / 8 * 8));
constexpr int kJobs = 2;  // that are given out before the first of them is taken by all
constexpr std::uint32_t kJobTakers = (1 + kConsumers) * kWarps;

// What a slot brings along.
struct Stage {
    std::uint32_t cells;  // as in TileRun
    std::int32_t tokens;  // real ones
    std::uint32_t last;   // of the pair; else 0
};

template <int kHeadDim>
struct Shared {
    static constexpr int kPanels = kHeadDim / kPanelChannels;
    static constexpr int kTileBytes = kPanels * kTileTokens * kRowBytes;
    alignas(1024) std::byte met[kSlots][2][kTileBytes];  // left, right
    alignas(1024) std::byte own[kConsumers][2][kTileBytes];
    alignas(16) float statistics[kSlots][2 * kTileTokens];  // of queries that are met
    Stage stage[kSlots];
    BackwardJob job[kJobs];
    std::uint64_t full[kSlots];
    std::uint64_t empty[kSlots];
    std::uint64_t given[kJobs];
    std::uint64_t taken[kJobs];
};

__device__ inline void wait(const std::uint64_t& barrier, std::uint32_t parity) {
    ptx::barrier_wait(ptx::shared_address(&barrier), parity % 2);
}
__device__ inline void arrive(const std::uint64_t& barrier, int lane) {
    ptx::warp_arrive(ptx::shared_address(&barrier), lane);
}

// Gives out the number-th job of a block, by one warp.
template <int kHeadDim>
__device__ inline void give_job(const BackwardParameters& p, Shared<kHeadDim>& shared, std::uint32_t number, int lane) {
    const std::uint32_t place = number % kJobs;
    wait(shared.taken[place], number / kJobs + 1);
    if (lane == 0) {
        shared.job[place] = p.job(atomicAdd(p.next, 1));
    }
    arrive(shared.given[place], lane);
}

template <int kHeadDim>
__device__ inline BackwardJob take_job(Shared<kHeadDim>& shared, std::uint32_t number, int lane) {
    const std::uint32_t place = number % kJobs;
    wait(shared.given[place], number / kJobs);
    const BackwardJob job{same_for_warp(shared.job[place].pair), same_for_warp(shared.job[place].head)};
    arrive(shared.taken[place], lane);
    return job;
}

template <int kHeadDim, bool kOfKeys>
__device__ inline void produce(const BackwardParameters& p, Shared<kHeadDim>& shared, std::uint32_t warp) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::uint32_t place = warp;
    std::uint32_t stage = 0;
    for (std::uint32_t number = 0;; ++number) {
        if (warp == 0) {
            give_job(p, shared, number, lane);
        }
        const BackwardJob job = take_job(shared, number, lane);
        if (job.head < 0) {
            return;
        }
        const std::int32_t runs_end = p.pairs[job.pair].runs_end;
        for (std::int32_t first = p.pairs[job.pair].runs_first; first < runs_end; first += 32) {
            TileRun mine{};
            if (first + lane < runs_end) {
                mine = p.runs[first + lane];
            }
            for (std::int32_t i = 0; i < min(32, runs_end - first); ++i) {
                const std::int32_t begin = __shfl_sync(0xffffffffU, mine.first, i);
                const std::int32_t end = __shfl_sync(0xffffffffU, mine.end, i);
                const std::uint32_t cells = __shfl_sync(0xffffffffU, mine.cells, i);
                const bool last = first + i + 1 == runs_end;
                for (auto t = static_cast<std::int32_t>((warp - stage) % kSlots); t < end - begin; t += kSlots) {
                    const std::uint32_t slot = stage + static_cast<std::uint32_t>(t);
                    const std::int32_t tile = begin + t;
                    const TokenRange range = p.tiles[tile];
                    wait(shared.empty[place], slot / kSlots + 1);
#pragma unroll 1
                    for (int side = 0; side < 2; ++side) {
                        const DeviceTensor& tensor = side == 0 ? p.met_left : p.met_right;
                        copy_tile<kHeadDim, kTileTokens, 32>(ptx::shared_address(shared.met[place][side]),
                                                             tensor.row(range.first, job.head), tensor.token_stride,
                                                             range.tokens, static_cast<unsigned>(lane));
                    }
                    if constexpr (kOfKeys) {
                        const float* statistics = p.statistics_of(job.head, tile);
                        ptx::copy_async<16>(
                            ptx::shared_address(shared.statistics[place]) + static_cast<std::uint32_t>(lane) * 16,
                            statistics + 4 * lane);
                        ptx::commit_copies();
                    }
                    if (lane == 0) {
                        shared.stage[place] = {cells, range.tokens, last && tile + 1 == end ? 1U : 0U};
                    }
                    ptx::wait_copies<0>();
                    ptx::order_copies_after_stores();  // and matrix instructions, which read the same way
                    arrive(shared.full[place], lane);
                }
                stage += static_cast<std::uint32_t>(end - begin);
            }
        }
    }
}

template <int kHeadDim, bool kOfKeys>
__device__ inline void consume(const BackwardParameters& p, Shared<kHeadDim>& shared, int warp) {
    constexpr int kSteps = kHeadDim / 16;
    constexpr int kTileSteps = kTileTokens / 16;
    constexpr int kScores = kTileTokens / 2;  // of a lane
    constexpr int kSums = kHeadDim / 2;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int quad = lane % 4;
    const int group = warp / kWarps;
    const std::uint32_t mine = 1U << group;
    const float scale = p.scale * ptx::kLog2E;
    const std::uint32_t own_address = ptx::shared_address(shared.own[group]);
    const ptx::Panels<kTileTokens> own_left(own_address);
    const ptx::Panels<kTileTokens> own_right(own_address + Shared<kHeadDim>::kTileBytes);
    std::uint32_t slot = 0;

    BackwardJob job{};
    TokenRange rows{};  // of no tokens where the pair has one tile
    std::int32_t tile = 0;
    // Has the tile of a job's own copied.
    const auto take = [&](std::uint32_t number) {
        job = take_job(shared, number, lane);
        rows = {0, 0};
        if (job.head < 0) {
            return;
        }
        tile = p.pairs[job.pair].tile[group];
        if (tile >= 0) {
            rows = p.tiles[tile];
#pragma unroll 1
            for (int side = 0; side < 2; ++side) {
                const DeviceTensor& tensor = side == 0 ? p.own_left : p.own_right;
                copy_tile<kHeadDim, kTileTokens, kWarpgroup>(
                    own_address + static_cast<std::uint32_t>(side) * Shared<kHeadDim>::kTileBytes,
                    tensor.row(rows.first, job.head), tensor.token_stride, rows.tokens,
                    static_cast<unsigned>(thread_of_warpgroup()));
            }
        }
    };

    take(0);
    for (std::uint32_t number = 0; job.head >= 0;) {
        float log2_sum_exp[2] = {};
        float delta[2] = {};
        if constexpr (!kOfKeys) {
            if (rows.tokens > 0) {
                const float* of_row =
                    p.statistics_of(job.head, tile) + thread_of_warpgroup() / 32 * 16 + thread_of_warpgroup() % 32 / 4;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    log2_sum_exp[half] = of_row[8 * half];
                    delta[half] = of_row[kTileTokens + 8 * half];
                }
            }
        }
        ptx::wait_copies<0>();
        ptx::order_copies_after_stores();
        ptx::sync_warpgroup(group);

        float left[kSums] = {};
        float right[kSums] = {};  // of keys only
        const auto meet = [&](std::uint32_t place, std::int32_t tokens) {
            const std::uint32_t met_address = ptx::shared_address(shared.met[place]);
            const ptx::Panels<kTileTokens> met_left(met_address);
            const ptx::Panels<kTileTokens> met_right(met_address + Shared<kHeadDim>::kTileBytes);
            float s[1][kScores];  // scores, then weights
            float d[1][kScores];  // the weights' gradients
            ptx::order_matrices();
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                ptx::multiply_bfloat16(s, own_left.over_channels(k), met_left.over_channels(k), k);
            }
            ptx::commit_matrices();
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                ptx::multiply_bfloat16(d, own_right.over_channels(k), met_right.over_channels(k), k);
            }
            ptx::commit_matrices();
            ptx::wait_matrices<1>();
            ptx::pin(s[0]);
            // A lane has rows r and r + 8, of columns 8 n + 2 quad and the next: s[4 n], s[4 n + 1] of the first row.
            const float* statistics = shared.statistics[place] + 2 * quad;
#pragma unroll
            for (int n = 0; n < kTileTokens / 8; ++n) {
                float shift[4] = {log2_sum_exp[0], log2_sum_exp[0], log2_sum_exp[1], log2_sum_exp[1]};
                if constexpr (kOfKeys) {
                    const float2 of_columns = *reinterpret_cast<const float2*>(statistics + 8 * n);
                    shift[0] = shift[2] = of_columns.x;
                    shift[1] = shift[3] = of_columns.y;
                }
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    s[0][4 * n + i] = ptx::exp2(fmaf(s[0][4 * n + i], scale, -shift[i]));
                }
            }
            if constexpr (!kOfKeys) {  // else missing columns have an infinite log-sum-exp
                if (tokens < kTileTokens) {
#pragma unroll
                    for (int i = 0; i < kScores; ++i) {
                        if (i / 4 * 8 + quad * 2 + i % 2 >= tokens) {
                            s[0][i] = 0;
                        }
                    }
                }
            }
            if constexpr (kOfKeys) {
#pragma unroll
                for (int k = 0; k < kTileSteps; ++k) {
                    std::uint32_t weights[4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        weights[i] = ptx::pack_bfloat(s[0][8 * k + 2 * i], s[0][8 * k + 2 * i + 1]);
                    }
                    ptx::order_matrices();
                    ptx::multiply_bfloat16(right, weights, met_right.over_rows(k));
                }
                ptx::commit_matrices();
                ptx::wait_matrices<1>();
            } else {
                ptx::wait_matrices<0>();
            }
            ptx::pin(d[0]);
#pragma unroll
            for (int k = 0; k < kTileSteps; ++k) {
                std::uint32_t gradients[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int at = 8 * k + 2 * i;
                    float2 less = {delta[i % 2], delta[i % 2]};
                    if constexpr (kOfKeys) {
                        less = *reinterpret_cast<const float2*>(statistics + kTileTokens + (2 * k + i / 2) * 8);
                    }
                    gradients[i] =
                        ptx::pack_bfloat(s[0][at] * (d[0][at] - less.x), s[0][at + 1] * (d[0][at + 1] - less.y));
                }
                ptx::order_matrices();
                ptx::multiply_bfloat16(left, gradients, met_left.over_rows(k));
            }
            ptx::commit_matrices();
            ptx::wait_matrices<0>();
            ptx::pin(left);
            if constexpr (kOfKeys) {
                ptx::pin(right);
            }
        };
        for (bool more = true; more; ++slot) {
            const std::uint32_t place = slot % kSlots;
            wait(shared.full[place], slot / kSlots);
            const std::uint32_t cells = same_for_warp(shared.stage[place].cells);
            const std::int32_t tokens = same_for_warp(shared.stage[place].tokens);
            more = same_for_warp(shared.stage[place].last) == 0;
            if ((cells & mine) != 0) {
                meet(place, tokens);
            }
            arrive(shared.empty[place], lane);
        }

        // The next tile comes in the place of this, which all warps have read then.
        const TokenRange done = rows;
        const std::int32_t head = job.head;
        ptx::sync_warpgroup(group);
        take(++number);
        write_tile<kHeadDim>(p.left_gradient, done, head, left, {p.scale, p.scale}, thread_of_warpgroup());
        if constexpr (kOfKeys) {
            write_tile<kHeadDim>(p.right_gradient, done, head, right, {1, 1}, thread_of_warpgroup());
        }
    }
}

}  // namespace bfloat16_hopper::backward

// For the gradients of queries or of keys and values.
template <int kHeadDim, bool kOfKeys>
__global__ void __launch_bounds__(bfloat16_hopper::backward::kThreads, 1)
    propagate_bfloat16_hopper(const __grid_constant__ BackwardParameters p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    namespace backward = bfloat16_hopper::backward;
    extern __shared__ unsigned char memory[];
    auto& shared =
        *reinterpret_cast<backward::Shared<kHeadDim>*>(memory + (1024 - ptx::shared_address(memory) % 1024) % 1024);
    if (threadIdx.x == 0) {
        constexpr std::uint32_t kConsumerWarps = backward::kConsumers * bfloat16_hopper::kWarps;
        for (int i = 0; i < backward::kSlots; ++i) {
            ptx::barrier_init(ptx::shared_address(&shared.full[i]), ptx::kWarpArrivals);
            ptx::barrier_init(ptx::shared_address(&shared.empty[i]), kConsumerWarps * ptx::kWarpArrivals);
        }
        for (int i = 0; i < backward::kJobs; ++i) {
            ptx::barrier_init(ptx::shared_address(&shared.given[i]), ptx::kWarpArrivals);
            ptx::barrier_init(ptx::shared_address(&shared.taken[i]), backward::kJobTakers * ptx::kWarpArrivals);
        }
        ptx::barrier_init_fence();
    }
    __syncthreads();
    ptx::wait_for_kernels();
    const int warp = bfloat16_hopper::same_for_warp(static_cast<int>(threadIdx.x) / 32);
    if (warp < bfloat16_hopper::kWarps) {
        ptx::shrink_registers<backward::kProducerRegisters>();
        backward::produce<kHeadDim, kOfKeys>(p, shared, static_cast<std::uint32_t>(warp));
    } else {
        ptx::grow_registers<backward::kConsumerRegisters>();
        backward::consume<kHeadDim, kOfKeys>(p, shared, warp - bfloat16_hopper::kWarps);
    }
#else
    __trap();  // resolve() chooses what the build has
#endif
}

template <int kHeadDim>
constexpr std::size_t kBackwardHopperSharedBytes = sizeof(bfloat16_hopper::backward::Shared<kHeadDim>) + 1024;
static_assert(kBackwardHopperSharedBytes<128> <= 227 * 1024);  // of a block

}  // namespace scaledit::cuda
