// Attention over packed tiles (packed.h) through mma.sync, for compute capability 8.0 and later: Q K^T in INT8, P V in
// FP16 or FP8.
//
// A block of four warps owns two neighbouring query tiles of one head. A warp has 16 rows of each, so that what it
// reads of a key tile from shared memory serves 32 rows; a key tile that one of the two does not attend to is used for
// the other alone. Key tiles pass through two stages: one is copied while the other is used. Of a key tile 32 keys are
// done at a time: so the scores and weights of all 32 rows have room in registers beside the sums.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"
#include "cuda/tile_pairs.h"

namespace scaledit::cuda {

struct Int8MmaParameters {
    const TokenRange* tiles;
    const TilePair* pairs;
    const TileRun* runs;
    std::int32_t tile_count;
    std::int32_t pair_count;
    std::int32_t long_pairs;
    std::int32_t heads;
    std::int64_t tokens;
    // Parts of the workspace.
    const std::byte* query;
    const std::byte* key;
    const std::byte* value;
    const float* query_scale;
    const float* query_mean;
    const KeyRecord* key_record;
    const float* value_limits;
    const float* output_mean;  // of FP8
    DeviceTensor output;
    float* log_sum_exp;  // or null
};

namespace mma {

constexpr int kWarps = kTileTokens / 16;
constexpr int kThreads = 32 * kWarps;
constexpr int kKeys = 32;  // at a time
constexpr int kStages = 2;

// Weights are computed as 2^(s - shift + kWeightExponent), where the shift may lag up to kSlack behind the row's
// maximum. The largest then is below 448 = 2^8.8 in e4m3 and 2^14 in FP16, so that rows seldom move their shift.
constexpr float kWeightExponent = 6;
template <ValueFormat kFormat>
constexpr float kSlack = kFormat == ValueFormat::kFp8 ? 2.75F : 8.0F;

// Bits of 1.5 * 2^23: a sum of INT8 products that starts from them reads as the float 1.5 * 2^23 + sum.
constexpr std::uint32_t kMagicBits = 0x4b400000U;
constexpr float kMagic = 12582912.0F;
constexpr std::uint32_t kNoScore = 0xff800000U;  // minus infinity, and less than any other as an integer

// Who attends to a stage's key tile, nobody behind the last, and where the tile after it is.
struct Step {
    std::uint32_t cells;
    std::int32_t next_run;
    std::int32_t next_done;  // tiles of that run
};

template <int kHeadDim, ValueFormat kFormat>
struct Shared {
    static constexpr int kKeyBytes = kTileTokens * kHeadDim;
    static constexpr int kValueBytes = kKeyBytes * (kFormat == ValueFormat::kFp16 ? 2 : 1);  // without the ones
    static constexpr std::size_t kValueApart = kValueTileBytes<kFormat, kHeadDim>;
    static constexpr int kStageBytes = kKeyBytes + kValueBytes;
    // Before the first turn the second stage holds the queries, after the last turn both the output on its way.
    alignas(128) std::byte stage[kStages][kStageBytes];
    KeyRecord record[kStages];
    float query_scale[kPairTiles][kTileTokens];
    TilePair pair;
    std::int32_t head;
    Step step[kStages];

