// Attention over packed tiles (packed.h) on Hopper: Q K^T in INT8 and P V in FP8 through wgmma.
//
// A persistent block has a producer warp and two consumer warpgroups. The producer takes a pair of query tiles after
// the other and copies the key tiles that either attends to into a ring of stages; each warpgroup owns one tile of the
// pair, 64 rows, and passes over stages that its tile does not list. Two key tiles are one turn: the next turn's Q K^T
// is issued before this turn's P V, and the softmax runs under them and under the other warpgroup's products.
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
    const TilePair* pairs;
    const TileRun* runs;
    std::int32_t tile_count;
    std::int32_t pair_count;
    std::int32_t long_pairs;
    std::int32_t heads;
    std::int64_t tokens;
    DeviceTensor output;
    float* log_sum_exp;  // or null
    std::byte* workspace;
    Workspace at;
};

namespace hopper {

constexpr int kStages = 7;
constexpr int kJobs = 2;  // pairs whose queries are in shared memory
constexpr int kConsumers = 2;
constexpr int kGroupThreads = 128;
constexpr int kThreads = (1 + kConsumers) * kGroupThreads;

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

struct Job {
    std::int32_t head;                   // negative: there are no more
    std::int32_t key_tiles[kConsumers];  // that each tile attends to
    std::int32_t passed;                 // in all, of which a tile passes some over
    std::int32_t first[kConsumers];      // token
    std::int32_t tokens[kConsumers];
    std::int32_t tile[kConsumers];
};

template <int kHeadDim>
struct Shared {
    static constexpr int kTileBytes = kTileTokens * kHeadDim;
    alignas(1024) std::byte key[kStages][kTileBytes];
    alignas(1024) std::byte value[kStages][kTileBytes];
    alignas(128) std::byte query[kJobs][kConsumers][kTileBytes];
    alignas(128) float total[kConsumers][kTileTokens * kHeadDim];  // then the output on its way
    alignas(128) KeyRecord record[kStages];
    alignas(128) float query_scale[kJobs][kConsumers][kTileTokens];
    alignas(128) float value_limit[kJobs][kHeadDim];
    Job job[kJobs];
    std::uint32_t cells[kStages];
    alignas(8) std::uint64_t full[kStages];
    std::uint64_t empty[kStages];
    std::uint64_t job_full[kJobs];
    std::uint64_t job_empty[kJobs];
};

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
    Place<kStages> stage;
    Place<kJobs> slot;
    const std::int64_t jobs = static_cast<std::int64_t>(p.pair_count) * p.heads;
    const std::int64_t long_jobs = static_cast<std::int64_t>(p.long_pairs) * p.heads;
    for (;;) {
        std::int32_t taken = 0;
        if (lane == 0) {
            taken = atomicAdd(reinterpret_cast<std::int32_t*>(p.workspace + p.at.next), 1);
        }
        taken = __shfl_sync(0xffffffffU, taken, 0);
        ptx::barrier_wait(ptx::shared_address(&shared.job_empty[slot.index]), slot.parity ^ 1);
        const std::uint32_t job_full = ptx::shared_address(&shared.job_full[slot.index]);
        if (taken >= jobs) {
            if (lane == 0) {
                shared.job[slot.index].head = -1;
                ptx::barrier_arrive(job_full);
            }
            return;
        }
        // Long pairs: a pair's heads one after the other. The image's: a head's pairs, whose keys then stay in the
        // cache.
        const std::int32_t image_pairs = p.pair_count - p.long_pairs;
        const auto rest = static_cast<std::int32_t>(taken - long_jobs);
        const int head = taken < long_jobs ? taken % p.heads : rest / image_pairs;
        const TilePair pair = p.pairs[taken < long_jobs ? taken / p.heads : p.long_pairs + rest % image_pairs];
        const auto tile_at = [&](int tile) { return static_cast<std::size_t>(head) * p.tile_count + tile; };

        if (lane < kConsumers) {
            const bool real = pair.tile[lane] >= 0;
            const TokenRange range = real ? p.tiles[pair.tile[lane]] : TokenRange{0, 0};
            shared.job[slot.index].tile[lane] = pair.tile[lane];
            shared.job[slot.index].first[lane] = range.first;
            shared.job[slot.index].tokens[lane] = range.tokens;
            shared.job[slot.index].key_tiles[lane] = pair.listed[lane];
        }
        std::int32_t all = 0;
        for (std::int32_t run = pair.runs_first + lane; run < pair.runs_end; run += 32) {
            all += p.runs[run].count;
        }
        all = __reduce_add_sync(0xffffffffU, all);
        if (lane == 0) {
            Job& job = shared.job[slot.index];
            job.head = head;
            job.passed = all;
        }
        __syncwarp();
        if (lane == 0) {
            const int tiles = pair.tile[1] < 0 ? 1 : 2;
            constexpr std::uint32_t kScaleBytes = kTileTokens * sizeof(float);
            constexpr std::uint32_t kLimitBytes = kHeadDim * sizeof(float);
            ptx::barrier_arrive_expect(job_full, tiles * (kTileBytes + kScaleBytes) + kLimitBytes);
            for (int i = 0; i < tiles; ++i) {
                const std::size_t at = tile_at(pair.tile[i]);
                ptx::copy_bulk(ptx::shared_address(shared.query[slot.index][i]),
                               p.workspace + p.at.query + at * kTileBytes, kTileBytes, job_full);
                ptx::copy_bulk(ptx::shared_address(shared.query_scale[slot.index][i]),
                               p.workspace + p.at.query_scale + at * kScaleBytes, kScaleBytes, job_full);
            }
            ptx::copy_bulk(ptx::shared_address(shared.value_limit[slot.index]),
                           p.workspace + p.at.value_limits + head * kLimitBytes, kLimitBytes, job_full);
        }
        slot.advance();

        for (std::int32_t first = pair.runs_first; first < pair.runs_end; first += 32) {
            TileRun mine{};
            if (first + lane < pair.runs_end) {
                mine = p.runs[first + lane];
            }
            const std::int32_t runs = min(32, pair.runs_end - first);
            for (std::int32_t i = 0; i < runs; ++i) {
                const std::int32_t begin = __shfl_sync(0xffffffffU, mine.first, i);
                const std::int32_t count = __shfl_sync(0xffffffffU, mine.count, i);
                const std::uint32_t cells = __shfl_sync(0xffffffffU, mine.cells, i);
                if (lane == 0) {
                    for (std::int32_t t = 0; t < count; ++t, stage.advance()) {
                        ptx::barrier_wait(ptx::shared_address(&shared.empty[stage.index]), stage.parity ^ 1);
                        shared.cells[stage.index] = cells;
                        const std::uint32_t full = ptx::shared_address(&shared.full[stage.index]);
                        ptx::barrier_arrive_expect(full, 2 * kTileBytes + sizeof(KeyRecord));
                        const std::size_t at = tile_at(begin + t);
                        ptx::copy_bulk(ptx::shared_address(shared.key[stage.index]),
                                       p.workspace + p.at.key + at * kTileBytes, kTileBytes, full);
                        ptx::copy_bulk(ptx::shared_address(&shared.record[stage.index]),
                                       p.workspace + p.at.key_record + at * sizeof(KeyRecord), sizeof(KeyRecord), full);
                        ptx::copy_bulk(ptx::shared_address(shared.value[stage.index]),
                                       p.workspace + p.at.value + at * kTileBytes, kTileBytes, full);
                    }
                }
                __syncwarp();
            }
        }
    }
}

