// From numbers to INT8 and back.
#pragma once

#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/ptx.cuh"

namespace scaledit::cuda {

constexpr float kInt8Limit = 127;
// 2^-40: of zeros, for which any will do, and of rows that lose bits below 1.2e-10. Nothing it is multiplied by makes
// zero or infinity of it: its reciprocal is 2^40, and of a query and of a key together it is 2^-80.
constexpr float kSmallestScale = 9.094947017729282e-13F;

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

// A chunk's codes.
__device__ inline uint2 quantize(const Channels& channels, float forward) {
    return {quantize_4(channels.x, forward), quantize_4(channels.x + 4, forward)};
}

__device__ inline Channels dequantize(const uint2& codes, float back) {
    const std::uint32_t words[2] = {codes.x, codes.y};
    Channels channels;
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        channels.x[i] = static_cast<float>(static_cast<std::int8_t>(words[i / 4] >> (8 * (i % 4)))) * back;
    }
    return channels;
}

}  // namespace scaledit::cuda