    static_assert(kPairTiles * kKeyBytes <= kStageBytes);
    static_assert(kPairTiles * kKeyBytes * static_cast<int>(sizeof(__nv_bfloat16)) <= kStages * kStageBytes);
};

// A tile of so many bytes, of those that lie so far apart.
template <int kBytes, std::size_t kApart = kBytes>
__device__ inline void copy(std::uint32_t destination, const void* from, std::size_t index) {
    constexpr int kAtOnce = 16 * kThreads;
    static_assert(kBytes % 16 == 0 && (kBytes < kAtOnce || kBytes % kAtOnce == 0));
    const int own = 16 * ptx::thread();
    const std::byte* source = static_cast<const std::byte*>(from) + (index * kApart + own);
    destination += own;
    if (kBytes >= kAtOnce || own < kBytes) {
#pragma unroll
        for (int at = 0; at < kBytes; at += kAtOnce) {
            ptx::copy_async(destination + at, source + at, 16);
        }
    }
}

// Where a thread is. Read anew where it is needed: registers are scarce.
struct Place {
    int lane = ptx::thread() % 32;
    int warp = ptx::thread() / 32;
    // Its row of the four matrices of an ldmatrix: as rows 0-15 first, or as chunks first.
    int row_first = lane % 16;
    int row_first_chunk = lane / 16;
    int chunk_first = lane % 8 + lane / 16 * 8;
    int chunk_first_chunk = lane / 8 % 2;
};

template <int kFirst, int kEnd>
struct Tiles {  // of a pair
    static constexpr int first = kFirst;
    static constexpr int end = kEnd;
};

template <int kHeadDim, ValueFormat kFormat>
__device__ inline void attend(const Int8MmaParameters& p, Shared<kHeadDim, kFormat>& shared) {
    using Memory = Shared<kHeadDim, kFormat>;
    constexpr int kKeyBytes = Memory::kKeyBytes;
    constexpr int kValueBytes = Memory::kValueBytes;
    constexpr int kScaleBytes = kTileTokens * sizeof(float);
    constexpr int kSteps = kHeadDim / 32;
    constexpr int kFp16RowBytes = 2 * kHeadDim;  // of a token's values
    constexpr int kScores = kKeys / 8;           // matrices of scores
    constexpr int kChannels = kHeadDim / 8;      // matrices of sums
    if (threadIdx.x == 0) {
        // Long pairs: a pair's heads one after the other. The image's: a head's pairs, whose keys then stay in the
        // cache.
        const auto job = static_cast<std::int32_t>(blockIdx.x);
        const std::int32_t rest = job - p.long_pairs * p.heads;
        const std::int32_t image_pairs = p.pair_count - p.long_pairs;
        shared.head = rest < 0 ? job % p.heads : rest / image_pairs;
        shared.pair = p.pairs[rest < 0 ? job / p.heads : p.long_pairs + rest % image_pairs];
        shared.step[1] = {0, shared.pair.runs_first, 0};
    }
    __syncthreads();
    // Both stay in shared memory: registers are scarce.
    const TilePair& pair = shared.pair;
    const std::int32_t& head = shared.head;
    const auto tile_at = [&](std::int32_t tile) { return static_cast<std::size_t>(head) * p.tile_count + tile; };

    const auto stage_address = [&](int stage) { return ptx::shared_address(shared.stage[stage]); };
    // Starts to copy the key tile after that of stage `last`, to the other stage.
    const auto copy_next = [&](int last) {
        const int stage = last ^ 1;
        Step step = shared.step[last];
        step.cells = 0;
        if (step.next_run != pair.runs_end) {
            const TileRun run = p.runs[step.next_run];
            const std::size_t at = tile_at(run.first + step.next_done);
            copy<kKeyBytes>(stage_address(stage), p.key, at);
            copy<kValueBytes, Memory::kValueApart>(stage_address(stage) + kKeyBytes, p.value, at);
            copy<sizeof(KeyRecord)>(ptx::shared_address(&shared.record[stage]), p.key_record, at);
            step.cells = run.cells;
            if (run.first + ++step.next_done == run.end) {
                ++step.next_run;
                step.next_done = 0;
            }
        }
        ptx::commit_copies();
        if (ptx::thread() == 0) {
            shared.step[stage] = step;
        }
    };

#pragma unroll
    for (int t = 0; t < kPairTiles; ++t) {
        if (pair.tile[t] >= 0) {
            const std::size_t at = tile_at(pair.tile[t]);
            copy<kKeyBytes>(stage_address(1) + t * kKeyBytes, p.query, at);
            copy<kScaleBytes>(ptx::shared_address(shared.query_scale[t]), p.query_scale, at);
        }
    }
    ptx::commit_copies();
    copy_next(1);
    ptx::wait_copies<1>();
    __syncthreads();
    std::uint32_t query[kPairTiles][kSteps][4];
    {
        const Place place;
#pragma unroll
        for (int t = 0; t < kPairTiles; ++t) {
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                const int row = 16 * place.warp + place.row_first;
                ptx::load_matrices(query[t][k], stage_address(1) + t * kKeyBytes + row * kHeadDim +
                                                    swizzled_chunk(kHeadDim, row, 2 * k + place.row_first_chunk) * 16);
            }
        }
    }

