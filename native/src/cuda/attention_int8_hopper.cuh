// Attention over packed tiles (packed.h) on Hopper: Q K^T in INT8 and P V in FP8 through wgmma.
//
// A persistent block has a producer warp and three consumer warpgroups. The producer takes a group of query tiles after
// the other and copies the key tiles that any of them attends to into a ring, two to a stage; each warpgroup owns one
// query tile, 64 rows, and passes over stages that its tile does not list. The softmax
// of one warpgroup runs under the products of the others.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"
#include "cuda/ptx_hopper.cuh"

namespace scaledit::cuda {

struct Int8Parameters {
    const TokenRange* tiles;
    const TileGroup* groups;
    const KeyRun* runs;
    std::int32_t tile_count;
    std::int32_t group_count;
    std::int32_t long_groups;
    std::int32_t heads;
    std::int64_t tokens;
    DeviceTensor output;
    float* log_sum_exp;  // or null
    std::byte* workspace;
    Workspace at;
};

namespace hopper {

constexpr int kStages = 4;
constexpr int kJobs = 2;  // groups whose queries are in shared memory
constexpr int kConsumers = kGroupTiles;
constexpr int kGroupThreads = 128;
constexpr int kThreads = (1 + kConsumers) * kGroupThreads;
constexpr int kProducerRegisters = 32;
constexpr int kConsumerRegisters = 160;
static_assert(kGroupThreads * (kProducerRegisters + kConsumers * kConsumerRegisters) <= 65536);

// Weights are computed as 2^(s - shift + kWeightExponent), where the shift may lag up to kShiftSlack behind the row's
// maximum: the largest then is below the 448 = 2^8.8 of e4m3.
constexpr float kWeightExponent = 6;
constexpr float kShiftSlack = 2.75F;

// FP8 products are summed with few bits: after so many turns the sum is added to a float32 one.
constexpr int kFlushTurns = 12;

// Bits of 1.5 * 2^23: a sum of INT8 products added to them reads as the float 1.5 * 2^23 + sum. The conversion
// instruction would wait on the pipe that the exponentials need.
constexpr std::uint32_t kMagicBits = 0x4b400000U;
constexpr float kMagic = 12582912.0F;
// A score that becomes minus infinity on the same way, and is less than any other as an integer.
constexpr std::uint32_t kNoScore = 0xff800000U - kMagicBits;

struct Job {
    std::int32_t head;                // negative: there are no more
    std::int32_t stages;              // in all, of which a tile passes some over
    std::int32_t whole[kConsumers];   // stages of two key tiles that each attends to
    std::int32_t halves[kConsumers];  // then, stages of one
    std::int32_t first[kConsumers];   // token
    std::int32_t tokens[kConsumers];
    std::int32_t tile[kConsumers];
};

template <int kHeadDim>
struct Shared {
    static constexpr int kTileBytes = kTileTokens * kHeadDim;
    alignas(1024) std::byte key[kStages][2 * kTileBytes];
    alignas(1024) std::byte value[kStages][2 * kTileBytes];
    alignas(1024) std::byte query[kJobs][kConsumers][kTileBytes];  // then the output on its way
    alignas(128) KeyRecord record[kStages][2];
    alignas(128) float query_scale[kJobs][kConsumers][kTileTokens];
    alignas(128) float value_limit[kJobs][kHeadDim];
    Job job[kJobs];
    std::uint32_t cells[kStages];
    alignas(8) std::uint64_t full[kStages];
    std::uint64_t empty[kStages];
    std::uint64_t job_full[kJobs];
    std::uint64_t job_empty[kJobs];
};

template <int kNumber>
using Count = std::integral_constant<int, kNumber>;

// A place in a ring, and the parity of the barrier's phase there.
template <int kSize>
struct Place {
    int index = 0;
    std::uint32_t parity = 0;
    __device__ void advance() {
        if (++index == kSize) {
            index = 0;
            parity ^= 1;
        }
    }
};

template <int kHeadDim>
__device__ inline void produce(const Int8Parameters& p, Shared<kHeadDim>& shared) {
    constexpr std::uint32_t kTileBytes = Shared<kHeadDim>::kTileBytes;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::int32_t jobs = p.group_count * p.heads;
    const std::int32_t long_jobs = p.long_groups * p.heads;
    const auto take = [&] {
        std::int32_t taken = 0;
        if (lane == 0) {
            taken = atomicAdd(reinterpret_cast<std::int32_t*>(p.workspace + p.at.next), 1);
        }
        return __shfl_sync(0xffffffffU, taken, 0);
    };
    Place<kStages> stage;
    Place<kJobs> slot;
    std::int32_t taken = take();
    for (;;) {
        ptx::barrier_wait(ptx::shared_address(&shared.job_empty[slot.index]), slot.parity ^ 1);
        const std::uint32_t job_full = ptx::shared_address(&shared.job_full[slot.index]);
        if (taken >= jobs) {
            if (lane == 0) {
                shared.job[slot.index].head = -1;
                ptx::barrier_arrive(job_full);
            }
            return;
        }
        // Long groups: a group's heads one after the other. The image's: a head's groups, whose keys then stay in the
        // cache.
        const std::int32_t image_groups = p.group_count - p.long_groups;
        const std::int32_t rest = taken - long_jobs;
        const int head = rest < 0 ? taken % p.heads : rest / image_groups;
        const TileGroup& group = p.groups[rest < 0 ? taken / p.heads : p.long_groups + rest % image_groups];
        const auto tile_at = [&](int tile) { return static_cast<std::size_t>(head) * p.tile_count + tile; };

        Job& job = shared.job[slot.index];
        const std::int32_t own = lane < kConsumers ? group.tile[lane] : -1;
        if (lane < kConsumers) {
            const TokenRange range = own >= 0 ? p.tiles[own] : TokenRange{0, 0};
            job.tile[lane] = own;
            job.first[lane] = range.first;
            job.tokens[lane] = range.tokens;
            job.whole[lane] = group.whole[lane];
            job.halves[lane] = group.halves[lane];
        }
        const std::int32_t tiles = __popc(__ballot_sync(0xffffffffU, own >= 0));
        if (lane == 0) {
            job.head = head;
            job.stages = group.stages;
        }
        __syncwarp();
        constexpr std::uint32_t kScaleBytes = kTileTokens * sizeof(float);
        constexpr std::uint32_t kLimitBytes = kHeadDim * sizeof(float);
        if (lane == 0) {
            ptx::barrier_arrive_expect(job_full, tiles * (kTileBytes + kScaleBytes) + kLimitBytes);
            ptx::copy_bulk(ptx::shared_address(shared.value_limit[slot.index]),
                           p.workspace + p.at.value_limits + head * kLimitBytes, kLimitBytes, job_full);
        }
        __syncwarp();
        if (own >= 0) {
            const std::size_t at = tile_at(own);
            ptx::copy_bulk(ptx::shared_address(shared.query[slot.index][lane]),
                           p.workspace + p.at.query + at * kTileBytes, kTileBytes, job_full);
            ptx::copy_bulk(ptx::shared_address(shared.query_scale[slot.index][lane]),
                           p.workspace + p.at.query_scale + at * kScaleBytes, kScaleBytes, job_full);
        }
        slot.advance();

        const std::int32_t runs_first = group.runs_first;
        const std::int32_t runs_end = group.runs_end;
        for (std::int32_t first = runs_first; first < runs_end; first += 32) {
            KeyRun mine{};
            if (first + lane < runs_end) {
                mine = p.runs[first + lane];
            }
            const std::int32_t runs = min(32, runs_end - first);
            for (std::int32_t i = 0; i < runs; ++i) {
                std::int32_t one = __shfl_sync(0xffffffffU, mine.first, i);
                std::int32_t other = __shfl_sync(0xffffffffU, mine.second, i);
                const std::int32_t stages = __shfl_sync(0xffffffffU, mine.stages, i);
                const std::uint32_t cells = __shfl_sync(0xffffffffU, mine.cells, i);
                // A lane copies one tile.
                const std::uint32_t copies = other < 0 ? 1 : 2;
                std::int32_t tile = lane == 0 ? one : other;
                for (std::int32_t t = 0; t < stages; ++t, stage.advance(), tile += 2) {
                    ptx::barrier_wait(ptx::shared_address(&shared.empty[stage.index]), stage.parity ^ 1);
                    const std::uint32_t full = ptx::shared_address(&shared.full[stage.index]);
                    if (lane == 0) {
                        shared.cells[stage.index] = cells;
                        ptx::barrier_arrive_expect(full, copies * (2 * kTileBytes + sizeof(KeyRecord)));
                    }
                    __syncwarp();
                    if (lane < copies) {
                        const std::size_t at = tile_at(tile);
                        ptx::copy_bulk(ptx::shared_address(shared.key[stage.index] + lane * kTileBytes),
                                       p.workspace + p.at.key + at * kTileBytes, kTileBytes, full);
                        ptx::copy_bulk(ptx::shared_address(&shared.record[stage.index][lane]),
                                       p.workspace + p.at.key_record + at * sizeof(KeyRecord), sizeof(KeyRecord), full);
                        ptx::copy_bulk(ptx::shared_address(shared.value[stage.index] + lane * kTileBytes),
                                       p.workspace + p.at.value + at * kTileBytes, kTileBytes, full);
                    }
                    __syncwarp();
                }
                if (first + i == runs_first) {
                    taken = take();  // here its answer is waited for while the ring is full
                }
            }
        }
    }
}

template <int kHeadDim>
__device__ inline void consume(const Int8Parameters& p, Shared<kHeadDim>& shared, int group) {
    constexpr int kSteps = kHeadDim / 32;
    constexpr int kScores = kTileTokens;  // of a lane, for two key tiles
    constexpr int kSums = kHeadDim / 2;
    constexpr std::uint32_t kTileBytes = Shared<kHeadDim>::kTileBytes;
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    const int lane = thread % 32;
    const int warp_row = thread / 32 * 16;
    const std::uint32_t mine = 1U << group;
    Place<kStages> stage;
    Place<kJobs> slot;

    const auto release = [&](int index) {
        __syncwarp();
        if (lane == 0) {
            ptx::barrier_arrive(ptx::shared_address(&shared.empty[index]));
        }
    };

    for (;;) {
        ptx::barrier_wait(ptx::shared_address(&shared.job_full[slot.index]), slot.parity);
        const Job& job = shared.job[slot.index];
        if (job.head < 0) {
            return;
        }
        int ahead = job.stages;  // of this job, own or not
        int whole = job.whole[group];
        int halves = job.halves[group];

        // The next stage that the tile lists.
        const auto take = [&] {
            for (;;) {
                ptx::barrier_wait(ptx::shared_address(&shared.full[stage.index]), stage.parity);
                const int index = stage.index;
                stage.advance();
                --ahead;
                if ((shared.cells[index] & mine) != 0) {
                    return index;
                }
                release(index);
            }
        };

        if (whole + halves > 0) {
            float query_scale[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                query_scale[half] = shared.query_scale[slot.index][group][warp_row + lane / 4 + 8 * half];
            }
            std::uint32_t s[kScores];
            std::uint32_t weights[4][4];
            float out[kSums];
            float shift[2] = {-INFINITY, -INFINITY};
            float sum[2] = {0, 0};
            float total_shift[2];
            bool flushed = false;
            int turns = 0;

            const ptx::Matrix<kHeadDim> query(ptx::shared_address(shared.query[slot.index][group]));
            const auto issue_scores = [&](auto count, int index) {
                constexpr int kTiles = decltype(count)::value;
                const ptx::Matrix<kHeadDim> key(ptx::shared_address(shared.key[index]));
                ptx::order_matrices();
#pragma unroll
                for (int k = 0; k < kSteps; ++k) {
                    ptx::multiply_int8<kTiles * kTileTokens>(s, query.step(k), key.step(k), k);
                }
                ptx::commit_matrices();
            };
            const auto issue_values = [&](auto count, int index) {
                constexpr int kTiles = decltype(count)::value;
                ptx::order_matrices();
#pragma unroll
                for (int k = 0; k < 2 * kTiles; ++k) {
                    const ptx::Matrix<kTileTokens> value(ptx::shared_address(shared.value[index]) + k / 2 * kTileBytes);
                    ptx::multiply_fp8(out, weights[k], value.step(k % 2), k == 0 ? turns != 0 : 1);
                }
                ptx::commit_matrices();
            };
            // Scores become weights. Where the shift moves, the sums so far shrink.
            const auto soften = [&](auto count, int index) {
                constexpr int kTiles = decltype(count)::value;
                float scale[kTiles];
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const KeyRecord& record = shared.record[index][t];
                    scale[t] = record.scale[lane % 4];
                    if (record.tokens < kTileTokens) {
#pragma unroll
                        for (int i = 0; i < kScores / 2; ++i) {
                            if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= record.tokens) {
                                s[t * kScores / 2 + i] = kNoScore;
                            }
                        }
                    }
                }
                float largest[2];
                bool moves = false;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float most = 0;
#pragma unroll
                    for (int t = 0; t < kTiles; ++t) {
                        const std::uint32_t* of = s + t * kScores / 2 + 2 * half;
                        auto of_tile = static_cast<std::int32_t>(of[0]);
#pragma unroll
                        for (int n = 0; n < kTileTokens / 8; ++n) {
                            of_tile = __vimax3_s32(of_tile, static_cast<std::int32_t>(of[4 * n]),
                                                   static_cast<std::int32_t>(of[4 * n + 1]));
                        }
                        const float most_of_tile = __int2float_rn(of_tile) * scale[t];
                        most = t == 0 ? most_of_tile : fmaxf(most, most_of_tile);
                    }
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
                    largest[half] = most * query_scale[half];
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
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float part[2] = {0, 0};
#pragma unroll
                    for (int t = 0; t < kTiles; ++t) {
                        const float factor = query_scale[half] * scale[t];
                        const float offset = fmaf(-kMagic, factor, kWeightExponent - shift[half]);
#pragma unroll
                        for (int n = 0; n < kTileTokens / 8; ++n) {
#pragma unroll
                            for (int i = 0; i < 2; ++i) {
                                std::uint32_t& score = s[t * kScores / 2 + 4 * n + 2 * half + i];
                                const float weight =
                                    ptx::exp2(fmaf(__uint_as_float(score + kMagicBits), factor, offset));
                                part[i] += weight;
                                score = __float_as_uint(weight);
                            }
                        }
                    }
                    sum[half] += part[0] + part[1];
                }
            };
            const auto pack_weights = [&](auto count) {
                constexpr int kTiles = decltype(count)::value;
                const auto four = [&](int k, int n, int half) {
                    const std::uint32_t* from = s + (k * 4 + n) * 4 + 2 * half;
                    return ptx::pack_fp8(__uint_as_float(from[0]), __uint_as_float(from[1]), __uint_as_float(from[4]),
                                         __uint_as_float(from[5]));
                };
#pragma unroll
                for (int k = 0; k < 2 * kTiles; ++k) {
                    weights[k][0] = four(k, 0, 0);
                    weights[k][1] = four(k, 0, 1);
                    weights[k][2] = four(k, 2, 0);
                    weights[k][3] = four(k, 2, 1);
                }
            };
            // The sums of earlier turns, in the workspace: each thread has its own.
            const auto total = [&](int i) {
                return reinterpret_cast<float4*>(p.workspace + p.at.totals) +
                       ((blockIdx.x * kConsumers + group) * (kSums / 4) + i) * kGroupThreads + thread;
            };
            const auto add_total = [&] {
                float worth[2];  // of what was kept, now
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    worth[half] = ptx::exp2(total_shift[half] - shift[half]);
                }
#pragma unroll
                for (int i = 0; i < kSums / 4; ++i) {
                    const float4 before = *total(i);
                    out[4 * i] = fmaf(before.x, worth[0], out[4 * i]);
                    out[4 * i + 1] = fmaf(before.y, worth[0], out[4 * i + 1]);
                    out[4 * i + 2] = fmaf(before.z, worth[1], out[4 * i + 2]);
                    out[4 * i + 3] = fmaf(before.w, worth[1], out[4 * i + 3]);
                }
            };
            const auto count_turn = [&] {
                if (++turns < kFlushTurns) {
                    return;
                }
                if (flushed) {
                    add_total();
                }
#pragma unroll
                for (int i = 0; i < kSums / 4; ++i) {
                    *total(i) = {out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]};
                }
                total_shift[0] = shift[0];
                total_shift[1] = shift[1];
                flushed = true;
                turns = 0;
            };
            int held = -1;  // the stage whose P V is under way
            const auto finish = [&] {
                ptx::wait_matrices<0>();
                ptx::pin(out);
                if (held >= 0) {
                    release(held);
                    count_turn();
                }
            };
            const auto turn = [&](auto count) {
                finish();  // so nothing is held while waiting: the ring cannot lock
                const int now = take();
                issue_scores(count, now);
                ptx::wait_matrices<0>();
                ptx::pin(s);
                soften(count, now);
                pack_weights(count);
                issue_values(count, now);
                held = now;
            };
            while (--whole >= 0) {
                turn(Count<2>());
            }
            while (--halves >= 0) {
                turn(Count<1>());
            }
            finish();
            if (turns == 0) {
#pragma unroll
                for (float& x : out) {
                    x = 0;
                }
            }
            if (flushed) {
                add_total();
            }

            // To 16-byte stores through the queries' memory, of which each warp has a part: half of the channels at a
            // time.
            ptx::sync_warpgroup(group);
            constexpr int kChunks = kHeadDim / 16;
            std::byte* staged = shared.query[slot.index][group] + warp_row * kHeadDim;
            float share[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float all = sum[half];
                all += __shfl_xor_sync(0xffffffffU, all, 1);
                all += __shfl_xor_sync(0xffffffffU, all, 2);
                share[half] = 1 / (all * kFp8Limit);
                const int row = warp_row + lane / 4 + 8 * half;
                if (p.log_sum_exp != nullptr && lane % 4 == 0 && row < job.tokens[group]) {
                    const std::size_t at = static_cast<std::size_t>(job.head) * p.tile_count + job.tile[group];
                    const float with_mean =
                        reinterpret_cast<const float*>(p.workspace + p.at.query_mean)[at * kTileTokens + row];
                    p.log_sum_exp[job.head * p.tokens + job.first[group] + row] =
                        fmaf(shift[half] - kWeightExponent, 1 / ptx::kLog2E, logf(all)) + with_mean;
                }
            }
