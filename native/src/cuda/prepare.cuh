// The pre-pass: from the projections' output to the packed INT8 and FP8 or FP16 tiles (packed.h), with the queries' and
// keys' RMSNorm and rotation on the way.
//
// measure() looks at a sample of the keys for their mean (any vector close to it will do: what is subtracted from all
// keys of a head changes no weight) and at all values for their channels' means and ranges; prepare() reads everything
// once more and writes the tiles. Values lose their mean on the way to e4m3, and the attention adds it again at its
// end, as weights add up to 1: matrix instructions sum FP8 products with few bits, which shrinks sums of one sign.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"

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
    bool with_mean;  // whether the products of queries with the mean key are wanted
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

constexpr int kLaneChannels = 8;  // of a row that a lane holds: one 16-byte load

struct LaneChannels {
    float x[kLaneChannels];
};

__device__ inline LaneChannels unpack(const uint4& bits) {
    LaneChannels channels;
    const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        channels.x[2 * i] = __uint_as_float(words[i] << 16);
        channels.x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
    }
    return channels;
}

__device__ inline uint4 load_channels(const __nv_bfloat16* row, int lane) {
    return *reinterpret_cast<const uint4*>(row + lane * kLaneChannels);
}

// The sum over the lanes that share a row.
template <int kLanes>
__device__ inline float row_sum(float x) {
#pragma unroll
    for (int lane = kLanes / 2; lane > 0; lane /= 2) {
        x += __shfl_xor_sync(0xffffffffU, x, lane);
    }
    return x;
}
// The maximum of magnitudes, by their bits: a NaN is above all.
template <int kLanes>
__device__ inline std::uint32_t row_max(std::uint32_t bits) {
#pragma unroll
    for (int lane = kLanes / 2; lane > 0; lane /= 2) {
        bits = max(bits, __shfl_xor_sync(0xffffffffU, bits, lane));
    }
    return bits;
}

__device__ inline std::uint32_t largest_magnitude(const LaneChannels& channels) {
    std::uint32_t largest = 0;
#pragma unroll
    for (const float x : channels.x) {
        largest = max(largest, __float_as_uint(x) & 0x7fffffffU);
    }
    return largest;
}

template <int kLanes>
__device__ inline void norm(LaneChannels& channels, const LaneChannels& weight, float epsilon) {
    float squares = 0;
#pragma unroll
    for (const float x : channels.x) {
        squares = fmaf(x, x, squares);
    }
    const float factor = rsqrtf(row_sum<kLanes>(squares) / (kLanes * kLaneChannels) + epsilon);
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) {
        channels.x[i] *= factor * weight.x[i];
    }
}

struct LaneRotation {
    float2 turn[kLaneChannels / 2];
};

__device__ inline LaneRotation load_rotation(const float2* row, int lane) {
    LaneRotation rotation;
#pragma unroll
    for (int i = 0; i < kLaneChannels / 4; ++i) {
        const float4 two = *reinterpret_cast<const float4*>(row + lane * (kLaneChannels / 2) + 2 * i);
        rotation.turn[2 * i] = {two.x, two.y};
        rotation.turn[2 * i + 1] = {two.z, two.w};
    }
    return rotation;
}

__device__ inline void rotate(LaneChannels& channels, const LaneRotation& rotation) {
#pragma unroll
    for (int i = 0; i < kLaneChannels / 2; ++i) {
        const auto [cosine, sine] = rotation.turn[i];
        const float x = channels.x[2 * i];
        const float y = channels.x[2 * i + 1];
        channels.x[2 * i] = fmaf(x, cosine, -y * sine);
        channels.x[2 * i + 1] = fmaf(y, cosine, x * sine);
    }
}

constexpr float kInt8Limit = 127;
constexpr float kSmallestScale = 9.5367431640625e-7F;  // 2^-20: of zeros, for which any will do

struct QuantizationScale {
    float back;
    float forward;
};
__device__ inline QuantizationScale int8_scale(std::uint32_t magnitude) {
    const float largest = __uint_as_float(magnitude);
    // Not fmaxf, which drops a NaN.
    const float back = largest < kSmallestScale * kInt8Limit ? kSmallestScale : largest / kInt8Limit;
    return {back, 1 / back};
}

__device__ inline std::uint32_t quantize_4(const float* x, float forward) {
    std::uint32_t packed = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        packed |= (static_cast<std::uint32_t>(__float2int_rn(x[i] * forward)) & 0xffU) << (8 * i);
    }
    return packed;
}