    float out[kPairTiles][kChannels][4] = {};
    float shift[kPairTiles][2];
    float sum[kPairTiles][2] = {};  // this lane's part
#pragma unroll
    for (int t = 0; t < kPairTiles; ++t) {
        shift[t][0] = shift[t][1] = -INFINITY;
    }

    // A key tile, for some of the pair's tiles.
    const auto turn = [&](auto some, int stage) {
        constexpr int kFirst = decltype(some)::first;
        constexpr int kEnd = decltype(some)::end;
        // This lane's row of an ldmatrix. Two chunks on are at the address xor 32, and so forth.
        const Place place;
        const std::uint32_t keys_at = stage_address(stage) + place.chunk_first * kHeadDim +
                                      swizzled_chunk(kHeadDim, place.chunk_first, place.chunk_first_chunk) * 16;
        const std::uint32_t values_at =
            stage_address(stage) + kKeyBytes +
            (kFormat == ValueFormat::kFp16
                 ? place.row_first * kFp16RowBytes +
                       swizzled_chunk(kFp16RowBytes, place.row_first, place.row_first_chunk) * 16
                 : place.chunk_first * kTileTokens +
                       swizzled_chunk(kTileTokens, place.chunk_first, place.chunk_first_chunk) * 16);
        const float key_scale = shared.record[stage].scale[place.lane % 4];
        const int tokens = shared.record[stage].tokens;
#pragma unroll
        for (int first = 0; first < kTileTokens; first += kKeys) {
            if (first >= tokens) {
                break;
            }
            std::uint32_t s[kPairTiles][kScores][4];
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
#pragma unroll
                for (int n = 0; n < kScores; n += 2) {
                    std::uint32_t keys[4];
                    ptx::load_matrices(keys, ((keys_at + first * kHeadDim) ^ 32 * k) + 8 * n * kHeadDim);
#pragma unroll
                    for (int t = kFirst; t < kEnd; ++t) {
                        if (k == 0) {
                            ptx::multiply_int8(s[t][n], query[t][k], keys[0], keys[1], kMagicBits);
                            ptx::multiply_int8(s[t][n + 1], query[t][k], keys[2], keys[3], kMagicBits);
                        } else {
                            ptx::multiply_add_int8(s[t][n], query[t][k], keys[0], keys[1]);
                            ptx::multiply_add_int8(s[t][n + 1], query[t][k], keys[2], keys[3]);
                        }
                    }
                }
            }
            if (first + kKeys > tokens) {
#pragma unroll
                for (int t = kFirst; t < kEnd; ++t) {
#pragma unroll
                    for (int n = 0; n < kScores; ++n) {
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            if (first + 8 * n + place.lane % 4 * 2 + i % 2 >= tokens) {
                                s[t][n][i] = kNoScore;
                            }
                        }
                    }
                }
            }

