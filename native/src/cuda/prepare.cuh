// The pre-pass: from the projections' output to the packed INT8 and FP8 or FP16 tiles (packed.h), with the queries' and
// keys' RMSNorm and rotation on the way.
//
// measure() looks at a sample of the keys for their mean (any vector close to it will do: what is subtracted from all
// keys of a head changes no weight), at one of queries and keys for the balance between them, and at all values for
// their channels' means and ranges; prepare() reads everything once more and writes the tiles. Values lose their mean
// on the way to e4m3, and the attention adds it again at its end, as weights add up to 1: matrix instructions sum FP8
// products with few bits, which shrinks sums of one sign. In the same way attention takes off what rounding did to the
// mean of the values that a tile attends to.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"
#include "cuda/tile_pairs.h"

namespace scaledit::cuda {

struct PrepareParameters {
    const TokenRange* tiles;
    std::int32_t tile_count;
    std::int32_t heads;
    std::int64_t tokens;
    std::int64_t text_tokens;  // the first ones
    DeviceTensor query, key, value;
    // [head_dim] each, or null: the queries and keys are normed already.
    const __nv_bfloat16* query_norm;
    const __nv_bfloat16* key_norm;
    const __nv_bfloat16* text_query_norm;
    const __nv_bfloat16* text_key_norm;
    float norm_epsilon;
    const float2* rotation;  // [tokens, head_dim / 2] cosine and sine, or null: they are rotated already
    float scale;
    bool with_mean;            // whether the products of queries with the mean key are wanted
    std::int32_t block_heads;  // of a tile that a block of prepare() makes
    std::byte* workspace;
    Workspace at;

    template <typename Element>
    __device__ Element* in_workspace(std::size_t offset) const {
        return reinterpret_cast<Element*>(workspace + offset);
    }
    __device__ std::size_t head_tile(int head, int tile) const {
        return static_cast<std::size_t>(head) * tile_count + tile;
    }
};

__device__ inline uint4 load_channels(const __nv_bfloat16* row, int lane) {
    return *reinterpret_cast<const uint4*>(row + lane * kChunkChannels);
}

// The maximum over the lanes that share a row; a NaN is above all.
template <int kLanes>
__device__ inline float row_max(float x) {
#pragma unroll
    for (int lane = kLanes / 2; lane > 0; lane /= 2) {
        x = ptx::max_nan(x, __shfl_xor_sync(0xffffffffU, x, lane));
    }
    return x;
}

// What a row is to be multiplied by for a root mean square of 1.
template <int kLanes>
__device__ inline float norm_factor(const Channels& channels, float epsilon) {
    return rsqrtf(lane_sum<kLanes>(square_sum(channels)) / (kLanes * kChunkChannels) + epsilon);
}

__device__ inline void multiply(Channels& channels, const Channels& weight) {
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        channels.x[i] *= weight.x[i];
    }
}

struct LaneRotation {
    float2 turn[kChunkChannels / 2];
};

__device__ inline LaneRotation load_rotation(const float2* row, int lane) {
    LaneRotation rotation;
#pragma unroll
    for (int i = 0; i < kChunkChannels / 4; ++i) {
        const float4 two = *reinterpret_cast<const float4*>(row + lane * (kChunkChannels / 2) + 2 * i);
        rotation.turn[2 * i] = {two.x, two.y};
        rotation.turn[2 * i + 1] = {two.z, two.w};
    }
    return rotation;
}

__device__ inline void rotate(Channels& channels, const LaneRotation& rotation) {
#pragma unroll
    for (int i = 0; i < kChunkChannels / 2; ++i) {
        const auto [cosine, sine] = rotation.turn[i];
        const float x = channels.x[2 * i];
        const float y = channels.x[2 * i + 1];
        channels.x[2 * i] = fmaf(x, cosine, -y * sine);
        channels.x[2 * i + 1] = fmaf(y, cosine, x * sine);
    }
}

// Channels of a query or key, normed and rotated.
template <int kLanes>
__device__ inline Channels finished(const PrepareParameters& p, const DeviceTensor& tensor, const __nv_bfloat16* norm,
                                    const __nv_bfloat16* text_norm, std::int64_t token, int head, int lane) {
    Channels channels = unpack(load_channels(tensor.row(token, head), lane));
    if (norm != nullptr) {
        const float factor = norm_factor<kLanes>(channels, p.norm_epsilon);
        multiply(channels, unpack(load_channels(token < p.text_tokens ? text_norm : norm, lane)));
#pragma unroll
        for (float& x : channels.x) {
            x *= factor;
        }
    }
    if (p.rotation != nullptr) {
        rotate(channels, load_rotation(p.rotation + token * (kLanes * kChunkChannels / 2), lane));
    }
    return channels;
}