// This lane's channels of a [heads, head_dim] array.
template <int kHeadDim>
__device__ inline LaneChannels load_lane(const float* of_heads, int head, int lane) {
    LaneChannels channels;
#pragma unroll
    for (int i = 0; i < kLaneChannels; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(of_heads + head * kHeadDim + lane * kLaneChannels + i);
        channels.x[i] = four.x;
        channels.x[i + 1] = four.y;
        channels.x[i + 2] = four.z;
        channels.x[i + 3] = four.w;
    }
    return channels;
}

constexpr int kMeasureThreads = 256;
constexpr int kMeasureStride = 16;  // of the tokens whose keys are looked at

// A short sequence is looked at as a whole.
__device__ inline std::int64_t sample_stride(std::int64_t tokens) {
    return tokens < kMeasureStride * 1024 ? 1 : kMeasureStride;
}

// Grid [heads, kSampleBlocks].
template <int kHeadDim>
__global__ void __launch_bounds__(kMeasureThreads) measure(const PrepareParameters p) {
    constexpr int kLanes = kHeadDim / kLaneChannels;
    constexpr int kRows = kMeasureThreads / kLanes;
    __shared__ float shared[kRows][kHeadDim];
    const int head = static_cast<int>(blockIdx.x);
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int row = static_cast<int>(threadIdx.x) / kLanes;

    // Joins what the block's rows have of each channel, and keeps it for conclude().
    const auto join = [&](const LaneChannels& own, std::size_t to, auto&& both) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kLaneChannels; ++i) {
            shared[row][lane * kLaneChannels + i] = own.x[i];
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

    LaneChannels key_sum{};
    const std::int64_t stride = sample_stride(p.tokens);
    const std::int64_t sample = (p.tokens + stride - 1) / stride;
    for (std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kRows; first < sample;
         first += kSampleBlocks * kRows) {
        const std::int64_t token = (first + row) * stride;
        const bool real = first + row < sample;
        LaneChannels key = unpack(load_channels(p.key.row(real ? token : 0, head), lane));
        if (p.key_norm != nullptr) {
            const auto* weight = token < p.text_tokens ? p.text_key_norm : p.key_norm;
            norm<kLanes>(key, unpack(load_channels(weight, lane)), p.norm_epsilon);
        }
        if (p.rotation != nullptr) {
            rotate(key, load_rotation(p.rotation + (real ? token : 0) * (kHeadDim / 2), lane));
        }
#pragma unroll
        for (int i = 0; i < kLaneChannels; ++i) {
            key_sum.x[i] += real ? key.x[i] : 0;
        }
    }
    join(key_sum, p.at.key_sums, add);

    LaneChannels sum{};
    LaneChannels low;
    LaneChannels high;
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) {
        low.x[i] = INFINITY;
        high.x[i] = -INFINITY;
    }
    constexpr int kAhead = 4;
    for (std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kRows; first < p.tokens;
         first += kAhead * kSampleBlocks * kRows) {
        uint4 bits[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const std::int64_t token = first + row + i * kSampleBlocks * kRows;
            bits[i] = load_channels(p.value.row(token < p.tokens ? token : 0, head), lane);
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const bool real = first + row + i * kSampleBlocks * kRows < p.tokens;
            const LaneChannels value = unpack(bits[i]);
#pragma unroll
            for (int c = 0; c < kLaneChannels; ++c) {
                sum.x[c] += real && fabsf(value.x[c]) < INFINITY ? value.x[c] : 0;  // a NaN stays its rows' own
                low.x[c] = fminf(low.x[c], value.x[c]);
                high.x[c] = fmaxf(high.x[c], value.x[c]);
            }
        }
    }
    join(sum, p.at.value_sums, add);
    join(low, p.at.value_lows, [](float a, float b) { return fminf(a, b); });
    join(high, p.at.value_highs, [](float a, float b) { return fmaxf(a, b); });
}