            // Where the shift moves, the sums so far shrink.
            float most[kPairTiles][2];
            float factor[kPairTiles][2];
            float offset[kPairTiles][2];
            bool moves = false;
#pragma unroll
            for (int t = kFirst; t < kEnd; ++t) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    auto largest = static_cast<std::int32_t>(s[t][0][2 * half]);
#pragma unroll
                    for (int n = 0; n < kScores; ++n) {
                        largest = __vimax3_s32(largest, static_cast<std::int32_t>(s[t][n][2 * half]),
                                               static_cast<std::int32_t>(s[t][n][2 * half + 1]));
                    }
                    most[t][half] = __int_as_float(largest);
                    factor[t][half] = shared.query_scale[t][16 * place.warp + place.lane / 4 + 8 * half] * key_scale;
                    offset[t][half] = fmaf(-kMagic, factor[t][half], kWeightExponent - shift[t][half]);
                    moves = moves ||
                            fmaf(most[t][half], factor[t][half], offset[t][half]) > kWeightExponent + kSlack<kFormat>;
                }
            }
            if (__any_sync(0xffffffffU, moves)) {
#pragma unroll
                for (int t = kFirst; t < kEnd; ++t) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        float largest = (most[t][half] - kMagic) * factor[t][half];
                        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
                        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
                        const float moved = fmaxf(shift[t][half], largest);
                        const float shrink = ptx::exp2(shift[t][half] - moved);
                        shift[t][half] = moved;
                        offset[t][half] = fmaf(-kMagic, factor[t][half], kWeightExponent - moved);
                        sum[t][half] *= shrink;
#pragma unroll
                        for (int n = 0; n < kChannels; ++n) {
                            out[t][n][2 * half] *= shrink;
                            out[t][n][2 * half + 1] *= shrink;
                        }
                    }
                }
            }
#pragma unroll
            for (int t = kFirst; t < kEnd; ++t) {
#pragma unroll
                for (int n = 0; n < kScores; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float weight =
                            ptx::exp2(fmaf(__uint_as_float(s[t][n][i]), factor[t][i / 2], offset[t][i / 2]));
                        sum[t][i / 2] += weight;
                        s[t][n][i] = __float_as_uint(weight);
                    }
                }
            }

            const auto weight = [&](int t, int n, int i) { return __uint_as_float(s[t][n][i]); };
            if constexpr (kFormat == ValueFormat::kFp16) {
#pragma unroll
                for (int k = 0; k < kKeys / 16; ++k) {
                    std::uint32_t weights[kPairTiles][4];
#pragma unroll
                    for (int t = kFirst; t < kEnd; ++t) {
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            const int n = 2 * k + i / 2;
                            weights[t][i] = ptx::pack_half(weight(t, n, i % 2 * 2), weight(t, n, i % 2 * 2 + 1));
                        }
                    }
#pragma unroll
                    for (int n = 0; n < kChannels; n += 2) {
                        std::uint32_t values[4];
                        ptx::load_matrices_transposed(values, ((values_at + first * kFp16RowBytes) ^ n % 8 * 16) +
                                                                  n / 8 * 128 + 16 * k * kFp16RowBytes);
#pragma unroll
                        for (int t = kFirst; t < kEnd; ++t) {
                            ptx::multiply_add_half(out[t][n], weights[t], values[0], values[1]);
                            ptx::multiply_add_half(out[t][n + 1], weights[t], values[2], values[3]);
                        }
                    }
                }
            } else {
                std::uint32_t weights[kPairTiles][4];
#pragma unroll
                for (int t = kFirst; t < kEnd; ++t) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int n = i / 2 * 2;
                        const int row = i % 2 * 2;
                        weights[t][i] = ptx::pack_fp8(weight(t, n, row), weight(t, n, row + 1), weight(t, n + 1, row),
                                                      weight(t, n + 1, row + 1));
                    }
                }
#pragma unroll
                for (int n = 0; n < kChannels; n += 2) {
                    std::uint32_t values[4];
                    ptx::load_matrices(values, (values_at ^ first) + 8 * n * kTileTokens);
#pragma unroll
                    for (int t = kFirst; t < kEnd; ++t) {
                        ptx::multiply_add_fp8(out[t][n], weights[t], values[0], values[1]);
                        ptx::multiply_add_fp8(out[t][n + 1], weights[t], values[2], values[3]);
                    }
                }
            }
        }
    };

    for (int stage = 0;; stage ^= 1) {
        ptx::wait_copies<0>();
        __syncthreads();  // and all are done with the other stage
        const std::uint32_t cells = shared.step[stage].cells;
        if (cells == 0) {
            break;
        }
        copy_next(stage);
        if (cells == 3) {
            turn(Tiles<0, 2>(), stage);
        } else if (cells == 1) {
            turn(Tiles<0, 1>(), stage);
        } else {
            turn(Tiles<1, 2>(), stage);
        }
    }

    // Through shared memory, of which each warp has a part, to 16-byte stores.
    const Place place;
    const int lane = place.lane;
    const int warp = place.warp;
    const float* limits = p.value_limits + head * kHeadDim;