#pragma unroll
            for (int pass = 0; pass < 2; ++pass) {
#pragma unroll
                for (int n = 0; n < kChunks; ++n) {
                    const int of = pass * kChunks + n;
                    const float2 limit =
                        *reinterpret_cast<const float2*>(&shared.value_limit[slot.index][8 * of + lane % 4 * 2]);
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int row = lane / 4 + 8 * half;
                        *reinterpret_cast<std::uint32_t*>(staged + (row * kChunks + (n ^ (row % kChunks))) * 16 +
                                                          lane % 4 * 4) =
                            ptx::pack_bfloat(out[4 * of + 2 * half] * share[half] * limit.x,
                                             out[4 * of + 2 * half + 1] * share[half] * limit.y);
                    }
                }
                __syncwarp();
#pragma unroll
                for (int i = 0; i < 16 * kChunks / 32; ++i) {
                    const int row = (i * 32 + lane) / kChunks;
                    const int chunk = (i * 32 + lane) % kChunks;
                    if (warp_row + row < job.tokens[group]) {
                        *reinterpret_cast<uint4*>(p.output.row(job.first[group] + warp_row + row, job.head) +
                                                  (pass * kChunks + chunk) * 8) =
                            *reinterpret_cast<const uint4*>(staged + (row * kChunks + (chunk ^ (row % kChunks))) * 16);
                    }
                }
                __syncwarp();
            }
            ptx::order_copies_after_stores();
        }
        __syncwarp();
        if (lane == 0) {
            ptx::barrier_arrive(ptx::shared_address(&shared.job_empty[slot.index]));
        }
        slot.advance();
        for (; ahead > 0; --ahead, stage.advance()) {
            ptx::barrier_wait(ptx::shared_address(&shared.full[stage.index]), stage.parity);
            release(stage.index);
        }
    }
}

}  // namespace hopper