// Grid [heads], a thread for each channel: the mean key, the mean value, and what values are multiplied by.
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kHeadDim) conclude(const PrepareParameters p) {
    const int channel = static_cast<int>(blockIdx.x) * kHeadDim + static_cast<int>(threadIdx.x);
    float key_sum = 0;
    float value_sum = 0;
    float low = INFINITY;
    float high = -INFINITY;
#pragma unroll 8
    for (int block = 0; block < kSampleBlocks; ++block) {
        const int at = block * p.heads * kHeadDim + channel;
        key_sum += p.in_workspace<float>(p.at.key_sums)[at];
        value_sum += p.in_workspace<float>(p.at.value_sums)[at];
        low = fminf(low, p.in_workspace<float>(p.at.value_lows)[at]);
        high = fmaxf(high, p.in_workspace<float>(p.at.value_highs)[at]);
    }
    const std::int64_t stride = sample_stride(p.tokens);
    p.in_workspace<float>(p.at.key_mean)[channel] = key_sum / static_cast<float>((p.tokens + stride - 1) / stride);
    float mean = 0;
    float limit = fmaxf(high, -low);
    if constexpr (kFormat == ValueFormat::kFp8) {
        mean = value_sum / static_cast<float>(p.tokens);
        limit = fmaxf(high - mean, mean - low);
    } else {
        limit = __uint_as_float(__float_as_uint(limit) & 0x7f800000U);  // the power of two below
    }
    p.in_workspace<float>(p.at.value_mean)[channel] = mean;
    p.in_workspace<float>(p.at.value_limits)[channel] = limit;
    p.in_workspace<float>(p.at.value_forward)[channel] = limit < 1e-30F ? 0 : kValueLimit<kFormat> / limit;
    if (channel == 0) {
        *p.in_workspace<std::int32_t>(p.at.next) = 0;
    }
}

template <int kHeadDim>
constexpr int kPrepareThreads = 4 * kHeadDim;
constexpr int kPrepareHeads = 6;  // of a tile that a block makes: the rotation is read once for all of them
// What a block makes of its tile, its place in the grid's third direction.
enum class Part { kQueries, kKeys, kValues };
constexpr int kParts = 3;

// One tile of some heads, as a block of prepare() sees it.
template <int kHeadDim>
class TileRows {
public:
    static constexpr int kThreads = kPrepareThreads<kHeadDim>;
    static constexpr int kLanes = kHeadDim / kLaneChannels;  // that share a row
    static constexpr int kRows = kThreads / kLanes;          // at a time
    static constexpr int kTurns = kTileTokens / kRows;       // until all rows are done
    static constexpr std::size_t kTileBytes = kTileTokens * kHeadDim;

    __device__ TileRows(const PrepareParameters& parameters)
        : p(parameters),
          tile(static_cast<int>(blockIdx.x)),
          own(p.tiles[tile]),
          lane(static_cast<int>(threadIdx.x) % kLanes),
          first_head(static_cast<int>(blockIdx.y) * kPrepareHeads),
          end_head(min(first_head + kPrepareHeads, p.heads)) {}

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

// This lane's channels of a tile's rows, head after head.
template <int kHeadDim>
class Source {
public:
    using Rows = TileRows<kHeadDim>;
    __device__ Source(const Rows& rows, const DeviceTensor& tensor) : head_stride_(tensor.head_stride) {
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            from_[turn] = tensor.row(rows.own.first + rows.real_row(turn), rows.first_head) + rows.lane * kLaneChannels;
        }
    }
    // The next head's.
    __device__ void load(uint4 (&bits)[Rows::kTurns]) {
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            bits[turn] = *reinterpret_cast<const uint4*>(from_[turn]);
            from_[turn] += head_stride_;
        }
    }

private:
    const __nv_bfloat16* from_[Rows::kTurns];
    std::int64_t head_stride_;
};

// Norm and rotation of queries or keys.
template <int kHeadDim>
class Finish {
public:
    using Rows = TileRows<kHeadDim>;
    __device__ Finish(const Rows& rows, const __nv_bfloat16* norm_weight, const __nv_bfloat16* text_norm_weight)
        : normed_(norm_weight != nullptr), rotated_(rows.p.rotation != nullptr), epsilon_(rows.p.norm_epsilon) {
        if (normed_) {
            weight_ = load_channels(rows.own.first < rows.p.text_tokens ? text_norm_weight : norm_weight, rows.lane);
        }
        if (rotated_) {
#pragma unroll
            for (int turn = 0; turn < Rows::kTurns; ++turn) {
                rotation_[turn] = load_rotation(
                    rows.p.rotation + (std::int64_t{rows.own.first} + rows.real_row(turn)) * (kHeadDim / 2), rows.lane);
            }
        }
    }
    __device__ LaneChannels operator()(const uint4& bits, int turn) const {
        LaneChannels channels = unpack(bits);
        if (normed_) {
            norm<Rows::kLanes>(channels, unpack(weight_), epsilon_);
        }
        if (rotated_) {
            rotate(channels, rotation_[turn]);
        }
        return channels;
    }

private:
    bool normed_;
    bool rotated_;
    float epsilon_;
    uint4 weight_{};
    LaneRotation rotation_[Rows::kTurns];
};