constexpr float kInt8Limit = 127;
constexpr float kSmallestScale = 9.5367431640625e-7F;  // 2^-20: of zeros, for which any will do

struct QuantizationScale {
    float back;
    float forward;
};
__device__ inline QuantizationScale int8_scale(float largest) {
    const float back = ptx::max_nan(largest * (1 / kInt8Limit), kSmallestScale);
    return {back, ptx::reciprocal(back)};
}

// Rounds four numbers of up to 127 to bytes. Added to 1.5 * 2^23 a number becomes an integer in the last bits: the
// conversion instruction would be slower.
__device__ inline std::uint32_t quantize_4(const float* x, float forward) {
    std::uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        bits[i] = __float_as_uint(fmaf(x[i], forward, 12582912.0F));
    }
    return __byte_perm(__byte_perm(bits[0], bits[1], 0x0040), __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
}

constexpr int kMeasureThreads = 256;
constexpr int kMeasureStride = 16;       // of the tokens whose keys are looked at
constexpr int kMeasureQueryStride = 64;  // likewise, queries

// Tokens that are looked at: every one of a short sequence.
struct Sample {
    std::int64_t stride;
    std::int64_t count;
};
__device__ inline Sample sample(std::int64_t tokens, int stride) {
    const std::int64_t own = tokens < kMeasureStride * 1024 ? 1 : stride;
    return {own, (tokens + own - 1) / own};
}

// Grid [heads, kSampleBlocks].
template <int kHeadDim>
__global__ void __launch_bounds__(kMeasureThreads, 6) measure(const PrepareParameters p) {
    constexpr int kLanes = kHeadDim / kChunkChannels;
    constexpr int kRows = kMeasureThreads / kLanes;
    __shared__ float shared[kRows][kHeadDim];
    const int head = static_cast<int>(blockIdx.x);
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int row = static_cast<int>(threadIdx.x) / kLanes;

    // Joins what the block's rows have of each channel, and keeps it for conclude().
    const auto join = [&](const Channels& own, std::size_t to, auto&& both) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            shared[row][lane * kChunkChannels + i] = own.x[i];
        }
        __syncthreads();
        if (threadIdx.x < kHeadDim) {
            float all = shared[0][threadIdx.x];
            for (int r = 1; r < kRows; ++r) {
                all = both(all, shared[r][threadIdx.x]);
            }
            p.in_workspace<float>(to)[(blockIdx.y * p.heads + head) * kHeadDim + threadIdx.x] = all;
        }
    };
    const auto add = [](float a, float b) { return a + b; };

    const auto for_sample = [&](const Sample& of, auto&& look) {
        for (std::int64_t at = static_cast<std::int64_t>(blockIdx.y) * kRows + row; at - row < of.count;
             at += kSampleBlocks * kRows) {
            look(at < of.count ? at * of.stride : 0, at < of.count);
        }
    };
    Channels query_squares{};
    for_sample(sample(p.tokens, kMeasureQueryStride), [&](std::int64_t token, bool real) {
        const Channels query = finished<kLanes>(p, p.query, p.query_norm, p.text_query_norm, token, head, lane);
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            query_squares.x[i] = real ? fmaf(query.x[i], query.x[i], query_squares.x[i]) : query_squares.x[i];
        }
    });
    join(query_squares, p.at.query_squares, add);

    Channels key_sum{};
    Channels key_squares{};
    for_sample(sample(p.tokens, kMeasureStride), [&](std::int64_t token, bool real) {
        const Channels key = finished<kLanes>(p, p.key, p.key_norm, p.text_key_norm, token, head, lane);
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            key_sum.x[i] += real ? key.x[i] : 0;
            key_squares.x[i] = real ? fmaf(key.x[i], key.x[i], key_squares.x[i]) : key_squares.x[i];
        }
    });
    join(key_squares, p.at.key_squares, add);
    join(key_sum, p.at.key_sums, add);

    Channels sum{};
    __nv_bfloat162 low[kChunkChannels / 2];
    __nv_bfloat162 high[kChunkChannels / 2];