#pragma unroll
    for (int t = 0; t < kPairTiles; ++t) {
        if (pair.tile[t] < 0) {
            continue;
        }
        const TokenRange own = p.tiles[pair.tile[t]];
        const float* means = p.output_mean + tile_at(pair.tile[t]) * kHeadDim;
        std::byte* staged = shared.stage[0] + (t * kWarps + warp) * 16 * 2 * kHeadDim;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = lane / 4 + 8 * half;
            float all = sum[t][half];
            all += __shfl_xor_sync(0xffffffffU, all, 1);
            all += __shfl_xor_sync(0xffffffffU, all, 2);
            const float share = 1 / (all * kValueLimit<kFormat>);
#pragma unroll
            for (int n = 0; n < kChannels; ++n) {
                const float2 limit = *reinterpret_cast<const float2*>(limits + 8 * n + lane % 4 * 2);
                const float2 mean = kFormat == ValueFormat::kFp8
                                        ? *reinterpret_cast<const float2*>(means + 8 * n + lane % 4 * 2)
                                        : float2{0, 0};
                *reinterpret_cast<std::uint32_t*>(staged + (row * kChannels + (n ^ (row & 7))) * 16 + lane % 4 * 4) =
                    ptx::pack_bfloat(fmaf(out[t][n][2 * half] * share, limit.x, mean.x),
                                     fmaf(out[t][n][2 * half + 1] * share, limit.y, mean.y));
            }
            if (p.log_sum_exp != nullptr && lane % 4 == 0 && 16 * warp + row < own.tokens) {
                const float with_mean = p.query_mean[tile_at(pair.tile[t]) * kTileTokens + 16 * warp + row];
                p.log_sum_exp[head * p.tokens + own.first + 16 * warp + row] =
                    fmaf(shift[t][half] - kWeightExponent, 1 / ptx::kLog2E, logf(all)) + with_mean;
            }
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 16 * kChannels / 32; ++i) {
            const int row = (i * 32 + lane) / kChannels;
            const int chunk = (i * 32 + lane) % kChannels;
            if (16 * warp + row < own.tokens) {
                *reinterpret_cast<uint4*>(p.output.row(own.first + 16 * warp + row, head) + chunk * 8) =
                    *reinterpret_cast<const uint4*>(staged + (row * kChannels + (chunk ^ (row & 7))) * 16);
            }
        }
    }
}

}  // namespace mma

template <int kHeadDim, ValueFormat kFormat>
constexpr int kMmaSharedBytes = sizeof(mma::Shared<kHeadDim, kFormat>);

// Two blocks have room in the 100 KB of a multiprocessor of compute capability 8.6, 8.9 or 12.0, with 1 KB beside each.
static_assert(2 * (kMmaSharedBytes<128, ValueFormat::kFp16> + 1024) <= 100 * 1024);

template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(mma::kThreads, 2) attend_int8_mma(const __grid_constant__ Int8MmaParameters p) {
    ptx::wait_for_kernels();
    if constexpr (kFormat == ValueFormat::kFp16 || ptx::kHasFp8) {
        extern __shared__ __align__(128) unsigned char memory[];
        mma::attend<kHeadDim, kFormat>(p, *reinterpret_cast<mma::Shared<kHeadDim, kFormat>*>(memory));
    } else {
        __trap();  // resolve() chooses what the build has
    }
}

}  // namespace scaledit::cuda
