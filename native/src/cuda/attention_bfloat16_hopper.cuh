// Attention in bfloat16 through wgmma, for compute capability 9.x, on the caller's tensors as they lie.
//
// A persistent block has four producer warps and three consumer warpgroups. It takes one group of query tiles after the
// other; each warpgroup owns a tile of it, 64 rows, and passes over what that does not list. The key tiles that any of
// them attends to go through a ring, two to a slot, and their values through the slot after. The softmax of a warpgroup
// runs under the products of the others, and its exponentials also under its own product of the keys before.
//
// The ring cannot lock. Slots are numbered from the block's beginning: stage n has its keys in slot 2 n, its values in
// slot 2 n + 1, and slot m lies where slot m - kSlots lay. A warpgroup waits for slot m having released all before it,
// but for slot m - 1 where m is the very next: those values are still in use while it waits for the next keys, and not
// once it passes over a stage. So where m is the least slot that a warpgroup waits for, all have released what is
// before slot m - 1, slot m - kSlots among them, and the warp that fills m waits for nothing else: its earlier slots
// are full.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/hopper_tiles.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"
#include "cuda/ptx_hopper.cuh"

namespace scaledit::cuda {

struct Bfloat16HopperParameters {
    const TokenRange* tiles;
    const TileGroup* groups;
    const KeyRun* runs;
    std::int32_t group_count;
    std::int32_t long_groups;
    std::int32_t heads;
    std::int64_t tokens;
    DeviceTensor query, key, value, output;
    float* log_sum_exp;  // or null
    float scale;
};

namespace bfloat16_hopper {

constexpr int kSlots = 5;
constexpr int kConsumers = kGroupTiles;
constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
// A producer warp that has filled slot m waits for slot m + kWarps - kSlots to be released. The barrier tells odd
// phases from even ones, so what lay at that place before must have been released already: it has, being no later than
// slot m - kSlots, and slots are released in order.
static_assert(kSlots >= kWarps);
constexpr int kProducerRegisters = 32;
constexpr int kConsumerRegisters = 160;
static_assert(kWarpgroup * (kProducerRegisters + kConsumers * kConsumerRegisters) <= 65536);

constexpr int kSlotRows = 2 * kTileTokens;

// How many powers of two the shift may lag behind a row's maximum before sums are scaled down. Weights and sums have
// float32's range, and bfloat16's rounding is the same at any scale.
constexpr float kShiftSlack = 8;

// What a stage brings along with its keys.
struct Stage {
    std::uint32_t cells;     // as in KeyRun
    std::int32_t tokens[2];  // real ones of each tile
};

// A consumer warp's part of a job; in shared memory, since registers are short.
struct Work {
    std::int32_t number;  // of the job
    std::int32_t head;    // negative: there are no more
    TokenRange rows;      // of no tokens where the group has fewer tiles
    std::int32_t whole;   // its turns with two key tiles
    std::int32_t halves;  // then, with one
    std::uint32_t end;    // the first slot of the next job
};

template <int kHeadDim>
struct Shared {
    static constexpr int kPanels = kHeadDim / kPanelChannels;
    alignas(1024) std::byte slot[kSlots][kPanels][kSlotRows * kRowBytes];
    alignas(1024) std::byte query[kConsumers][kPanels][kTileTokens * kRowBytes];
    Stage stage[kSlots];  // of slots with keys
    Work work[kConsumers * kWarps];
    std::int32_t head_start[kMostBlocks];
    unsigned long long image_cost;
    std::uint64_t full[kSlots];
    std::uint64_t empty[kSlots];