#pragma unroll
    for (int i = 0; i < kChunkChannels / 2; ++i) {
        low[i] = __float2bfloat162_rn(INFINITY);
        high[i] = __float2bfloat162_rn(-INFINITY);
    }
    constexpr int kAhead = 3;
    for (std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kRows; first < p.tokens;
         first += kAhead * kSampleBlocks * kRows) {
        uint4 bits[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const std::int64_t token = first + row + i * kSampleBlocks * kRows;
            bits[i] = ptx::load_once(p.value.row(token < p.tokens ? token : 0, head) + lane * kChunkChannels);
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const bool real = first + row + i * kSampleBlocks * kRows < p.tokens;
            const Channels value = unpack(bits[i]);
            const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits[i]);
#pragma unroll
            for (int c = 0; c < kChunkChannels / 2; ++c) {
                sum.x[2 * c] += real ? value.x[2 * c] : 0;
                sum.x[2 * c + 1] += real ? value.x[2 * c + 1] : 0;
                low[c] = __hmin2(low[c], pairs[c]);
                high[c] = __hmax2(high[c], pairs[c]);
            }
        }
    }
    const auto in_float = [](const __nv_bfloat162(&pairs)[kChunkChannels / 2]) {
        Channels channels;
#pragma unroll
        for (int i = 0; i < kChunkChannels / 2; ++i) {
            channels.x[2 * i] = __low2float(pairs[i]);
            channels.x[2 * i + 1] = __high2float(pairs[i]);
        }
        return channels;
    };
    join(sum, p.at.value_sums, add);
    join(in_float(low), p.at.value_lows, [](float a, float b) { return fminf(a, b); });
    join(in_float(high), p.at.value_highs, [](float a, float b) { return fmaxf(a, b); });
}

__device__ inline float pair_sum(float x) { return x + __shfl_xor_sync(0xffffffffU, x, 1); }
__device__ inline float power_of_two(int exponent) { return __int_as_float((127 + exponent) << 23); }

// Of what a pair's queries are multiplied by and its keys divided: half of the way, in powers, from one's size to the
// other's, so that in both all pairs are as alike as they can be.
__device__ inline int balance_exponent(float query_squares, float key_squares) {
    constexpr float kMost = 16;
    const float exponent = 0.25F * (log2f(key_squares) - log2f(query_squares));
    // What is no number, as for pairs of zeros, is no reason to change anything.
    return fabsf(exponent) < INFINITY ? static_cast<int>(rintf(fminf(fmaxf(exponent, -kMost), kMost))) : 0;
}

// Grid [heads], a thread for each channel: the balance, the mean key, the mean value, and what values are multiplied
// by.
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kHeadDim) conclude(const PrepareParameters p) {
    const int channel = static_cast<int>(blockIdx.x) * kHeadDim + static_cast<int>(threadIdx.x);
    float query_squares = 0;
    float key_sum = 0;
    float key_squares = 0;
    float value_sum = 0;
    float low = INFINITY;
    float high = -INFINITY;
#pragma unroll
    for (int block = 0; block < kSampleBlocks; ++block) {
        const int at = block * p.heads * kHeadDim + channel;
        query_squares += p.in_workspace<float>(p.at.query_squares)[at];
        key_sum += p.in_workspace<float>(p.at.key_sums)[at];
        key_squares += p.in_workspace<float>(p.at.key_squares)[at];
        value_sum += p.in_workspace<float>(p.at.value_sums)[at];
        low = fminf(low, p.in_workspace<float>(p.at.value_lows)[at]);
        high = fmaxf(high, p.in_workspace<float>(p.at.value_highs)[at]);
    }
    const auto queries = static_cast<float>(sample(p.tokens, kMeasureQueryStride).count);
    const auto keys = static_cast<float>(sample(p.tokens, kMeasureStride).count);
    const float key_mean = key_sum / keys;
    const int balance =
        balance_exponent(pair_sum(query_squares) / queries, pair_sum(fmaf(-key_mean, key_sum, key_squares)) / keys);
    if (channel % 2 == 0) {
        p.in_workspace<float>(p.at.query_balance)[channel / 2] = power_of_two(balance);
        p.in_workspace<float>(p.at.key_balance)[channel / 2] = power_of_two(-balance);
    }
    p.in_workspace<float>(p.at.key_mean)[channel] = key_mean * power_of_two(-balance);
    float mean = 0;
    float limit = fmaxf(high, -low);
    if constexpr (kFormat == ValueFormat::kFp8) {
        // One that is small beside the values is left in them: they are bfloat16, and moved by less than their steps
        // are wide they would all be rounded to one side. A sum that a NaN joined says nothing: it stays its rows' own.
        constexpr float kSmallMean = 1.0F / 32;
        const float all = value_sum / static_cast<float>(p.tokens);
        if (fabsf(all) > kSmallMean * limit && fabsf(all) < INFINITY) {
            mean = all;
            limit = fmaxf(high - mean, mean - low);
        }
    } else {
        limit = __uint_as_float(__float_as_uint(limit) & 0x7f800000U);  // the power of two below
    }
    p.in_workspace<float>(p.at.value_mean)[channel] = mean;
    p.in_workspace<float>(p.at.value_limits)[channel] = limit;
    p.in_workspace<float>(p.at.value_forward)[channel] = limit < 1e-30F ? 0 : kValueLimit<kFormat> / limit;
    if (channel == 0) {
        for (int i = 0; i < 2; ++i) {
            p.in_workspace<std::int32_t>(p.at.next)[i] = 0;
        }
    }
}