template <int kHeadDim>
__global__ void __launch_bounds__(hopper::kThreads, 1) attend_int8_hopper(const __grid_constant__ Int8Parameters p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char memory[];
    auto& shared =
        *reinterpret_cast<hopper::Shared<kHeadDim>*>(memory + (1024 - ptx::shared_address(memory) % 1024) % 1024);
    if (threadIdx.x == 0) {
        constexpr std::uint32_t kConsumerWarps = hopper::kConsumers * hopper::kGroupThreads / 32;
        for (int i = 0; i < hopper::kStages; ++i) {
            ptx::barrier_init(ptx::shared_address(&shared.full[i]), 1);
            ptx::barrier_init(ptx::shared_address(&shared.empty[i]), kConsumerWarps);
        }
        for (int i = 0; i < hopper::kJobs; ++i) {
            ptx::barrier_init(ptx::shared_address(&shared.job_full[i]), 1);
            ptx::barrier_init(ptx::shared_address(&shared.job_empty[i]), kConsumerWarps);
        }
        ptx::barrier_init_fence();
    }
    __syncthreads();
    // Through a shuffle: so the compiler sees that it is the same for a warp, and so is all that follows from it.
    const int group = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / hopper::kGroupThreads, 0);
    if (group == 0) {
        ptx::shrink_registers<hopper::kProducerRegisters>();
        if (threadIdx.x < 32) {
            hopper::produce<kHeadDim>(p, shared);
        }
    } else {
        ptx::grow_registers<hopper::kConsumerRegisters>();
        hopper::consume<kHeadDim>(p, shared, group - 1);
    }
#endif
}

template <int kHeadDim>
constexpr std::size_t kHopperSharedBytes = sizeof(hopper::Shared<kHeadDim>) + 1024;

}  // namespace scaledit::cuda