// Up to two key tiles in the ring.
struct Turn {
    int stage[2];
    int tokens[2];
    float scale[2];
    bool two;
};

template <int kHeadDim>
__device__ inline void consume(const Int8Parameters& p, Shared<kHeadDim>& shared, int group) {
    constexpr int kSteps = kHeadDim / 32;
    constexpr int kScores = kTileTokens / 2;  // of a lane, for one key tile
    constexpr int kSums = kHeadDim / 2;
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    const int lane = thread % 32;
    const int warp = thread / 32;
    const int warp_row = warp * 16;
    const std::uint32_t mine = 1U << group;
    const std::uint32_t key_base = ptx::shared_address(shared.key);
    const std::uint32_t value_base = ptx::shared_address(shared.value);
    Place<kStages> stage;
    Place<kJobs> slot;

    for (;;) {
        ptx::barrier_wait(ptx::shared_address(&shared.job_full[slot.index]), slot.parity);
        const Job& job = shared.job[slot.index];
        const std::int32_t head = job.head;
        if (head < 0) {
            return;
        }
        int left = job.key_tiles[group];  // own key tiles that are not taken yet
        int ahead = job.passed;           // stages of this job that are ahead, own or not

        const auto release = [&](int index) {
            __syncwarp();
            if (lane == 0) {
                ptx::barrier_arrive(ptx::shared_address(&shared.empty[index]));
            }
        };
        const auto take_one = [&](int& index, int& tokens, float& scale) {
            for (;;) {
                ptx::barrier_wait(ptx::shared_address(&shared.full[stage.index]), stage.parity);
                index = stage.index;
                stage.advance();
                --ahead;
                if ((shared.cells[index] & mine) != 0) {
                    break;
                }
                release(index);
            }
            tokens = shared.record[index].tokens;
            scale = shared.record[index].scale[lane % 4];
            --left;
        };
        const auto take = [&](Turn& turn) {
            take_one(turn.stage[0], turn.tokens[0], turn.scale[0]);
            turn.two = left > 0;
            if (turn.two) {
                take_one(turn.stage[1], turn.tokens[1], turn.scale[1]);
            } else {
                turn.stage[1] = turn.stage[0];
                turn.tokens[1] = 0;
                turn.scale[1] = turn.scale[0];
            }
        };

        std::uint32_t q[kSteps][4];
        float query_scale[2];
        if (left > 0) {
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                const uint4 bits = *reinterpret_cast<const uint4*>(shared.query[slot.index][group] +
                                                                   ((warp * kSteps + k) * 32 + lane) * 16);
                q[k][0] = bits.x;
                q[k][2] = bits.y;
                q[k][1] = bits.z;
                q[k][3] = bits.w;
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                query_scale[half] = shared.query_scale[slot.index][group][warp_row + lane / 4 + 8 * half];
            }

            std::uint32_t s[2][kScores];
            std::uint32_t weights[4][4];
            float out[kSums];
            float shift[2] = {-INFINITY, -INFINITY};
            float shrink[2];
            float sum[2] = {0, 0};
            float total_shift[2] = {0, 0};
            bool flushed = false;
            int turns = 0;
            float* total = shared.total[group] + thread * 4;

            const auto issue_scores = [&](const Turn& turn) {
                ptx::order_matrices();
#pragma unroll
                for (int t = 0; t < 2; ++t) {
                    const ptx::Matrix<kHeadDim> key(key_base + turn.stage[t] * Shared<kHeadDim>::kTileBytes);
#pragma unroll
                    for (int k = 0; k < kSteps; ++k) {
                        ptx::multiply_int8(s[t], q[k], key.step(k), k);
                    }
                }
                ptx::commit_matrices();
            };
            const auto issue_values = [&](const Turn& turn, int accumulate) {
                ptx::order_matrices();
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const ptx::Matrix<kTileTokens> value(value_base + turn.stage[k / 2] * Shared<kHeadDim>::kTileBytes);
                    ptx::multiply_fp8(out, weights[k], value.step(k % 2), k == 0 ? accumulate : 1);
                }
                ptx::commit_matrices();
            };
            // Scores become weights; tells whether the shift moved, by `shrink`.
            const auto soften_some = [&](const Turn& turn, auto kind) {
                constexpr bool masked = decltype(kind)::value;
                const auto real = [&](int t, int n, int i) {
                    return !masked || 8 * n + lane % 4 * 2 + i < turn.tokens[t];
                };
                if constexpr (masked) {
#pragma unroll
                    for (int t = 0; t < 2; ++t) {
#pragma unroll
                        for (int i = 0; i < kScores; ++i) {
                            s[t][i] = real(t, i / 4, i % 2) ? s[t][i] : 0x80000000U;
                        }
                    }
                }
                float largest[2];
                bool moves = false;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    std::int32_t of_tile[2];
#pragma unroll
                    for (int t = 0; t < 2; ++t) {
                        of_tile[t] = static_cast<std::int32_t>(s[t][2 * half]);
#pragma unroll
                        for (int n = 0; n < kScores / 4; ++n) {
                            of_tile[t] = __vimax3_s32(of_tile[t], static_cast<std::int32_t>(s[t][4 * n + 2 * half]),
                                                      static_cast<std::int32_t>(s[t][4 * n + 2 * half + 1]));
                        }
                    }
                    float most =
                        fmaxf(__int2float_rn(of_tile[0]) * turn.scale[0], __int2float_rn(of_tile[1]) * turn.scale[1]);
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
                    largest[half] = most * query_scale[half];
                    moves = moves || largest[half] > shift[half] + kShiftSlack;
                }
                moves = __any_sync(0xffffffffU, moves);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float moved = moves ? fmaxf(shift[half], largest[half]) : shift[half];
                    shrink[half] = ptx::exp2(shift[half] - moved);
                    shift[half] = moved;
                }
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float part[2] = {0, 0};
#pragma unroll
                    for (int t = 0; t < 2; ++t) {
                        const float factor = query_scale[half] * turn.scale[t];
                        const float offset = fmaf(-kMagic, factor, kWeightExponent - shift[half]);
#pragma unroll
                        for (int n = 0; n < kScores / 4; ++n) {
#pragma unroll
                            for (int i = 0; i < 2; ++i) {
                                std::uint32_t& score = s[t][4 * n + 2 * half + i];
                                const float power = fmaf(__uint_as_float(score + kMagicBits), factor, offset);
                                const float weight = real(t, n, i) ? ptx::exp2(power) : 0;
                                part[i] += weight;
                                score = __float_as_uint(weight);
                            }
                        }
                    }
                    sum[half] = fmaf(sum[half], shrink[half], part[0] + part[1]);
                }
                return moves;
            };
            const auto soften = [&](const Turn& turn) {
                return turn.tokens[0] == kTileTokens && turn.tokens[1] == kTileTokens
                           ? soften_some(turn, std::false_type{})
                           : soften_some(turn, std::true_type{});
            };
            const auto pack_weights = [&] {
                const auto four = [&](int k, int n, int half) {
                    const std::uint32_t* from = s[k / 2] + (k % 2 * 4 + n) * 4 + 2 * half;
                    return ptx::pack_fp8(__uint_as_float(from[0]), __uint_as_float(from[1]), __uint_as_float(from[4]),
                                         __uint_as_float(from[5]));
                };
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    weights[k][0] = four(k, 0, 0);
                    weights[k][1] = four(k, 0, 1);
                    weights[k][2] = four(k, 2, 0);
                    weights[k][3] = four(k, 2, 1);
                }
            };
            const auto flush = [&] {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    // What the sum kept so far is worth now.
                    total_shift[half] = flushed ? ptx::exp2(total_shift[half] - shift[half]) : 0;
                }
