// Attention over packed tiles (packed.h) on Hopper: Q K^T in INT8 and P V in FP8 through wgmma.
//
// A persistent block has a producer warp and three consumer warpgroups. The producer takes a group of query tiles after
// the other and copies the key tiles that any of them attends to into a ring, two to a stage; each warpgroup owns one
// query tile, 64 rows, and passes over stages that its tile does not list. The warpgroups take turns at the
// exponentials, in the order of the tiles' stages, so the softmax of one runs under the products of the others.
// tests/native/int8_hopper_schedule_test.cpp steps through who waits for whom.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/prepare.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ptx_hopper.cuh"

namespace scaledit::cuda {

// A launch may do groups as a whole, or parts of them: each part is then a job of its own, whose rows go to rows of
// their own of the output, [group_count][parts][kGroupTiles][kTileTokens] for each head.
struct Int8Parameters {
    const TokenRange* tiles;
    const TileGroup* groups;
    const KeyRun* runs;
    std::int32_t tile_count;
    std::int32_t group_count;
    std::int32_t long_groups;  // all of them if there are parts
    std::int32_t parts;        // of each group
    bool beside_parts;         // the kernel right before is that of the parts, which need not have ended
    std::int32_t heads;
    std::int64_t tokens;
    DeviceTensor output;
    float* log_sum_exp;  // [heads, tokens], or null
    std::int32_t* next;  // jobs that are given out
    std::byte* workspace;
    Workspace at;
};

namespace hopper {

constexpr int kStages = 4;
static_assert(kStages >= 2);  // a warpgroup waits for the next stage before it gives back the last one
constexpr int kJobs = 2;      // groups whose queries are in shared memory
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

// Bits of 1.5 * 2^23: a sum of INT8 products added to them reads as the float 1.5 * 2^23 + sum. The conversion
// instruction would wait on the pipe that the exponentials need.
constexpr std::uint32_t kMagicBits = 0x4b400000U;
constexpr float kMagic = 12582912.0F;

struct Job {
    // As in TileGroup.
    std::uint64_t apart[kConsumers];
    std::int32_t tile[kConsumers];
    std::int32_t whole[kConsumers];
    std::int32_t halves[kConsumers];
    std::int32_t together;
    std::int32_t stages;
    std::int32_t head;  // negative: there are no more jobs
    TokenRange range[kConsumers];
};

template <int kHeadDim>
struct Shared {
    static constexpr int kTileBytes = kTileTokens * kHeadDim;
    alignas(1024) std::byte key[kStages][2 * kTileBytes];
    static constexpr std::size_t kValueBytes = kValueTileBytes<ValueFormat::kFp8, kHeadDim>;
    alignas(1024) std::byte value[kStages][2 * kValueBytes];
    alignas(1024) std::byte query[kJobs][kConsumers][kTileBytes];  // then the output on its way
    alignas(128) KeyRecord record[kStages][2];
    alignas(128) float query_scale[kJobs][kConsumers][kTileTokens];
    alignas(128) float value_limit[kJobs][kHeadDim];
    alignas(128) float output_mean[kJobs][kConsumers][kHeadDim];
    Job job[kJobs];
    Successors successors[kStages];
    alignas(8) std::uint64_t full[kStages];
    std::uint64_t empty[kStages];
    std::uint64_t job_full[kJobs];
    std::uint64_t job_empty[kJobs];
    // For the warps that share a part of the multiprocessor, one of each warpgroup: whose turn it is to exponentiate.
    // Were they left alone, all would wait for products at the same time, and then for the exponentials.
    std::uint64_t turn[kGroupThreads / 32][kConsumers];
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
    constexpr std::uint32_t kValueBytes = Shared<kHeadDim>::kValueBytes;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::int32_t jobs = p.group_count * p.parts * p.heads;
    const std::int32_t long_jobs = p.long_groups * p.parts * p.heads;
    const auto take = [&] {
        std::int32_t taken = 0;
        if (lane == 0) {
            taken = atomicAdd(p.next, 1);
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
            }
            ptx::warp_arrive(job_full, lane);
            return;
        }
        // Long groups: a group's heads one after the other. The image's: a head's groups, whose keys then stay in the
        // cache.
        const std::int32_t image_groups = p.group_count - p.long_groups;
        const std::int32_t rest = taken - long_jobs;
        const int head = rest < 0 ? taken % p.heads : rest / image_groups;
        const std::int32_t number = rest < 0 ? taken / p.heads / p.parts : p.long_groups + rest % image_groups;
        const std::int32_t part = rest < 0 ? taken / p.heads % p.parts : 0;
        const TileGroup& group = p.groups[number];
        // The part's stages.
        const std::int32_t begin = group.stages * part / p.parts;
        const std::int32_t end = group.stages * (part + 1) / p.parts;
        const auto tile_at = [&](int tile) { return static_cast<std::size_t>(head) * p.tile_count + tile; };

