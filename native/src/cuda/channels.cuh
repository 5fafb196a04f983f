// Eight channels of a row: what a thread loads and stores at a time, in bfloat16, and computes with in float32.
#pragma once

#include <cstdint>

#include "cuda/ptx.cuh"

namespace scaledit::cuda {

constexpr int kChunkChannels = 8;  // 16 bytes

struct Channels {
    float x[kChunkChannels];
};

__device__ inline Channels unpack(const uint4& bits) {
    Channels channels;
    const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        channels.x[2 * i] = __uint_as_float(words[i] << 16);
        channels.x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
    }
    return channels;
}

__device__ inline uint4 pack(const Channels& channels) {
    const float(&x)[kChunkChannels] = channels.x;
    return {ptx::pack_bfloat(x[0], x[1]), ptx::pack_bfloat(x[2], x[3]), ptx::pack_bfloat(x[4], x[5]),
            ptx::pack_bfloat(x[6], x[7])};
}

__device__ inline float square_sum(const Channels& channels) {
    float sum = 0;
#pragma unroll
    for (const float x : channels.x) {
        sum = fmaf(x, x, sum);
    }
    return sum;
}

// A NaN if there is one.
__device__ inline float largest_magnitude(const Channels& channels) {
    float largest = fabsf(channels.x[0]);
#pragma unroll
    for (int i = 1; i < kChunkChannels; ++i) {
        largest = ptx::max_nan(largest, fabsf(channels.x[i]));
    }
    return largest;
}

// The sum over so many neighbouring lanes, the same bits in all of them.
template <int kLanes>
__device__ inline float lane_sum(float x) {
#pragma unroll
    for (int lane = kLanes / 2; lane > 0; lane /= 2) {
        x += __shfl_xor_sync(0xffffffffU, x, lane);
    }
    return x;
}

// Likewise the largest; a NaN is above all.
template <int kLanes>
__device__ inline float lane_max(float x) {
#pragma unroll
    for (int lane = kLanes / 2; lane > 0; lane /= 2) {
        x = ptx::max_nan(x, __shfl_xor_sync(0xffffffffU, x, lane));
    }
    return x;
}

}  // namespace scaledit::cuda