template <int kHeadDim>
__device__ inline void prepare_queries(const TileRows<kHeadDim>& rows) {
    using Rows = TileRows<kHeadDim>;
    const PrepareParameters& p = rows.p;
    const Finish<kHeadDim> finish(rows, p.query_norm, p.text_query_norm);
    Source<kHeadDim> source(rows, p.query);
    std::byte* packed = rows.packed(p.at.query);
    for (int head = rows.first_head; head < rows.end_head; ++head, packed += p.tile_count * Rows::kTileBytes) {
        uint4 bits[Rows::kTurns];
        source.load(bits);
        const std::size_t at = rows.at(head);
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const int row = rows.row(turn);
            const LaneChannels query = finish(bits[turn], turn);
            const QuantizationScale scale = int8_scale(row_max<Rows::kLanes>(largest_magnitude(query)));
            if (rows.lane == 0) {
                p.in_workspace<float>(p.at.query_scale)[at * kTileTokens + row] = scale.back * p.scale * ptx::kLog2E;
            }
            if (p.with_mean) {
                const LaneChannels mean = load_lane<kHeadDim>(p.in_workspace<float>(p.at.key_mean), head, rows.lane);
                float product = 0;
#pragma unroll
                for (int i = 0; i < kLaneChannels; ++i) {
                    product = fmaf(query.x[i], mean.x[i], product);
                }
                product = row_sum<Rows::kLanes>(product);
                if (rows.lane == 0) {
                    p.in_workspace<float>(p.at.query_mean)[at * kTileTokens + row] = product * p.scale;
                }
            }
            *reinterpret_cast<uint2*>(packed + turn * Rows::kRows * kHeadDim) = {
                quantize_4(query.x, scale.forward), quantize_4(query.x + 4, scale.forward)};
        }
    }
}

template <int kHeadDim>
__device__ inline void prepare_keys(const TileRows<kHeadDim>& rows) {
    using Rows = TileRows<kHeadDim>;
    // By head, so that one barrier a head is enough: one is written, one read, one cleared.
    __shared__ std::uint32_t magnitudes[3][kKeyGroups];
    const PrepareParameters& p = rows.p;
    const Finish<kHeadDim> finish(rows, p.key_norm, p.text_key_norm);
    if (threadIdx.x < 3 * kKeyGroups) {
        magnitudes[threadIdx.x / kKeyGroups][threadIdx.x % kKeyGroups] = 0;
    }
    Source<kHeadDim> source(rows, p.key);
    std::byte* packed = rows.packed(p.at.key);
    __syncthreads();
    for (int head = rows.first_head; head < rows.end_head; ++head, packed += p.tile_count * Rows::kTileBytes) {
        auto& magnitude = magnitudes[head % 3];
        uint4 bits[Rows::kTurns];
        source.load(bits);
        LaneChannels keys[Rows::kTurns];
        const LaneChannels mean = load_lane<kHeadDim>(p.in_workspace<float>(p.at.key_mean), head, rows.lane);
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            keys[turn] = finish(bits[turn], turn);
#pragma unroll
            for (int i = 0; i < kLaneChannels; ++i) {
                keys[turn].x[i] -= mean.x[i];
            }
        }
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const std::uint32_t largest = row_max<Rows::kLanes>(largest_magnitude(keys[turn]));
            if (rows.lane == 0) {
                atomicMax(&magnitude[rows.row(turn) / 2 % kKeyGroups], largest);
            }
        }
        if (threadIdx.x < kKeyGroups) {
            magnitudes[(head + 1) % 3][threadIdx.x] = 0;
        }
        __syncthreads();
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const float forward = int8_scale(magnitude[rows.row(turn) / 2 % kKeyGroups]).forward;
            *reinterpret_cast<uint2*>(packed + turn * Rows::kRows * kHeadDim) = {quantize_4(keys[turn].x, forward),
                                                                                 quantize_4(keys[turn].x + 4, forward)};
        }
        if (threadIdx.x == 0) {
            KeyRecord record{};
#pragma unroll
            for (int group = 0; group < kKeyGroups; ++group) {
                record.scale[group] = int8_scale(magnitude[group]).back;
            }
            record.tokens = rows.own.tokens;
            p.in_workspace<KeyRecord>(p.at.key_record)[rows.at(head)] = record;
        }
    }
}