template <int kHeadDim>
constexpr int kPrepareThreads = 4 * kHeadDim;
__host__ __device__ constexpr std::int32_t head_blocks(std::int32_t heads, std::int32_t block_heads) {
    return (heads + block_heads - 1) / block_heads;
}
// Many heads to a block, as long as there are blocks enough for a GPU, and about as many to each.
constexpr std::int32_t kMostBlockHeads = 16;
inline std::int32_t block_heads(std::int64_t tiles, std::int32_t heads) {
    constexpr std::int64_t kEnough = 1024;
    const auto most = static_cast<std::int32_t>(std::clamp<std::int64_t>(tiles * heads / kEnough, 1, kMostBlockHeads));
    const std::int32_t blocks = head_blocks(heads, most);
    return (heads + blocks - 1) / blocks;
}
// What a block makes of its tile. Neighbouring blocks make all of them: each waits for something else.
enum class Part { kQueries, kKeys, kValues };
constexpr int kParts = 3;

// One tile of some heads, as a block of prepare() sees it.
template <int kHeadDim>
class TileRows {
public:
    static constexpr int kThreads = kPrepareThreads<kHeadDim>;
    static constexpr int kLanes = kHeadDim / kChunkChannels;  // that share a row
    static constexpr int kRows = kThreads / kLanes;           // at a time
    static constexpr int kTurns = kTileTokens / kRows;        // until all rows are done
    static constexpr std::size_t kTileBytes = kTileTokens * kHeadDim;

    __device__ TileRows(const PrepareParameters& parameters)
        : p(parameters),
          tile(static_cast<int>(blockIdx.x) / kParts / head_blocks(p.heads, p.block_heads)),
          own(p.tiles[tile]),
          lane(static_cast<int>(threadIdx.x) % kLanes),
          first_head(static_cast<int>(blockIdx.x) / kParts % head_blocks(p.heads, p.block_heads) * p.block_heads),
          end_head(min(first_head + p.block_heads, p.heads)) {}

    __device__ int row(int turn) const { return turn * kRows + static_cast<int>(threadIdx.x) / kLanes; }
    // A row that the tile lacks is its first once more.
    __device__ int real_row(int turn) const { return row(turn) < own.tokens ? row(turn) : 0; }
    __device__ std::size_t at(int head) const { return p.head_tile(head, tile); }

    // Where this lane's channels of its token begin, in the first head's tile of one byte a channel. Turns are kRows
    // rows apart, which the swizzle does not tell apart; heads are tile_count tiles apart.
    __device__ std::byte* packed(std::size_t offset) const {
        static_assert(kRows % 8 == 0);
        return p.in_workspace<std::byte>(offset) + at(first_head) * kTileBytes + row(0) * kHeadDim +
               swizzled_chunk(kHeadDim, row(0), lane / 2) * 16 + lane % 2 * 8;
    }

    const PrepareParameters& p;
    const int tile;
    const TokenRange own;
    const int lane;
    const int first_head;
    const int end_head;
};

// What a block knows of each of its heads, up to two numbers a channel, in shared memory: loaded once, it is not waited
// for head after head.
template <int kHeadDim>
class OfHeads {
public:
    struct Memory {
        alignas(16) float numbers[2][kMostBlockHeads * kHeadDim];
    };
    __device__ OfHeads(Memory& memory, const TileRows<kHeadDim>& rows) : memory_(memory), rows_(rows) {}

    // number(i) of the [heads, kWidth] arrays' elements i. The block's threads have to wait for each other after it.
    template <int kWidth, typename Number>
    __device__ void load(int which, Number&& number) {
        const int first = rows_.first_head * kWidth;
        const int count = (rows_.end_head - rows_.first_head) * kWidth;
        for (int i = static_cast<int>(threadIdx.x); i < count; i += TileRows<kHeadDim>::kThreads) {
            memory_.numbers[which][i] = number(first + i);
        }
    }
    // Four numbers from a channel, or pair of channels, on.
    template <int kWidth>
    __device__ float4 four(int which, int head, int from) const {
        return *reinterpret_cast<const float4*>(&memory_.numbers[which][(head - rows_.first_head) * kWidth + from]);
    }
    __device__ Channels lane_channels(int which, int head) const {
        const float4 low = four<kHeadDim>(which, head, rows_.lane * kChunkChannels);
        const float4 high = four<kHeadDim>(which, head, rows_.lane * kChunkChannels + 4);
        return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    }
    // For each pair of this lane's channels.
    __device__ float4 lane_pairs(int which, int head) const {
        static_assert(kChunkChannels == 8);
        return four<kHeadDim / 2>(which, head, rows_.lane * kChunkChannels / 2);
    }

private:
    Memory& memory_;
    const TileRows<kHeadDim>& rows_;
};