        Job& job = shared.job[slot.index];
        const std::int32_t own = lane < kConsumers ? group.tile[lane] : -1;
        if (lane < kConsumers) {
            job.tile[lane] = own;
            TokenRange range = own >= 0 ? p.tiles[own] : TokenRange{0, 0};
            std::int32_t whole = group.whole[lane];
            std::int32_t halves = group.halves[lane];
            if (p.parts > 1) {  // all query tiles attend to all stages
                range.first = ((number * p.parts + part) * kConsumers + lane) * kTileTokens;
                whole = own >= 0 ? min(end, group.together) - min(begin, group.together) : 0;
                halves = own >= 0 ? end - begin - whole : 0;
            }
            job.range[lane] = range;
            job.apart[lane] = group.apart[lane];
            job.whole[lane] = whole;
            job.halves[lane] = halves;
        }
        const std::int32_t tiles = __popc(__ballot_sync(0xffffffffU, own >= 0));
        if (lane == 0) {
            job.head = head;
            job.together = min(end, group.together) - min(begin, group.together);
            job.stages = end - begin;
        }
        constexpr std::uint32_t kScaleBytes = kTileTokens * sizeof(float);
        constexpr std::uint32_t kLimitBytes = kHeadDim * sizeof(float);
        ptx::warp_arrive_expect(job_full, tiles * (kTileBytes + kScaleBytes + kLimitBytes) + kLimitBytes, lane);
        if (lane == 0) {
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
            ptx::copy_bulk(ptx::shared_address(shared.output_mean[slot.index][lane]),
                           p.workspace + p.at.output_mean + at * kLimitBytes, kLimitBytes, job_full);
        }
        slot.advance();

