// The pre-pass: from the projections' output to the packed INT8 and FP8 or FP16 tiles (packed.h), with the queries' and
// keys' RMSNorm and rotation on the way.
//
// measure() looks at a sample of the keys for their mean (any vector close to it will do: what is subtracted from all
// keys of a head changes no weight) and at all values for their channels' maxima; prepare() reads everything once more
// and writes the tiles.
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

constexpr int kMeasureThreads = 256;
constexpr int kMeasureStride = 16;  // of the tokens whose keys are looked at

// Grid [heads, kSampleBlocks]. value_limits are zeros before.
template <int kHeadDim>
__global__ void __launch_bounds__(kMeasureThreads) measure(const PrepareParameters p) {
    constexpr int kLanes = kHeadDim / kLaneChannels;
    constexpr int kRows = kMeasureThreads / kLanes;
    __shared__ float shared[kRows][kHeadDim];
    const int head = static_cast<int>(blockIdx.x);
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int row = static_cast<int>(threadIdx.x) / kLanes;

    LaneChannels sum{};
    // A short sequence is looked at as a whole.
    const std::int64_t stride = p.tokens < kMeasureStride * 1024 ? 1 : kMeasureStride;
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
            sum.x[i] += real ? key.x[i] : 0;
        }
    }
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) {
        shared[row][lane * kLaneChannels + i] = sum.x[i];
    }
    __syncthreads();
    if (threadIdx.x < kHeadDim) {
        float total = 0;
        for (int r = 0; r < kRows; ++r) {
            total += shared[r][threadIdx.x];
        }
        p.in_workspace<float>(p.at.key_sums)[(blockIdx.y * p.heads + head) * kHeadDim + threadIdx.x] =
            total / static_cast<float>(sample);
    }
    __syncthreads();

    std::uint32_t largest[kLaneChannels] = {};
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
        for (const uint4& four : bits) {
            const LaneChannels value = unpack(four);
#pragma unroll
            for (int i = 0; i < kLaneChannels; ++i) {
                largest[i] = max(largest[i], __float_as_uint(value.x[i]) & 0x7fffffffU);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) {
        shared[row][lane * kLaneChannels + i] = __uint_as_float(largest[i]);
    }
    __syncthreads();
    if (threadIdx.x < kHeadDim) {
        std::uint32_t limit = 0;
        for (int r = 0; r < kRows; ++r) {
            limit = max(limit, __float_as_uint(shared[r][threadIdx.x]));
        }
        atomicMax(p.in_workspace<std::uint32_t>(p.at.value_limits) + head * kHeadDim + threadIdx.x, limit);
    }
}

// Grid [heads], a thread for each channel: the mean key, and what values are multiplied by.
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kHeadDim) conclude(const PrepareParameters p) {
    const int channel = static_cast<int>(blockIdx.x) * kHeadDim + static_cast<int>(threadIdx.x);
    float sum = 0;
#pragma unroll
    for (int block = 0; block < kSampleBlocks; ++block) {
        sum += p.in_workspace<float>(p.at.key_sums)[block * p.heads * kHeadDim + channel];
    }
    p.in_workspace<float>(p.at.key_mean)[channel] = sum;
    float& limit = p.in_workspace<float>(p.at.value_limits)[channel];
    if constexpr (kFormat == ValueFormat::kFp16) {
        limit = __uint_as_float(__float_as_uint(limit) & 0x7f800000U);  // the power of two below
    }
    p.in_workspace<float>(p.at.value_forward)[channel] = limit < 1e-30F ? 0 : kValueLimit<kFormat> / limit;
}

template <int kHeadDim>
constexpr int kPrepareThreads = 4 * kHeadDim;
constexpr int kPrepareHeads = 6;  // of a tile that a block makes: the rotation is read once for all of them

