// Rows of keys and values in INT8, on their way to another GPU, and back.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/int8.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tokenwise.cuh"
#include "cuda/tokenwise.h"

namespace scaledit::cuda::tokenwise {

constexpr int kPackThreads = 64;                               // 192 chunks of 12 heads fill three blocks
constexpr int kScaleChunks = kScaleChannels / kChunkChannels;  // neighbouring lanes that share a scale

// Keys and values, and the same packed.
struct PackedRowsParameters {
    Bfloat16Rows part[2];  // keys and values
    int chunks;            // of a key
    Rows<std::uint8_t> packed;

    __device__ uint2* codes(std::int64_t row, int of, int chunk) const {
        return reinterpret_cast<uint2*>(at(packed.row(row), of * chunks + chunk));
    }
    __device__ __nv_bfloat16* scale(std::int64_t row, int of, int chunk) const {
        return reinterpret_cast<__nv_bfloat16*>(at(packed.row(row), 2 * chunks)) + (of * chunks + chunk) / kScaleChunks;
    }
};

// Both kernels: grid [rows, blocks for a key]. A thread has a chunk of the key and the same of the value, and loads
// both before it looks at one: as much is under way as the memory needs.
__device__ inline int own_chunk() { return static_cast<int>(blockIdx.y * kPackThreads + threadIdx.x); }

// Row r of what is packed is token[r], of so many tokens.
__global__ void __launch_bounds__(kPackThreads)
    pack_rows(const __grid_constant__ PackedRowsParameters p, const std::int64_t* token, std::int64_t tokens) {
    const std::int64_t row = blockIdx.x;
    const std::int64_t from = token[row];
    const int wanted = own_chunk();
    const int chunk = min(wanted, p.chunks - 1);  // all lanes take part in the search for the largest
    constexpr std::uint32_t kNans = 0xffffffffU;
    uint4 bits[2] = {{kNans, kNans, kNans, kNans}, {kNans, kNans, kNans, kNans}};
    if (0 <= from && from < tokens) {
#pragma unroll
        for (int of = 0; of < 2; ++of) {
            bits[of] = *reinterpret_cast<const uint4*>(at(p.part[of].row(from), chunk));
        }
    }
#pragma unroll
    for (int of = 0; of < 2; ++of) {
        const Channels channels = unpack(bits[of]);
        const float largest = lane_max<kScaleChunks>(largest_magnitude(channels));
        const __nv_bfloat16 scale = __float2bfloat16_rn(int8_scale(largest).back);
        if (wanted == chunk) {
            // By the scale as it is rounded the largest number becomes 127.25 at most.
            *p.codes(row, of, chunk) = quantize(channels, ptx::reciprocal(__bfloat162float(scale)));
            if (chunk % kScaleChunks == 0) {
                *p.scale(row, of, chunk) = scale;
            }
        }
    }
}

__global__ void __launch_bounds__(kPackThreads) unpack_rows(const __grid_constant__ PackedRowsParameters p) {
    const std::int64_t row = blockIdx.x;
    const int chunk = own_chunk();
    if (chunk < p.chunks) {
        uint2 codes[2];
        float scales[2];
#pragma unroll
        for (int of = 0; of < 2; ++of) {
            codes[of] = *p.codes(row, of, chunk);
            scales[of] = __bfloat162float(*p.scale(row, of, chunk));
        }
#pragma unroll
        for (int of = 0; of < 2; ++of) {
            store(at(p.part[of].row(row), chunk), pack(dequantize(codes[of], scales[of])));
        }
    }
}

}  // namespace scaledit::cuda::tokenwise