__device__ inline float element(const float4& four, int i) {
    return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
}

// This lane's channels of a tile's rows, head after head; the next head's are on their way meanwhile.
template <int kHeadDim>
class Source {
public:
    using Rows = TileRows<kHeadDim>;
    __device__ Source(const Rows& rows, const DeviceTensor& tensor)
        : head_stride_(tensor.head_stride), heads_(rows.end_head - rows.first_head) {
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            from_[turn] =
                tensor.row(rows.own.first + rows.real_row(turn), rows.first_head) + rows.lane * kChunkChannels;
        }
        load();
    }
    // The next head's.
    __device__ void take(uint4 (&bits)[Rows::kTurns]) {
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            bits[turn] = ahead_[turn];
        }
        if (heads_ > 0) {
            load();
        }
    }

private:
    __device__ void load() {
        --heads_;
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            ahead_[turn] = ptx::load_once(from_[turn]);
            from_[turn] += head_stride_;
        }
    }

    const __nv_bfloat16* from_[Rows::kTurns];
    std::int64_t head_stride_;
    int heads_;
    uint4 ahead_[Rows::kTurns];
};

// Norm and rotation of queries or keys. The norm's factor is left to the caller, who has other factors as well. Weights
// and rotation are loaded for every head: they stay in the cache, and registers are dearer.
template <int kHeadDim>
class Finish {
public:
    using Rows = TileRows<kHeadDim>;
    __device__ Finish(const Rows& rows, const __nv_bfloat16* norm_weight, const __nv_bfloat16* text_norm_weight)
        : rows_(rows), weight_(rows.own.first < rows.p.text_tokens ? text_norm_weight : norm_weight) {}

    __device__ Channels operator()(const uint4& bits, int turn, float& factor) const {
        Channels channels = unpack(bits);
        factor = 1;
        if (weight_ != nullptr) {
            factor = norm_factor<Rows::kLanes>(channels, rows_.p.norm_epsilon);
            multiply(channels, unpack(load_channels(weight_, rows_.lane)));
        }
        if (rows_.p.rotation != nullptr) {
            const std::int64_t token = std::int64_t{rows_.own.first} + rows_.real_row(turn);
            rotate(channels, load_rotation(rows_.p.rotation + token * (kHeadDim / 2), rows_.lane));
        }
        return channels;
    }

private:
    const Rows& rows_;
    const __nv_bfloat16* weight_;  // or null
};

template <int kHeadDim>
__device__ inline void prepare_queries(const TileRows<kHeadDim>& rows, OfHeads<kHeadDim> heads) {
    using Rows = TileRows<kHeadDim>;
    const PrepareParameters& p = rows.p;
    const Finish<kHeadDim> finish(rows, p.query_norm, p.text_query_norm);
    Source<kHeadDim> source(rows, p.query);
    heads.template load<kHeadDim / 2>(0, [&](int i) { return p.in_workspace<float>(p.at.query_balance)[i]; });
    if (p.with_mean) {
        heads.template load<kHeadDim>(1, [&](int i) { return p.in_workspace<float>(p.at.key_mean)[i]; });
    }
    __syncthreads();
    std::byte* packed = rows.packed(p.at.query);
    for (int head = rows.first_head; head < rows.end_head; ++head, packed += p.tile_count * Rows::kTileBytes) {
        uint4 bits[Rows::kTurns];
        source.take(bits);
        const std::size_t at = rows.at(head);
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const int row = rows.row(turn);
            float factor;
            Channels query = finish(bits[turn], turn, factor);
            const float4 balance = heads.lane_pairs(0, head);
#pragma unroll
            for (int i = 0; i < kChunkChannels; ++i) {
                query.x[i] *= element(balance, i / 2);
            }
            const QuantizationScale scale = int8_scale(row_max<Rows::kLanes>(largest_magnitude(query)));
            if (rows.lane == 0) {
                p.in_workspace<float>(p.at.query_scale)[at * kTileTokens + row] =
                    scale.back * factor * p.scale * ptx::kLog2E;
            }
            if (p.with_mean) {
                const Channels mean = heads.lane_channels(1, head);
                float product = 0;
#pragma unroll
                for (int i = 0; i < kChunkChannels; ++i) {
                    product = fmaf(query.x[i], mean.x[i], product);
                }
                product = lane_sum<Rows::kLanes>(product);
                if (rows.lane == 0) {
                    p.in_workspace<float>(p.at.query_mean)[at * kTileTokens + row] = product * factor * p.scale;
                }
            }
            *reinterpret_cast<uint2*>(packed + turn * Rows::kRows * kHeadDim) = {
                quantize_4(query.x, scale.forward), quantize_4(query.x + 4, scale.forward)};
        }
    }
}