template <int kHeadDim>
__device__ inline void prepare_values_in_fp8(const TileRows<kHeadDim>& rows) {
    using Rows = TileRows<kHeadDim>;
    constexpr int kStride = kTileTokens / 4 + 1;  // words: neighbouring channels in different banks
    // By head, so that one barrier a head is enough.
    __shared__ std::uint32_t words[2][kHeadDim * kStride];
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
    constexpr std::size_t kTileBytes = kValueTileBytes<ValueFormat::kFp8, kHeadDim>;
    uint2 bits[4];
    load(rows.first_head, bits);
    for (int head = rows.first_head; head < rows.end_head; ++head) {
        std::byte* tile = p.in_workspace<std::byte>(p.at.value) + rows.at(head) * kTileBytes;
        const int channel = head * kHeadDim + lane * 4;
        const float4 forward = *reinterpret_cast<const float4*>(p.in_workspace<float>(p.at.value_forward) + channel);
        const float4 mean = *reinterpret_cast<const float4*>(p.in_workspace<float>(p.at.value_mean) + channel);
        const float factor[4] = {forward.x, forward.y, forward.z, forward.w};
        const float center[4] = {mean.x, mean.y, mean.z, mean.w};
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            float four[4];
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const std::uint32_t pair = c < 2 ? bits[b].x : bits[b].y;
                const float value = __uint_as_float(c % 2 == 0 ? pair << 16 : pair & 0xffff0000U);
                four[b] = token(b) < rows.own.tokens ? (value - center[c]) * factor[c] : 0;
            }
            words[head % 2][(lane * 4 + c) * kStride + word] = ptx::pack_fp8(four[0], four[1], four[2], four[3]);
        }
        load(head + 1, bits);
        if (lane < kOnesRows) {
            std::uint32_t ones = 0;
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                ones |= token(b) < rows.own.tokens ? 0x38U << 8 * b : 0;  // 1 in e4m3
            }
            const int row = kHeadDim + lane;
            *reinterpret_cast<std::uint32_t*>(tile + row * kTileTokens +
                                              swizzled_chunk(kTileTokens, row, word / 4) * 16 + word % 4 * 4) = ones;
        }
        __syncthreads();
        static_assert(kHeadDim * 4 == Rows::kThreads);
        const int row = static_cast<int>(threadIdx.x) / 4;
        const int chunk = static_cast<int>(threadIdx.x) % 4;
        const std::uint32_t* of = words[head % 2] + row * kStride + chunk * 4;
        *reinterpret_cast<uint4*>(tile + row * kTileTokens + swizzled_chunk(kTileTokens, row, chunk) * 16) = {
            of[0], of[1], of[2], of[3]};
    }
}

template <int kHeadDim>
__device__ inline void prepare_values_in_fp16(const TileRows<kHeadDim>& rows) {
    using Rows = TileRows<kHeadDim>;
    const PrepareParameters& p = rows.p;
    constexpr int kRowBytes = 2 * kHeadDim;
    Source<kHeadDim> source(rows, p.value);
    for (int head = rows.first_head; head < rows.end_head; ++head) {
        uint4 bits[Rows::kTurns];
        source.load(bits);
        const LaneChannels forward = load_lane<kHeadDim>(p.in_workspace<float>(p.at.value_forward), head, rows.lane);
#pragma unroll
        for (int turn = 0; turn < Rows::kTurns; ++turn) {
            const LaneChannels value = unpack(rows.row(turn) < rows.own.tokens ? bits[turn] : uint4{});
            std::uint32_t pairs[kLaneChannels / 2];
#pragma unroll
            for (int i = 0; i < kLaneChannels / 2; ++i) {
                pairs[i] = ptx::pack_half(value.x[2 * i] * forward.x[2 * i], value.x[2 * i + 1] * forward.x[2 * i + 1]);
            }
            const int row = rows.row(turn);
            *reinterpret_cast<uint4*>(
                p.in_workspace<std::byte>(p.at.value) + (rows.at(head) * kTileTokens + row) * kRowBytes +
                swizzled_chunk(kRowBytes, row, rows.lane) * 16) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
}

// Grid [tiles, heads / kPrepareHeads, kParts].
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kPrepareThreads<kHeadDim>, 2) prepare(const PrepareParameters p) {
    const TileRows<kHeadDim> rows(p);
    switch (static_cast<Part>(blockIdx.z)) {
        case Part::kQueries:
            return prepare_queries(rows);
        case Part::kKeys:
            return prepare_keys(rows);
        case Part::kValues:
            if constexpr (kFormat == ValueFormat::kFp8) {
                return prepare_values_in_fp8(rows);
            } else {
                return prepare_values_in_fp16(rows);
            }
    }
}

}  // namespace scaledit::cuda