        const std::int32_t runs_first = group.runs_first;
        const std::int32_t runs_end = group.runs_end;
        std::int32_t before = -begin;  // stages between the part's begin and the run's
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
                const Successors within = __shfl_sync(0xffffffffU, mine.within, i);
                const Successors last = __shfl_sync(0xffffffffU, mine.last, i);
                // A lane copies one tile.
                const std::uint32_t copies = other < 0 ? 1 : 2;
                const std::int32_t from = max(0, -before);
                const std::int32_t until = min(stages, end - begin - before);
                before += stages;
                std::int32_t tile = (lane == 0 ? one : other) + 2 * from;
                for (std::int32_t t = from; t < until; ++t, stage.advance(), tile += 2) {
                    ptx::barrier_wait(ptx::shared_address(&shared.empty[stage.index]), stage.parity ^ 1);
                    const std::uint32_t full = ptx::shared_address(&shared.full[stage.index]);
                    if (lane == 0) {
                        shared.successors[stage.index] = t + 1 < stages ? within : last;
                    }
                    ptx::warp_arrive_expect(full, copies * (kTileBytes + kValueBytes + sizeof(KeyRecord)), lane);
                    __syncwarp();
                    if (lane < copies) {
                        const std::size_t at = tile_at(tile);
                        ptx::copy_bulk(ptx::shared_address(shared.key[stage.index] + lane * kTileBytes),
                                       p.workspace + p.at.key + at * kTileBytes, kTileBytes, full);
                        ptx::copy_bulk(ptx::shared_address(&shared.record[stage.index][lane]),
                                       p.workspace + p.at.key_record + at * sizeof(KeyRecord), sizeof(KeyRecord), full);
                        ptx::copy_bulk(ptx::shared_address(shared.value[stage.index] + lane * kValueBytes),
                                       p.workspace + p.at.value + at * kValueBytes, kValueBytes, full);
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
    constexpr int kScores = kTileTokens;  // of a thread, for two key tiles
    constexpr int kSums = kHeadDim / 2;
    constexpr int kOnes = kOnesRows / 2;
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    const int lane = thread % 32;
    // Through a shuffle: so the compiler sees that it is the same for a warp.
    const auto uniform = [](auto value) { return __shfl_sync(0xffffffffU, value, 0); };
    const int warp = uniform(thread / 32);
    std::uint32_t passed = 0;  // stages since the kernel began
    std::uint32_t turns_taken = 0;
    const auto turn_of = [&](std::uint32_t tile) { return ptx::shared_address(&shared.turn[warp][tile]); };
    Place<kJobs> slot;

    for (;;) {
        ptx::barrier_wait(ptx::shared_address(&shared.job_full[slot.index]), slot.parity);
        const Job& job = shared.job[slot.index];
        if (uniform(job.head) < 0) {
            return;
        }
        const std::uint32_t end = passed + static_cast<std::uint32_t>(uniform(job.stages));
        const std::uint32_t end_together = passed + static_cast<std::uint32_t>(uniform(job.together));
        std::uint64_t apart = uniform(job.apart[group]);
        int whole = uniform(job.whole[group]);
        int halves = uniform(job.halves[group]);

        const auto full = [&] { return ptx::shared_address(&shared.full[passed % kStages]); };
        const auto parity = [&] { return passed / kStages % 2; };
        const auto release = [&](std::uint32_t index) {
            ptx::warp_arrive(ptx::shared_address(&shared.empty[index]), lane);
        };
        const auto pass = [&] {
            ptx::barrier_wait(full(), parity());
            return passed++ % kStages;
        };
        const auto others_come_first = [&] { return passed >= end_together && (apart & 1) == 0; };
        // The next stage that the tile lists.
        const auto take = [&] {
            if (passed >= end_together) {
                for (; (apart & 1) == 0; apart >>= 1) {
                    release(pass());
                }
                apart >>= 1;
            }
            return pass();
        };

        if (whole + halves > 0) {
            std::uint32_t s[kScores];  // scores, exponents, weights
            std::uint32_t weights[4][4];
            float out[kSums + kOnes];  // last the sum of weights, for each half of the rows twice
            float base[2] = {0, 0};    // kWeightExponent less the shift
            float sum[2] = {0, 0};
#pragma unroll
            for (int i = kSums; i < kSums + kOnes; ++i) {
                out[i] = 0;
            }
            bool flushed = false;
            int turns = 0;
            int held = -1;  // the stage whose P V is under way

            const ptx::Matrix<kHeadDim> query(ptx::shared_address(shared.query[slot.index][group]));
            // The sums of earlier turns and then their base, in the workspace: each thread has its own.
            const auto total = [&](int i) {
                return reinterpret_cast<float4*>(p.workspace + p.at.totals) +
                       ((blockIdx.x * kConsumers + group) * (kSums / 4 + 1) + i) * kGroupThreads + thread;
            };
            const auto add_total = [&] {
                const float4 of_total = *total(kSums / 4);
                const float worth[2] = {ptx::exp2(base[0] - of_total.x), ptx::exp2(base[1] - of_total.y)};
#pragma unroll
                for (int i = 0; i < kSums / 4; ++i) {
                    const float4 before = *total(i);
                    out[4 * i] = fmaf(before.x, worth[0], out[4 * i]);
                    out[4 * i + 1] = fmaf(before.y, worth[0], out[4 * i + 1]);
                    out[4 * i + 2] = fmaf(before.z, worth[1], out[4 * i + 2]);
                    out[4 * i + 3] = fmaf(before.w, worth[1], out[4 * i + 3]);
                }
            };
            const auto flush = [&] {
                if (flushed) {
                    add_total();
                }
#pragma unroll
                for (int i = 0; i < kSums / 4; ++i) {
                    *total(i) = {out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]};
                }
                *total(kSums / 4) = {base[0], base[1], 0, 0};
                flushed = true;
                turns = 0;
            };
            // Waits for P V of the stage that is held.
            const auto finish = [&] {
                ptx::wait_matrices<0>();
                ptx::pin(out);
                // The weights' sum begins anew each turn: what is summed with few bits loses.
                sum[0] += out[kSums];
                sum[1] += out[kSums + 2];
#pragma unroll
                for (int i = kSums; i < kSums + kOnes; ++i) {
                    out[i] = 0;
                }
                if (turns == kFlushTurns) {
                    flush();
                }
            };
            const auto let_go = [&] {
                if (held >= 0) {
                    release(static_cast<std::uint32_t>(held));
                    held = -1;
                }
            };
            const auto turn = [&](auto count) {
                constexpr int kTiles = decltype(count)::value;
                // With the next stage at hand, P V of the last one goes on meanwhile; but nothing is held while stages
                // for others pass: so the ring cannot lock.
                if (others_come_first()) {
                    ptx::wait_matrices<0>();
                    let_go();
                }
                const std::uint32_t now = take();
                finish();
                const ptx::Matrix<kHeadDim> key(ptx::shared_address(shared.key[now]));
                ptx::order_matrices();
#pragma unroll
                for (int k = 0; k < kSteps; ++k) {
                    ptx::multiply_int8<kTiles * kTileTokens>(s, query.step(k), key.step(k), k);
                }
                ptx::commit_matrices();
                let_go();
                ptx::wait_matrices<0>();
                ptx::pin(s);
                float factor[kTiles][2];
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    const float key_scale = shared.record[now][t].scale[lane % 4];
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        factor[t][half] =
                            shared.query_scale[slot.index][group][thread / 32 * 16 + lane / 4 + 8 * half] * key_scale;
                    }
                }
                // Scores become exponents.
                float largest[2];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
#pragma unroll
                    for (int t = 0; t < kTiles; ++t) {
                        std::uint32_t* of = s + t * kScores / 2 + 2 * half;
                        auto most = static_cast<std::int32_t>(of[0]);
                        const float offset = fmaf(-kMagic, factor[t][half], base[half]);
#pragma unroll
                        for (int n = 0; n < kTileTokens / 8; ++n) {
                            most = __vimax3_s32(most, static_cast<std::int32_t>(of[4 * n]),
                                                static_cast<std::int32_t>(of[4 * n + 1]));
#pragma unroll
                            for (int i = 0; i < 2; ++i) {
                                of[4 * n + i] = __float_as_uint(
                                    fmaf(__uint_as_float(of[4 * n + i] + kMagicBits), factor[t][half], offset));
                            }
                        }
                        const float exponent = fmaf(__int2float_rn(most), factor[t][half], base[half]);
                        largest[half] = t == 0 ? exponent : fmaxf(largest[half], exponent);
                    }
                }
                const bool moves =
                    (turns == 0 && !flushed) || fmaxf(largest[0], largest[1]) > kWeightExponent + kShiftSlack;
                if (__builtin_expect(__any_sync(0xffffffffU, moves), 0)) {
                    // The sums so far shrink.
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        float most = largest[half];
                        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
                        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
                        const float move =
                            (turns != 0 || flushed) ? fminf(0, kWeightExponent - most) : kWeightExponent - most;
                        const float shrink = (turns != 0 || flushed) ? ptx::exp2(move) : 0;
                        base[half] += move;
                        sum[half] *= shrink;
#pragma unroll
                        for (int i = 0; i < kSums / 4; ++i) {
                            out[4 * i + 2 * half] *= shrink;
                            out[4 * i + 2 * half + 1] *= shrink;
                        }
#pragma unroll
                        for (int i = 0; i < kTiles * kScores / 8; ++i) {
                            s[4 * i + 2 * half] = __float_as_uint(__uint_as_float(s[4 * i + 2 * half]) + move);
                            s[4 * i + 2 * half + 1] = __float_as_uint(__uint_as_float(s[4 * i + 2 * half + 1]) + move);
                        }
                    }
                }
                // Exponents become weights.
                const std::uint32_t successor = shared.successors[now] >> 2 * group & 3U;
                ptx::barrier_wait(turn_of(static_cast<std::uint32_t>(group)), turns_taken++ % 2);
                const ptx::Matrix<kTileTokens> value(ptx::shared_address(shared.value[now]));
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
#pragma unroll
                        for (int n = 0; n < kTileTokens / 8; ++n) {
#pragma unroll
                            for (int i = 0; i < 2; ++i) {
                                std::uint32_t& exponent = s[t * kScores / 2 + 4 * n + 2 * half + i];
                                exponent = __float_as_uint(ptx::exp2(__uint_as_float(exponent)));
                            }
                        }
                    }
#pragma unroll
                    for (int k = 2 * t; k < 2 * t + 2; ++k) {
                        const auto four = [&](int n, int half) {
                            const std::uint32_t* from = s + (k * 4 + n) * 4 + 2 * half;
                            return ptx::pack_fp8(__uint_as_float(from[0]), __uint_as_float(from[1]),
                                                 __uint_as_float(from[4]), __uint_as_float(from[5]));
                        };
                        weights[k][0] = four(0, 0);
                        weights[k][1] = four(0, 1);
                        weights[k][2] = four(2, 0);
                        weights[k][3] = four(2, 1);
                    }
                    ptx::order_matrices();
#pragma unroll
                    for (int k = 2 * t; k < 2 * t + 2; ++k) {
                        ptx::multiply_fp8(out, weights[k], value.step(k % 2, t * Shared<kHeadDim>::kValueBytes),
                                          k == 0 ? turns != 0 : 1);
                    }
                    ptx::commit_matrices();
                    if (t == 0) {
                        if (lane == 0) {
                            ptx::barrier_arrive(turn_of(successor));
                        }
                    }
                }
                held = static_cast<int>(now);
                ++turns;
            };
            while (--whole >= 0) {
                turn(Count<2>());
            }
            while (--halves >= 0) {
                turn(Count<1>());
            }
            finish();
            let_go();
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
            // Opaque, so that no address of what follows is kept in registers through the turns.
            int here = thread;
            asm volatile("" : "+r"(here));
            const int column = here % 4;
            const int row = here / 4 % 8;
            const int first_row = here / 32 * 16;
            constexpr int kChunks = kHeadDim / 16;
            std::byte* staged = shared.query[slot.index][group] + first_row * kHeadDim;
            const TokenRange range = job.range[group];
            float share[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float all = sum[half];
                share[half] = 1 / (all * kFp8Limit);
                const int token = first_row + row + 8 * half;
                if (p.log_sum_exp != nullptr && column == 0 && token < range.tokens) {
                    const std::size_t at = static_cast<std::size_t>(job.head) * p.tile_count + job.tile[group];
                    const float with_mean =
                        reinterpret_cast<const float*>(p.workspace + p.at.query_mean)[at * kTileTokens + token];
                    p.log_sum_exp[job.head * p.tokens + range.first + token] =
                        fmaf(-base[half], 1 / ptx::kLog2E, logf(all)) + with_mean;
                }
            }
            // All at once, before the stores: the compiler cannot know that they lie elsewhere.