template <int kHeadDim>
__device__ inline void prepare_keys(const TileRows<kHeadDim>& rows, OfHeads<kHeadDim> heads) {
    using Rows = TileRows<kHeadDim>;
    // By head, so that one barrier a head is enough: one is written, one read, one cleared.
    __shared__ std::uint32_t magnitudes[3][kKeyGroups];  // bits of floats, which compare as they do
    const PrepareParameters& p = rows.p;
    const Finish<kHeadDim> finish(rows, p.key_norm, p.text_key_norm);
    if (threadIdx.x < 3 * kKeyGroups) {
        magnitudes[threadIdx.x / kKeyGroups][threadIdx.x % kKeyGroups] = 0;
    }
    Source<kHeadDim> source(rows, p.key);
    heads.template load<kHeadDim / 2>(0, [&](int i) { return p.in_workspace<float>(p.at.key_balance)[i]; });
    heads.template load<kHeadDim>(1, [&](int i) { return p.in_workspace<float>(p.at.key_mean)[i]; });
    std::byte* packed = rows.packed(p.at.key);
    __syncthreads();
    for (int head = rows.first_head; head < rows.end_head; ++head, packed += p.tile_count * Rows::kTileBytes) {
        auto& magnitude = magnitudes[head % 3];
        uint4 bits[Rows::kTurns];
        source.take(bits);
        Channels keys[Rows::kTurns];
        const Channels mean = heads.lane_channels(1, head);
        const float4 balance = heads.lane_pairs(0, head);
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            float factor;
            keys[turn] = finish(bits[turn], turn, factor);
#pragma unroll
            for (int i = 0; i < kChunkChannels; ++i) {
                keys[turn].x[i] = fmaf(keys[turn].x[i], factor * element(balance, i / 2), -mean.x[i]);
            }
        }
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const float largest = row_max<Rows::kLanes>(largest_magnitude(keys[turn]));
            if (rows.lane == 0) {
                atomicMax(&magnitude[rows.row(turn) / 2 % kKeyGroups], __float_as_uint(largest));
            }
        }
        if (threadIdx.x < kKeyGroups) {
            magnitudes[(head + 1) % 3][threadIdx.x] = 0;
        }
        __syncthreads();
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const float forward = int8_scale(__uint_as_float(magnitude[rows.row(turn) / 2 % kKeyGroups])).forward;
            *reinterpret_cast<uint2*>(packed + turn * Rows::kRows * kHeadDim) = {quantize_4(keys[turn].x, forward),
                                                                                 quantize_4(keys[turn].x + 4, forward)};
        }
        KeyRecord& record = p.in_workspace<KeyRecord>(p.at.key_record)[rows.at(head)];
        if (threadIdx.x < kKeyGroups) {
            record.scale[threadIdx.x] = int8_scale(__uint_as_float(magnitude[threadIdx.x])).back;
        } else if (threadIdx.x == kKeyGroups) {
            record.tokens = rows.own.tokens;
        }
    }
}

template <int kHeadDim>
__device__ inline void prepare_values_in_fp8(const TileRows<kHeadDim>& rows, OfHeads<kHeadDim> heads) {
    using Rows = TileRows<kHeadDim>;
    constexpr int kStride = kTileTokens / 4 + 1;  // words: neighbouring channels in different banks
    constexpr int kWords = kTileTokens / 4;
    // By head, so that one barrier a head is enough.
    __shared__ std::uint32_t words[2][kHeadDim * kStride];
    __shared__ __half errors[2][kWords][kHeadDim];  // of the four tokens of a word
    const PrepareParameters& p = rows.p;
    // A thread takes four channels of the four tokens that become one word.
    constexpr int kLanes = kHeadDim / 4;
    static_assert(kTileTokens / 4 * kLanes == Rows::kThreads);
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int word = static_cast<int>(threadIdx.x) / kLanes;
    const auto token = [&](int b) { return word / 8 * 32 + word / 4 % 2 * 16 + word % 4 * 2 + b % 2 + b / 2 * 8; };
    const auto load = [&](int head, uint2(&bits)[4]) {
        if (head < rows.end_head) {
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                bits[b] = *reinterpret_cast<const uint2*>(
                    p.value.row(rows.own.first + (token(b) < rows.own.tokens ? token(b) : 0), head) + lane * 4);
            }
        }
    };
    std::uint32_t real = 0;  // the bytes of tokens that the tile has