    __device__ static std::uint32_t place(std::uint32_t slot) { return slot % kSlots; }
    __device__ void wait_full(std::uint32_t slot) const {
        ptx::barrier_wait(ptx::shared_address(&full[place(slot)]), slot / kSlots % 2);
    }
    // Until what lay where the slot goes is released.
    __device__ void wait_empty(std::uint32_t slot) const {
        ptx::barrier_wait(ptx::shared_address(&empty[place(slot)]), slot / kSlots % 2 ^ 1);
    }
};

// A group of tiles and a head. A negative head: there are no more.
struct Job {
    std::int32_t group;
    std::int32_t head;
};

// Which job a block takes as its number-th, by all lanes of a warp.
//
// Long groups (a group's heads one after the other) are dealt out in turn, then the image's groups (a head's one after
// the other, whose keys then stay in the cache) in rounds, of which a block passes over as many as its long jobs are
// worth, its head start. In its round r block b finds as many groups gone as other blocks had rounds before r, and
// blocks before b one in r: so each is taken once, whatever the head starts. This needs no counter in memory, and
// blocks that are at work together are at neighbouring groups.
__device__ inline Job find_job(const Bfloat16HopperParameters& p, const std::int32_t* head_start, std::int32_t number) {
    const auto block = static_cast<std::int32_t>(blockIdx.x);
    const auto blocks = static_cast<std::int32_t>(gridDim.x);
    const std::int32_t long_jobs = p.long_groups * p.heads;
    const std::int32_t long_job = block + number * blocks;
    if (long_job < long_jobs) {
        return {long_job / p.heads, long_job % p.heads};
    }
    const std::int32_t round = head_start[block] + number - (long_jobs - block + blocks - 1) / blocks;
    unsigned gone = 0;
    for (auto other = static_cast<std::int32_t>(threadIdx.x % 32); other < blocks; other += 32) {
        const std::int32_t rounds = round - head_start[other];
        gone += max(rounds, 0) + (rounds >= 0 && other < block ? 1 : 0);
    }
    const auto job = static_cast<std::int32_t>(__reduce_add_sync(0xffffffffU, gone));
    const std::int32_t groups = p.group_count - p.long_groups;
    return job < groups * p.heads ? Job{p.long_groups + job % groups, job / groups} : Job{0, -1};
}

// Tiles of products: the matrix units are the limit.
__device__ inline std::int32_t cost(const TileGroup& group) {
    std::int32_t tiles = 0;
#pragma unroll
    for (int i = 0; i < kGroupTiles; ++i) {
        tiles += 2 * group.whole[i] + group.halves[i];
    }
    return tiles;
}

// The head start of every block, by all threads of each: integers, so that all blocks agree. image_cost is 0 before.
template <int kHeadDim>
__device__ inline void find_head_starts(const Bfloat16HopperParameters& p, Shared<kHeadDim>& shared) {
    const auto thread = static_cast<std::int32_t>(threadIdx.x);
    const auto blocks = static_cast<std::int32_t>(gridDim.x);
    unsigned long long image = 0;
    for (std::int32_t group = p.long_groups + thread; group < p.group_count; group += kThreads) {
        image += static_cast<unsigned>(cost(p.groups[group]));
    }
    atomicAdd(&shared.image_cost, image);
    __syncthreads();
    if (thread < blocks) {
        unsigned long long before = 0;
        for (std::int32_t job = thread; job < p.long_groups * p.heads; job += blocks) {
            before += static_cast<unsigned>(cost(p.groups[job / p.heads]));
        }
        const auto groups = static_cast<unsigned>(p.group_count - p.long_groups);
        shared.head_start[thread] =
            static_cast<std::int32_t>((before * groups + shared.image_cost / 2) / shared.image_cost);
    }
    __syncthreads();
}

// Fills every fourth slot: those with the keys, or the values, of every other stage.
template <int kHeadDim, bool kValues>
__device__ inline void produce(const Bfloat16HopperParameters& p, Shared<kHeadDim>& shared, std::uint32_t first_stage) {
    constexpr std::uint32_t kTileBytes = kTileTokens * kRowBytes;  // of a panel
    const DeviceTensor& tensor = kValues ? p.value : p.key;
    const unsigned lane = threadIdx.x % 32;
    std::uint32_t stage = 0;
    for (std::int32_t number = 0;; ++number) {
        const Job job = find_job(p, shared.head_start, number);
        if (job.head < 0) {
            return;
        }
        const std::int32_t runs_end = p.groups[job.group].runs_end;
        for (std::int32_t first = p.groups[job.group].runs_first; first < runs_end; first += 32) {
            KeyRun mine{};
            if (first + lane < runs_end) {
                mine = p.runs[first + lane];
            }
            for (std::int32_t i = 0; i < min(32, runs_end - first); ++i) {
                const std::int32_t stages = __shfl_sync(0xffffffffU, mine.stages, i);
                for (auto t = static_cast<std::int32_t>((stage ^ first_stage) % 2); t < stages; t += 2) {
                    const std::uint32_t slot = 2 * (stage + static_cast<std::uint32_t>(t)) + (kValues ? 1 : 0);
                    const std::uint32_t place = shared.place(slot);
                    // A lane knows one tile.
                    const std::int32_t one = __shfl_sync(0xffffffffU, mine.first, i);
                    const std::int32_t other = __shfl_sync(0xffffffffU, mine.second, i);
                    const std::int32_t tile = lane == 0 ? one : other;
                    const TokenRange range = lane < 2 && tile >= 0 ? p.tiles[tile + 2 * t] : TokenRange{0, 0};
                    shared.wait_empty(slot);
#pragma unroll 1
                    for (int half = 0; half < (other < 0 ? 1 : 2); ++half) {
                        copy_tile<kHeadDim, kSlotRows, 32>(
                            ptx::shared_address(shared.slot[place]) + half * kTileBytes,
                            tensor.row(__shfl_sync(0xffffffffU, range.first, half), job.head), tensor.token_stride,
                            __shfl_sync(0xffffffffU, range.tokens, half), lane);
                    }
                    if (!kValues) {
                        const std::uint32_t cells = __shfl_sync(0xffffffffU, mine.cells, i);
                        if (lane == 0) {
                            shared.stage[place].cells = cells;
                        }
                        if (lane < 2) {
                            shared.stage[place].tokens[lane] = range.tokens;
                        }
                    }
                    ptx::wait_copies<0>();
                    ptx::order_copies_after_stores();  // and matrix instructions, which read the same way
                    ptx::warp_arrive(ptx::shared_address(&shared.full[place]), static_cast<int>(lane));
                }
                stage += static_cast<std::uint32_t>(stages);
            }
        }
    }
}

template <int kHeadDim>
__device__ inline void consume(const Bfloat16HopperParameters& p, Shared<kHeadDim>& shared, int warp) {
    constexpr int kSteps = kHeadDim / 16;
    constexpr int kTileSteps = kTileTokens / 16;
    constexpr int kScores = kTileTokens / 2;  // of a lane, for a key tile
    constexpr int kSums = kHeadDim / 2;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int group = warp / kWarps;
    const std::uint32_t mine = 1U << group;
    const float scale = p.scale * ptx::kLog2E;
    const std::uint32_t query_address = ptx::shared_address(shared.query[group]);
    const ptx::Panels<kTileTokens> query(query_address);
    Work& work = shared.work[warp];
    std::uint32_t slot = 0;  // the next; odd: values that are in use or come next

    const auto release = [&] {
        ptx::warp_arrive(ptx::shared_address(&shared.empty[shared.place(slot)]), lane);
        ++slot;
    };
    const auto pass = [&] {
        shared.wait_full(slot);
        release();
    };
    // For which tiles the keys in a slot are, once they are there.
    const auto look = [&](std::uint32_t at) {
        shared.wait_full(at);
        return same_for_warp(shared.stage[shared.place(at)].cells);
    };
    // Notes down a job that begins with a slot, and has its queries copied.
    const auto take = [&](std::int32_t number, std::uint32_t begin) {
        const Job job = find_job(p, shared.head_start, number);
        Work next{number, job.head, {0, 0}, 0, 0, begin};
        if (job.head >= 0) {
            const TileGroup& tiles = p.groups[job.group];
            next.whole = tiles.whole[group];
            next.halves = tiles.halves[group];
            next.end += 2 * static_cast<std::uint32_t>(tiles.stages);
            if (tiles.tile[group] >= 0) {
                next.rows = p.tiles[tiles.tile[group]];
                copy_tile<kHeadDim, kTileTokens, kWarpgroup>(query_address, p.query.row(next.rows.first, job.head),
                                                             p.query.token_stride, next.rows.tokens,
                                                             static_cast<unsigned>(thread_of_warpgroup()));
            }
        }
        __syncwarp();
        if (lane == 0) {
            work = next;
        }
        __syncwarp();
    };

    take(0, 0);
    while (work.head >= 0) {
        ptx::wait_copies<0>();
        ptx::order_copies_after_stores();
        ptx::sync_warpgroup(group);

        float out[kSums] = {};
        float shift[2] = {-INFINITY, -INFINITY};
        float sum[2] = {0, 0};

        // Where a row's maximum moves away from its shift, the sums so far shrink.
        const auto move_shift = [&](const auto& s) {
            float largest[2];
            bool moves = false;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float most = -INFINITY;
#pragma unroll
                for (const auto& of : s) {
                    float of_tile = fmaxf(of[2 * half], of[2 * half + 1]);
#pragma unroll
                    for (int n = 1; n < kTileTokens / 8; ++n) {
                        of_tile = fmaxf(of_tile, fmaxf(of[4 * n + 2 * half], of[4 * n + 2 * half + 1]));
                    }
                    most = fmaxf(most, of_tile);
                }
                most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
                largest[half] = most * scale;
                moves = moves || largest[half] > shift[half] + kShiftSlack;
            }
            if (__any_sync(0xffffffffU, moves)) {
                float shrink[2];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float moved = fmaxf(shift[half], largest[half]);
                    shrink[half] = ptx::exp2(shift[half] - moved);
                    shift[half] = moved;
                    sum[half] *= shrink[half];
                }
#pragma unroll
                for (int i = 0; i < kSums; ++i) {
                    out[i] *= shrink[i / 2 % 2];
                }
            }
        };
        // A tile's scores become weights, in the order in which their product with the tile's values takes them.
        // Sixteen keys at a time: the next exponentials run under the product before.
        const auto weigh = [&](const float(&s)[kScores], int tile) {
            const ptx::Panels<kSlotRows> value(ptx::shared_address(shared.slot[shared.place(slot)]));
            float part[4] = {0, 0, 0, 0};
#pragma unroll
            for (int k = 0; k < kTileSteps; ++k) {
                std::uint32_t weights[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int half = i % 2;
                    const float low = ptx::exp2(fmaf(s[8 * k + 2 * i], scale, -shift[half]));
                    const float high = ptx::exp2(fmaf(s[8 * k + 2 * i + 1], scale, -shift[half]));
                    part[2 * half] += low;
                    part[2 * half + 1] += high;
                    weights[i] = ptx::pack_bfloat(low, high);
                }
                ptx::order_matrices();
                ptx::multiply_bfloat16(out, weights, value.over_rows(tile * kTileSteps + k));
            }
            ptx::commit_matrices();
            sum[0] += part[0] + part[1];
            sum[1] += part[2] + part[3];
        };
        std::uint32_t cells = 0;
        const auto turn = [&](auto count, bool last) {
            constexpr int kTiles = decltype(count)::value;
            while ((cells & mine) == 0) {
                pass();
                pass();
                cells = look(slot);
            }
            float s[kTiles][kScores];
            const ptx::Panels<kSlotRows> key(ptx::shared_address(shared.slot[shared.place(slot)]));
            ptx::order_matrices();
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                ptx::multiply_bfloat16(s, query.over_channels(k), key.over_channels(k), k);
            }
            ptx::commit_matrices();
            std::int32_t tokens[kTiles];
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                tokens[t] = same_for_warp(shared.stage[shared.place(slot)].tokens[t]);
            }
            ptx::wait_matrices<0>();
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                ptx::pin(s[t]);
            }
            release();
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
                if (tokens[t] < kTileTokens) {
#pragma unroll
                    for (int i = 0; i < kScores; ++i) {
                        if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= tokens[t]) {
                            s[t][i] = -INFINITY;
                        }
                    }
                }
            }
            move_shift(s);
            shared.wait_full(slot);
            weigh(s[0], 0);
            const std::uint32_t next = same_for_warp(slot + 1);
            if (!last) {
                cells = look(next);
            }
            if constexpr (kTiles == 2) {
                weigh(s[1], 1);
            }
            // Here, and not in the next turn: with the wait there and a branch on the way, nvcc 13.0 gave registers of
            // weights whose product was under way to others.
            ptx::wait_matrices<0>();
            ptx::pin(out);
            release();
            slot = next;
        };
        std::int32_t whole = same_for_warp(work.whole);
        std::int32_t halves = same_for_warp(work.halves);
        if (whole + halves > 0) {
            cells = look(slot);
        }
        while (--whole >= 0) {
            turn(std::integral_constant<int, 2>(), whole + halves == 0);
        }
        while (--halves >= 0) {
            turn(std::integral_constant<int, 1>(), halves == 0);
        }

        // The next queries come in the place of these, which all warps have read then.
        const Work done = work;
        const std::uint32_t end = same_for_warp(done.end);
        ptx::sync_warpgroup(group);
        take(done.number + 1, end);

        const int thread = thread_of_warpgroup();
        float share[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float all = sum[half];
            all += __shfl_xor_sync(0xffffffffU, all, 1);
            all += __shfl_xor_sync(0xffffffffU, all, 2);
            share[half] = 1 / all;
            const int row = thread / 32 * 16 + thread % 32 / 4 + 8 * half;
            if (p.log_sum_exp != nullptr && thread % 4 == 0 && row < done.rows.tokens) {
                p.log_sum_exp[done.head * p.tokens + done.rows.first + row] =
                    fmaf(shift[half], 1 / ptx::kLog2E, logf(all));
            }
        }
        write_tile<kHeadDim>(p.output, done.rows, done.head, out, share, thread);
        while (slot != end) {
            pass();
        }
    }
}

}  // namespace bfloat16_hopper