#pragma unroll
            for (int n = 0; n < kHeadDim / 8; ++n) {
                const float2 limit =
                    *reinterpret_cast<const float2*>(&shared.value_limit[slot.index][8 * n + column * 2]);
                const float2 mean =
                    *reinterpret_cast<const float2*>(&shared.output_mean[slot.index][group][8 * n + column * 2]);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float* two = out + 4 * n + 2 * half;
                    two[0] = fmaf(two[0] * share[half], limit.x, mean.x);
                    two[1] = fmaf(two[1] * share[half], limit.y, mean.y);
                }
            }
            constexpr int kRowsAtOnce = 32 / kChunks;
            const int store_row = here % 32 / kChunks;
            const int store_chunk = here % kChunks;
            const int rows = range.tokens - first_row;  // of this warp, if positive
            __nv_bfloat16* to = p.output.row(range.first + first_row + store_row, job.head) + store_chunk * 8;
#pragma unroll
            for (int pass = 0; pass < 2; ++pass) {
#pragma unroll
                for (int n = 0; n < kChunks; ++n) {
                    const int of = pass * kChunks + n;
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int at = row + 8 * half;
                        *reinterpret_cast<std::uint32_t*>(staged + (at * kChunks + (n ^ (at % kChunks))) * 16 +
                                                          column * 4) =
                            ptx::pack_bfloat(out[4 * of + 2 * half], out[4 * of + 2 * half + 1]);
                    }
                }
                __syncwarp();