#pragma unroll
    for (int b = 0; b < 4; ++b) {
        real |= token(b) < rows.own.tokens ? 0xffU << 8 * b : 0;
    }
    const std::uint32_t real_halves[2] = {__byte_perm(real, 0, 0x1100), __byte_perm(real, 0, 0x3322)};
    constexpr std::size_t kTileBytes = kValueTileBytes<ValueFormat::kFp8, kHeadDim>;
    uint2 bits[4];
    load(rows.first_head, bits);
    heads.template load<kHeadDim>(0, [&](int i) { return p.in_workspace<float>(p.at.value_forward)[i]; });
    heads.template load<kHeadDim>(1, [&](int i) {
        return -p.in_workspace<float>(p.at.value_mean)[i] * p.in_workspace<float>(p.at.value_forward)[i];
    });
    __syncthreads();
    for (int head = rows.first_head; head < rows.end_head; ++head) {
        std::byte* tile = p.in_workspace<std::byte>(p.at.value) + rows.at(head) * kTileBytes;
        const float4 forward = heads.template four<kHeadDim>(0, head, lane * 4);
        const float4 offset = heads.template four<kHeadDim>(1, head, lane * 4);
        __half2 error[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            float four[4];
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const std::uint32_t pair = c < 2 ? bits[b].x : bits[b].y;
                const float value = __uint_as_float(c % 2 == 0 ? pair << 16 : pair & 0xffff0000U);
                four[b] = fmaf(value, element(forward, c), element(offset, c));
            }
            // By way of FP16, in which errors are exact but for its own rounding, 1/128 of e4m3's.
            const __half2 exact[2] = {__floats2half2_rn(four[0], four[1]), __floats2half2_rn(four[2], four[3])};
            const std::uint32_t packed = ptx::pack_fp8(exact[0], exact[1]);
            words[head % 2][(lane * 4 + c) * kStride + word] = packed & real;
            error[c] = __hadd2(ptx::mask(__hsub2(ptx::unpack_fp8(packed), exact[0]), real_halves[0]),
                               ptx::mask(__hsub2(ptx::unpack_fp8(packed >> 16), exact[1]), real_halves[1]));
        }
        auto* of_word = reinterpret_cast<__half2*>(&errors[head % 2][word][lane * 4]);
        of_word[0] = __hadd2(__lows2half2(error[0], error[1]), __highs2half2(error[0], error[1]));
        of_word[1] = __hadd2(__lows2half2(error[2], error[3]), __highs2half2(error[2], error[3]));
        load(head + 1, bits);
        if (lane < kOnesRows) {
            constexpr std::uint32_t kOnes = 0x38383838;  // 1 four times
            const int row = kHeadDim + lane;
            *reinterpret_cast<std::uint32_t*>(tile + row * kTileTokens +
                                              swizzled_chunk(kTileTokens, row, word / 4) * 16 + word % 4 * 4) =
                kOnes & real;
        }
        __syncthreads();
        static_assert(kHeadDim * 4 == Rows::kThreads);
        const int row = static_cast<int>(threadIdx.x) / 4;
        const int chunk = static_cast<int>(threadIdx.x) % 4;
        const std::uint32_t* of = words[head % 2] + row * kStride + chunk * 4;
        *reinterpret_cast<uint4*>(tile + row * kTileTokens + swizzled_chunk(kTileTokens, row, chunk) * 16) = {
            of[0], of[1], of[2], of[3]};
        float of_channel = 0;
#pragma unroll
        for (int w = 0; w < kWords / 4; ++w) {
            of_channel += __half2float(errors[head % 2][chunk * (kWords / 4) + w][row]);
        }
        of_channel = lane_sum<4>(of_channel);
        if (chunk == 0) {
            p.in_workspace<__half>(p.at.value_errors)[rows.at(head) * kHeadDim + row] = __float2half_rn(of_channel);
        }
    }
}