// Grid [tiles, heads / kPrepareHeads, 2]: blocks for queries, and for keys and values.
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kPrepareThreads<kHeadDim>, 2) prepare(const PrepareParameters p) {
    constexpr int kThreads = kPrepareThreads<kHeadDim>;
    constexpr int kLanes = kHeadDim / kLaneChannels;   // that share a row
    constexpr int kRows = kThreads / kLanes;           // at a time
    constexpr int kTurns = kTileTokens / kRows;        // until all rows are done
    constexpr int kValueStride = kTileTokens / 4 + 1;  // words: neighbouring channels in different banks
    constexpr std::size_t kTileBytes = kTileTokens * kHeadDim;
    __shared__ std::uint32_t values[kFormat == ValueFormat::kFp8 ? kHeadDim * kValueStride : 1];
    __shared__ std::uint32_t key_magnitude[kKeyGroups];

    const int tile = static_cast<int>(blockIdx.x);
    const TokenRange own = p.tiles[tile];
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int place = static_cast<int>(threadIdx.x) / kLanes;
    const auto row_of = [&](int turn) { return turn * kRows + place; };

    LaneRotation rotation[kTurns];
    if (p.rotation != nullptr) {
#pragma unroll
        for (int turn = 0; turn < kTurns; ++turn) {
            const int row = row_of(turn);
            rotation[turn] = load_rotation(
                p.rotation + (std::int64_t{own.first} + (row < own.tokens ? row : 0)) * (kHeadDim / 2), lane);
        }
    }
    const bool text = own.first < p.text_tokens;
    const bool normed = p.query_norm != nullptr;
    uint4 query_weight{};
    uint4 key_weight{};
    if (normed) {
        query_weight = load_channels(text ? p.text_query_norm : p.query_norm, lane);
        key_weight = load_channels(text ? p.text_key_norm : p.key_norm, lane);
    }

    const auto load_rows = [&](const DeviceTensor& tensor, int head, uint4(&bits)[kTurns]) {
#pragma unroll
        for (int turn = 0; turn < kTurns; ++turn) {
            const int row = row_of(turn);
            bits[turn] = row < own.tokens ? load_channels(tensor.row(own.first + row, head), lane) : uint4{};
        }
    };
    const auto finish = [&](const uint4& bits, int turn, const uint4& weight) {
        LaneChannels channels = unpack(bits);
        if (normed) {
            norm<kLanes>(channels, unpack(weight), p.norm_epsilon);
        }
        if (p.rotation != nullptr) {
            rotate(channels, rotation[turn]);
        }
        return channels;
    };

    // This lane's channels of key_mean or value_forward.
    const auto load_lane = [&](std::size_t offset, int head) {
        LaneChannels channels;
#pragma unroll
        for (int i = 0; i < kLaneChannels; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(p.in_workspace<float>(offset) + head * kHeadDim +
                                                                 lane * kLaneChannels + i);
            channels.x[i] = four.x;
            channels.x[i + 1] = four.y;
            channels.x[i + 2] = four.z;
            channels.x[i + 3] = four.w;
        }
        return channels;
    };

    const int first_head = static_cast<int>(blockIdx.y) * kPrepareHeads;
    const int end_head = min(first_head + kPrepareHeads, p.heads);
    if (blockIdx.z == 0) {
        for (int head = first_head; head < end_head; ++head) {
            const LaneChannels lane_mean = load_lane(p.at.key_mean, head);
            uint4 bits[kTurns];
            load_rows(p.query, head, bits);
            const std::size_t at = p.head_tile(head, tile);
#pragma unroll
            for (int turn = 0; turn < kTurns; ++turn) {
                const int row = row_of(turn);
                const LaneChannels query = finish(bits[turn], turn, query_weight);
                const QuantizationScale scale = int8_scale(row_max<kLanes>(largest_magnitude(query)));
                float with_mean = 0;
#pragma unroll
                for (int i = 0; i < kLaneChannels; ++i) {
                    with_mean = fmaf(query.x[i], lane_mean.x[i], with_mean);
                }
                with_mean = row_sum<kLanes>(with_mean);
                if (lane == 0) {
                    p.in_workspace<float>(p.at.query_scale)[at * kTileTokens + row] =
                        scale.back * p.scale * ptx::kLog2E;
                    p.in_workspace<float>(p.at.query_mean)[at * kTileTokens + row] = with_mean * p.scale;
                }
                *reinterpret_cast<uint2*>(p.in_workspace<std::byte>(p.at.query) + at * kTileBytes + row * kHeadDim +
                                          swizzled_chunk(kHeadDim, row, lane / 2) * 16 + lane % 2 * 8) = {
                    quantize_4(query.x, scale.forward), quantize_4(query.x + 4, scale.forward)};
            }
        }
        return;
    }
    for (int head = first_head; head < end_head; ++head) {
        if constexpr (kFormat == ValueFormat::kFp8) {
            // A thread takes four channels of the four tokens that become one word.
            constexpr int kValueLanes = kHeadDim / 4;
            static_assert(kTileTokens / 4 * kValueLanes == kThreads);
            const int value_lane = static_cast<int>(threadIdx.x) % kValueLanes;
            const int word = static_cast<int>(threadIdx.x) / kValueLanes;
            uint2 value_bits[4];
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const int token = word / 8 * 32 + word / 4 % 2 * 16 + word % 4 * 2 + b % 2 + b / 2 * 8;
                value_bits[b] =
                    token < own.tokens
                        ? *reinterpret_cast<const uint2*>(p.value.row(own.first + token, head) + value_lane * 4)
                        : uint2{};
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int channel = value_lane * 4 + c;
                const float forward = p.in_workspace<float>(p.at.value_forward)[head * kHeadDim + channel];
                float four[4];
#pragma unroll
                for (int b = 0; b < 4; ++b) {
                    const std::uint32_t pair = c < 2 ? value_bits[b].x : value_bits[b].y;
                    four[b] = __uint_as_float(c % 2 == 0 ? pair << 16 : pair & 0xffff0000U) * forward;
                }
                values[channel * kValueStride + word] = ptx::pack_fp8(four[0], four[1], four[2], four[3]);
            }
        } else {
            const LaneChannels forward = load_lane(p.at.value_forward, head);
            uint4 bits[kTurns];
            load_rows(p.value, head, bits);
#pragma unroll
            for (int turn = 0; turn < kTurns; ++turn) {
                const LaneChannels value = unpack(bits[turn]);
                std::uint32_t pairs[kLaneChannels / 2];
#pragma unroll
                for (int i = 0; i < kLaneChannels / 2; ++i) {
                    pairs[i] =
                        ptx::pack_half(value.x[2 * i] * forward.x[2 * i], value.x[2 * i + 1] * forward.x[2 * i + 1]);
                }
                constexpr int kRowBytes = 2 * kHeadDim;
                const int row = row_of(turn);
                *reinterpret_cast<uint4*>(
                    p.in_workspace<std::byte>(p.at.value) + (p.head_tile(head, tile) * kTileTokens + row) * kRowBytes +
                    swizzled_chunk(kRowBytes, row, lane) * 16) = {pairs[0], pairs[1], pairs[2], pairs[3]};
            }
        }
        if (threadIdx.x < kKeyGroups) {
            key_magnitude[threadIdx.x] = 0;
        }
        __syncthreads();

        const LaneChannels lane_mean = load_lane(p.at.key_mean, head);
        const std::size_t at = p.head_tile(head, tile);
        uint4 bits[kTurns];
        load_rows(p.key, head, bits);
        LaneChannels keys[kTurns];
#pragma unroll
        for (int turn = 0; turn < kTurns; ++turn) {
            const int row = row_of(turn);
            keys[turn] = finish(bits[turn], turn, key_weight);
#pragma unroll
            for (int i = 0; i < kLaneChannels; ++i) {
                keys[turn].x[i] = row < own.tokens ? keys[turn].x[i] - lane_mean.x[i] : 0;
            }
            const std::uint32_t magnitude = row_max<kLanes>(largest_magnitude(keys[turn]));
            if (lane == 0) {
                atomicMax(&key_magnitude[row / 2 % kKeyGroups], magnitude);
            }
        }
        __syncthreads();

#pragma unroll
        for (int turn = 0; turn < kTurns; ++turn) {
            const int row = row_of(turn);
            const float forward = int8_scale(key_magnitude[row / 2 % kKeyGroups]).forward;
            *reinterpret_cast<uint2*>(p.in_workspace<std::byte>(p.at.key) + at * kTileBytes + row * kHeadDim +
                                      swizzled_chunk(kHeadDim, row, lane / 2) * 16 + lane % 2 * 8) = {
                quantize_4(keys[turn].x, forward), quantize_4(keys[turn].x + 4, forward)};
        }
        if constexpr (kFormat == ValueFormat::kFp8) {
#pragma unroll
            for (int i = static_cast<int>(threadIdx.x); i < kHeadDim * 4; i += kThreads) {
                const int channel = i / 4;
                const std::uint32_t* words = values + channel * kValueStride + i % 4 * 4;
                *reinterpret_cast<uint4*>(p.in_workspace<std::byte>(p.at.value) + at * kTileBytes +
                                          channel * kTileTokens + swizzled_chunk(kTileTokens, channel, i % 4) * 16) = {
                    words[0], words[1], words[2], words[3]};
            }
        }
        if (threadIdx.x == 0) {
            KeyRecord record{};
            for (int group = 0; group < kKeyGroups; ++group) {
                record.scale[group] = int8_scale(key_magnitude[group]).back;
            }
            record.tokens = own.tokens;
            p.in_workspace<KeyRecord>(p.at.key_record)[at] = record;
        }
        __syncthreads();  // the next head writes over what was read
    }
}

}  // namespace scaledit::cuda