#pragma unroll
                for (int i = 0; i < 16 / kRowsAtOnce; ++i) {
                    const int at = i * kRowsAtOnce + store_row;
                    const uint4 eight =
                        *reinterpret_cast<const uint4*>(staged + (at * kChunks + (store_chunk ^ (at % kChunks))) * 16);
                    if (at < rows) {
                        *reinterpret_cast<uint4*>(to + i * kRowsAtOnce * p.output.token_stride + pass * kChunks * 8) =
                            eight;
                    }
                }
                __syncwarp();
            }
            ptx::order_copies_after_stores();
        }
        ptx::warp_arrive(ptx::shared_address(&shared.job_empty[slot.index]), lane);
        slot.advance();
        while (passed < end) {
            release(pass());
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
            ptx::barrier_init(ptx::shared_address(&shared.full[i]), ptx::kWarpArrivals);
            ptx::barrier_init(ptx::shared_address(&shared.empty[i]), kConsumerWarps * ptx::kWarpArrivals);
        }
        for (int i = 0; i < hopper::kJobs; ++i) {
            ptx::barrier_init(ptx::shared_address(&shared.job_full[i]), ptx::kWarpArrivals);
            ptx::barrier_init(ptx::shared_address(&shared.job_empty[i]), kConsumerWarps * ptx::kWarpArrivals);
        }
        for (auto& turns : shared.turn) {
            for (std::uint64_t& turn : turns) {
                ptx::barrier_init(ptx::shared_address(&turn), 1);
            }
            ptx::barrier_arrive(ptx::shared_address(&turns[0]));
        }
        ptx::barrier_init_fence();
    }
    __syncthreads();
    // Through a shuffle: so the compiler sees that it is the same for a warp, and so is all that follows from it.
    const int group = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / hopper::kGroupThreads, 0);
    if (group == 0) {
        ptx::shrink_registers<hopper::kProducerRegisters>();
        if (threadIdx.x < 32) {
            // What the pre-pass wrote is there when the parts let others begin.
            if (!p.beside_parts) {
                ptx::wait_for_kernels();
            }
            if (p.parts > 1 || p.beside_parts) {
                ptx::launch_dependents();
            }
            hopper::produce<kHeadDim>(p, shared);
            ptx::wait_for_kernels();
        }
    } else {
        ptx::grow_registers<hopper::kConsumerRegisters>();
        hopper::consume<kHeadDim>(p, shared, group - 1);
    }