template <int kHeadDim>
__device__ inline void prepare_values_in_fp16(const TileRows<kHeadDim>& rows, OfHeads<kHeadDim> heads) {
    using Rows = TileRows<kHeadDim>;
    const PrepareParameters& p = rows.p;
    constexpr int kRowBytes = 2 * kHeadDim;
    Source<kHeadDim> source(rows, p.value);
    heads.template load<kHeadDim>(0, [&](int i) { return p.in_workspace<float>(p.at.value_forward)[i]; });
    __syncthreads();
    for (int head = rows.first_head; head < rows.end_head; ++head) {
        uint4 bits[Rows::kTurns];
        source.take(bits);
        const Channels forward = heads.lane_channels(0, head);
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const Channels value = unpack(rows.row(turn) < rows.own.tokens ? bits[turn] : uint4{});
            std::uint32_t pairs[kChunkChannels / 2];
#pragma unroll
            for (int i = 0; i < kChunkChannels / 2; ++i) {
                pairs[i] = ptx::pack_half(value.x[2 * i] * forward.x[2 * i], value.x[2 * i + 1] * forward.x[2 * i + 1]);
            }
            const int row = rows.row(turn);
            *reinterpret_cast<uint4*>(
                p.in_workspace<std::byte>(p.at.value) + (rows.at(head) * kTileTokens + row) * kRowBytes +
                swizzled_chunk(kRowBytes, row, rows.lane) * 16) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
}

// Grid [tiles * head_blocks * kParts].
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kPrepareThreads<kHeadDim>, 2) prepare(const PrepareParameters p) {
    __shared__ typename OfHeads<kHeadDim>::Memory memory;
    const TileRows<kHeadDim> rows(p);
    const OfHeads<kHeadDim> heads(memory, rows);
    switch (static_cast<Part>(blockIdx.x % kParts)) {
        case Part::kQueries:
            return prepare_queries(rows, heads);
        case Part::kKeys:
            return prepare_keys(rows, heads);
        case Part::kValues:
            if constexpr (kFormat == ValueFormat::kFp8) {
                return prepare_values_in_fp8(rows, heads);
            } else {
                return prepare_values_in_fp16(rows, heads);
            }
    }
}

constexpr int kCorrectThreads = 128;

// What the output of each query tile has to gain: the mean of the values, less that of what rounding added to those
// that it attends to. Grid [pairs * heads]: long pairs first.
template <int kHeadDim>
__global__ void __launch_bounds__(kCorrectThreads)
    correct(const PrepareParameters p, const TilePair* pairs, const TileRun* runs, const std::int32_t* key_tokens) {
    constexpr int kLanes = kHeadDim / kChunkChannels;  // that share a tile
    constexpr int kTiles = kCorrectThreads / kLanes;   // at a time
    __shared__ float sums[kPairTiles][kTiles][kHeadDim];
    __shared__ TileRun some_runs[kCorrectThreads];
    const int head = static_cast<int>(blockIdx.x) % p.heads;
    const TilePair pair = pairs[static_cast<int>(blockIdx.x) / p.heads];
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int turn = static_cast<int>(threadIdx.x) / kLanes;
    const __half* errors = p.in_workspace<__half>(p.at.value_errors) + lane * kChunkChannels;

    Channels sum[kPairTiles] = {};
    std::int32_t skip = turn;  // tiles until the next of this turn
    for (std::int32_t r = pair.runs_first; r < pair.runs_end; ++r) {
        const std::int32_t place = (r - pair.runs_first) % kCorrectThreads;
        if (place == 0) {
            __syncthreads();
            if (r + static_cast<std::int32_t>(threadIdx.x) < pair.runs_end) {
                some_runs[threadIdx.x] = runs[r + static_cast<std::int32_t>(threadIdx.x)];
            }
            __syncthreads();
        }
        const TileRun& run = some_runs[place];
        std::int32_t tile = run.first + skip;
#pragma unroll 4
        for (; tile < run.end; tile += kTiles) {
            const uint4 bits = *reinterpret_cast<const uint4*>(errors + p.head_tile(head, tile) * kHeadDim);
            const auto* two = reinterpret_cast<const __half2*>(&bits);
#pragma unroll
            for (int t = 0; t < kPairTiles; ++t) {
                if ((run.cells >> t & 1) != 0) {
#pragma unroll
                    for (int i = 0; i < kChunkChannels / 2; ++i) {
                        const float2 error = __half22float2(two[i]);
                        sum[t].x[2 * i] += error.x;
                        sum[t].x[2 * i + 1] += error.y;
                    }
                }
            }
        }
        skip = tile - run.end;
    }
#pragma unroll
    for (int t = 0; t < kPairTiles; ++t) {
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            sums[t][turn][lane * kChunkChannels + i] = sum[t].x[i];
        }
    }
    __syncthreads();
    const int channel = static_cast<int>(threadIdx.x);
    if (channel < kHeadDim) {
        const int at = head * kHeadDim + channel;
        const float mean = p.in_workspace<float>(p.at.value_mean)[at];
        const float limit = p.in_workspace<float>(p.at.value_limits)[at] * (1 / kFp8Limit);
        for (int t = 0; t < kPairTiles && pair.tile[t] >= 0; ++t) {
            float all = 0;
#pragma unroll
            for (int other = 0; other < kTiles; ++other) {
                all += sums[t][other][channel];
            }
            p.in_workspace<float>(p.at.output_mean)[p.head_tile(head, pair.tile[t]) * kHeadDim + channel] =
                fmaf(-all / static_cast<float>(key_tokens[pair.tile[t]]), limit, mean);
        }
    }
}

}  // namespace scaledit::cuda