template <int kHeadDim>
__global__ void __launch_bounds__(bfloat16_hopper::kThreads, 1)
    attend_bfloat16_hopper(const __grid_constant__ Bfloat16HopperParameters p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char memory[];
    auto& shared = *reinterpret_cast<bfloat16_hopper::Shared<kHeadDim>*>(
        memory + (1024 - ptx::shared_address(memory) % 1024) % 1024);
    if (threadIdx.x == 0) {
        constexpr std::uint32_t kConsumerWarps = bfloat16_hopper::kConsumers * bfloat16_hopper::kWarps;
        for (int i = 0; i < bfloat16_hopper::kSlots; ++i) {
            ptx::barrier_init(ptx::shared_address(&shared.full[i]), ptx::kWarpArrivals);
            ptx::barrier_init(ptx::shared_address(&shared.empty[i]), kConsumerWarps * ptx::kWarpArrivals);
        }
        ptx::barrier_init_fence();
        shared.image_cost = 0;
    }
    __syncthreads();
    bfloat16_hopper::find_head_starts(p, shared);
    const int warp = bfloat16_hopper::same_for_warp(static_cast<int>(threadIdx.x) / 32);
    if (warp < bfloat16_hopper::kWarps) {
        ptx::shrink_registers<bfloat16_hopper::kProducerRegisters>();
        if (warp % 2 == 0) {
            bfloat16_hopper::produce<kHeadDim, false>(p, shared, warp / 2);
        } else {
            bfloat16_hopper::produce<kHeadDim, true>(p, shared, warp / 2);
        }
    } else {
        ptx::grow_registers<bfloat16_hopper::kConsumerRegisters>();
        bfloat16_hopper::consume(p, shared, warp - bfloat16_hopper::kWarps);
    }
#else
    __trap();  // resolve() chooses what the build has
#endif
}

template <int kHeadDim>
constexpr std::size_t kBfloat16HopperSharedBytes = sizeof(bfloat16_hopper::Shared<kHeadDim>) + 1024;
static_assert(kBfloat16HopperSharedBytes<128> <= 227 * 1024);  // of a block

}  // namespace scaledit::cuda