#else
    __trap();  // resolve() chooses what the build has
#endif
}

template <int kHeadDim>
constexpr std::size_t kHopperSharedBytes = sizeof(hopper::Shared<kHeadDim>) + 1024;

constexpr int kJoinThreads = 256;

template <int kHeadDim>
constexpr int kJoinRows = kJoinThreads* kChunkChannels / kHeadDim;  // of a block

// The output and log-sum-exp of query tiles whose groups were done in parts.
// Grid [groups * kGroupTiles * kTileTokens / kJoinRows, heads].
template <int kHeadDim>
__global__ void __launch_bounds__(kJoinThreads)
    join_parts(const __grid_constant__ Int8Parameters p, DeviceTensor output, float* log_sum_exp, std::int64_t tokens) {
    constexpr int kLanes = kHeadDim / kChunkChannels;  // that share a row
    constexpr int kBlocks = kTileTokens / kJoinRows<kHeadDim>;
    const int group = static_cast<int>(blockIdx.x) / kBlocks / kGroupTiles;
    const int cell = static_cast<int>(blockIdx.x) / kBlocks % kGroupTiles;
    const int row =
        static_cast<int>(blockIdx.x) % kBlocks * kJoinRows<kHeadDim> + static_cast<int>(threadIdx.x) / kLanes;
    const int head = static_cast<int>(blockIdx.y);
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const std::int32_t tile = p.groups[group].tile[cell];
    const TokenRange own = tile >= 0 ? p.tiles[tile] : TokenRange{};
    ptx::wait_for_kernels();
    if (row >= own.tokens) {
        return;
    }
    float largest = -INFINITY;
    float all = 0;
    Channels sum{};
    constexpr int kAtOnce = 8;
    for (int first = 0; first < p.parts; first += kAtOnce) {
        float logs[kAtOnce];
        uint4 bits[kAtOnce];
        float most = largest;
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int part = min(first + i, p.parts - 1);
            const int part_row = ((group * p.parts + part) * kGroupTiles + cell) * kTileTokens + row;
            logs[i] = p.log_sum_exp[head * p.tokens + part_row];
            bits[i] = load_channels(p.output.row(part_row, head), lane);
            most = fmaxf(most, logs[i]);
        }
        const float shrink = ptx::exp2((largest - most) * ptx::kLog2E);
        largest = most;
        all *= shrink;
#pragma unroll
        for (float& x : sum.x) {
            x *= shrink;
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const float weight = first + i < p.parts ? ptx::exp2((logs[i] - largest) * ptx::kLog2E) : 0;
            const Channels of_part = unpack(bits[i]);
            all += weight;
#pragma unroll
            for (int c = 0; c < kChunkChannels; ++c) {
                sum.x[c] = fmaf(of_part.x[c], weight, sum.x[c]);
            }
        }
    }
    const float share = 1 / all;
#pragma unroll
    for (float& x : sum.x) {
        x *= share;
    }
    *reinterpret_cast<uint4*>(output.row(own.first + row, head) + lane * kChunkChannels) = pack(sum);
    if (log_sum_exp != nullptr && lane == 0) {
        log_sum_exp[head * tokens + own.first + row] = largest + logf(all);
    }
}

}  // namespace scaledit::cuda