#pragma unroll
                for (int i = 0; i < kSums / 4; ++i) {
                    float4* kept = reinterpret_cast<float4*>(total + i * 4 * kGroupThreads);
                    float4 before = flushed ? *kept : float4{0, 0, 0, 0};
                    before.x = fmaf(before.x, total_shift[0], out[4 * i]);
                    before.y = fmaf(before.y, total_shift[0], out[4 * i + 1]);
                    before.z = fmaf(before.z, total_shift[1], out[4 * i + 2]);
                    before.w = fmaf(before.w, total_shift[1], out[4 * i + 3]);
                    *kept = before;
                }
                total_shift[0] = shift[0];
                total_shift[1] = shift[1];
                flushed = true;
                turns = 0;
            };

            Turn turn;
            take(turn);
            issue_scores(turn);
            ptx::wait_matrices<0>();
            ptx::pin(s[0]);
            ptx::pin(s[1]);
            soften(turn);
            pack_weights();
            while (left > 0) {
                Turn next;
                take(next);
                issue_scores(next);
                issue_values(turn, turns != 0);
                ptx::wait_matrices<1>();
                ptx::pin(s[0]);
                ptx::pin(s[1]);
                const bool moved = soften(next);
                ptx::wait_matrices<0>();
                ptx::pin(out);
                release(turn.stage[0]);
                if (turn.two) {
                    release(turn.stage[1]);
                }
                if (moved) {
#pragma unroll
                    for (int i = 0; i < kSums; ++i) {
                        out[i] *= shrink[i / 2 % 2];
                    }
                }
                if (++turns == kFlushTurns) {
                    flush();
                }
                pack_weights();
                turn = next;
            }
            issue_values(turn, turns != 0);
            ptx::wait_matrices<0>();
            ptx::pin(out);
            release(turn.stage[0]);
            if (turn.two) {
                release(turn.stage[1]);
            }
            if (flushed) {
                flush();
#pragma unroll
                for (int i = 0; i < kSums / 4; ++i) {
                    const float4 all = *reinterpret_cast<const float4*>(total + i * 4 * kGroupThreads);
                    out[4 * i] = all.x;
                    out[4 * i + 1] = all.y;
                    out[4 * i + 2] = all.z;
                    out[4 * i + 3] = all.w;
                }
                // The output passes through the same memory, in another order.
                ptx::sync_warpgroup(group);
            }

            // To 16-byte stores through shared memory, of which each warp has a part.
            auto* staged = reinterpret_cast<std::byte*>(shared.total[group]) + warp * 16 * kHeadDim * 2;
            constexpr int kChunks = kHeadDim / 8;
            float limits[kSums / 2];
#pragma unroll
            for (int n = 0; n < kHeadDim / 8; ++n) {
                const float2 two =
                    *reinterpret_cast<const float2*>(&shared.value_limit[slot.index][8 * n + lane % 4 * 2]);
                limits[2 * n] = two.x;
                limits[2 * n + 1] = two.y;
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = lane / 4 + 8 * half;
                float all = sum[half];
                all += __shfl_xor_sync(0xffffffffU, all, 1);
                all += __shfl_xor_sync(0xffffffffU, all, 2);
                const float share = 1 / (all * kFp8Limit);
#pragma unroll
                for (int n = 0; n < kHeadDim / 8; ++n) {
                    const std::uint32_t pair = ptx::pack_bfloat(out[4 * n + 2 * half] * share * limits[2 * n],
                                                                out[4 * n + 2 * half + 1] * share * limits[2 * n + 1]);
                    *reinterpret_cast<std::uint32_t*>(staged + (row * kChunks + (n ^ (row & 7))) * 16 + lane % 4 * 4) =
                        pair;
                }
                if (p.log_sum_exp != nullptr && lane % 4 == 0 && warp_row + row < job.tokens[group]) {
                    const std::size_t at = static_cast<std::size_t>(head) * p.tile_count + job.tile[group];
                    const float with_mean = reinterpret_cast<const float*>(
                        p.workspace + p.at.query_mean)[at * kTileTokens + warp_row + row];
                    p.log_sum_exp[head * p.tokens + job.first[group] + warp_row + row] =
                        fmaf(shift[half] - kWeightExponent, 1 / ptx::kLog2E, logf(all)) + with_mean;
                }
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 16 * kChunks / 32; ++i) {
                const int row = (i * 32 + lane) / kChunks;
                const int chunk = (i * 32 + lane) % kChunks;
                if (warp_row + row < job.tokens[group]) {
                    *reinterpret_cast<uint4*>(p.output.row(job.first[group] + warp_row + row, head) + chunk * 8) =
                        *reinterpret_cast<const uint4*>(staged + (row * kChunks + (chunk ^ (row & 7))) * 16);
                }
            }
            // The next pair's sums pass through this memory in another order.
            ptx::sync_warpgroup(group);
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
        ptx::shrink_registers<40>();
        if (threadIdx.x < 32) {
            hopper::produce<kHeadDim>(p, shared);
        }
    } else {
        ptx::grow_registers<232>();
        hopper::consume<kHeadDim>(p, shared, group - 1);
    }
#endif
}

template <int kHeadDim>
constexpr std::size_t kHopperSharedBytes = sizeof(hopper::Shared<kHeadDim>) + 1024;

}  // namespace scaledit::cuda
