// From a projection's queries or keys to those that attention takes, and the gradient of that.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/tokenwise.cuh"

namespace scaledit::cuda::tokenwise {

constexpr int kHeadThreads = 256;

struct NormAndRotateParameters {
    std::int64_t rows;
    std::int64_t text_rows;
    std::int32_t heads;
    float epsilon;
    const __nv_bfloat16* norm;
    const __nv_bfloat16* text_norm;
    const float* rotation;  // [rows, kHeadDim / 2, 2]
    Rows<__nv_bfloat16> input, output_gradient, output;
};

//   y = R(w n),  n = x r,  r = 1 / sqrt(mean(x^2) + epsilon)        with R orthogonal
//   dx = r (g - n mean(g n)),  g = w R^T(dy),  dw = the sum over all heads of R^T(dy) n
//
// A thread has eight channels, as many neighbouring lanes as a head has eights have a head.

__device__ inline Channels load_chunk(const __nv_bfloat16* from) {
    return unpack(*reinterpret_cast<const uint4*>(from));
}

// Cosine and sine of each pair of a chunk.
__device__ inline Channels load_turns(const float* from) {
    const auto* const pairs = reinterpret_cast<const float4*>(from);
    const float4 low = pairs[0];
    const float4 high = pairs[1];
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

// R, and R^T.
__device__ inline Channels rotate(const Channels& pairs, const Channels& turns) {
    const float(&x)[kChunkChannels] = pairs.x;
    const float(&turn)[kChunkChannels] = turns.x;
    Channels result;
#pragma unroll
    for (int i = 0; i < kChunkChannels; i += 2) {
        result.x[i] = fmaf(x[i], turn[i], -x[i + 1] * turn[i + 1]);
        result.x[i + 1] = fmaf(x[i + 1], turn[i], x[i] * turn[i + 1]);
    }
    return result;
}
__device__ inline Channels rotate_back(const Channels& pairs, const Channels& turns) {
    const float(&x)[kChunkChannels] = pairs.x;
    const float(&turn)[kChunkChannels] = turns.x;
    Channels result;
#pragma unroll
    for (int i = 0; i < kChunkChannels; i += 2) {
        result.x[i] = fmaf(x[i], turn[i], x[i + 1] * turn[i + 1]);
        result.x[i + 1] = fmaf(x[i + 1], turn[i], -x[i] * turn[i + 1]);
    }
    return result;
}

__device__ inline Channels product(Channels a, const Channels& b) {
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        a.x[i] *= b.x[i];
    }
    return a;
}

// From x to n; hands back r.
template <int kHeadDim>
__device__ inline float norm_head(Channels& x, float epsilon) {
    const float factor = rsqrtf(lane_sum<kHeadDim / kChunkChannels>(square_sum(x)) / kHeadDim + epsilon);
#pragma unroll
    for (float& channel : x.x) {
        channel *= factor;
    }
    return factor;
}

// dx of g, n and r.
template <int kHeadDim>
__device__ inline Channels head_gradient(Channels gradient, const Channels& normed, float factor) {
    float both = 0;
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        both = fmaf(gradient.x[i], normed.x[i], both);
    }
    const float mean = lane_sum<kHeadDim / kChunkChannels>(both) / kHeadDim;
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        gradient.x[i] = factor * fmaf(-normed.x[i], mean, gradient.x[i]);
    }
    return gradient;
}

// Both directions wait for memory: everything is read and written once, but for the rotation, which the heads of a
// token find in the cache.
template <int kHeadDim, bool kGradient>
__global__ void __launch_bounds__(kHeadThreads) norm_and_rotate(const __grid_constant__ NormAndRotateParameters p) {
    constexpr int kLanes = kHeadDim / kChunkChannels;
    const std::int64_t wanted = (std::int64_t{blockIdx.x} * kHeadThreads + threadIdx.x) / kLanes;
    const std::int64_t last = p.rows * p.heads - 1;
    const std::int64_t number = wanted < last ? wanted : last;  // all lanes take part in sums
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const std::int64_t row = number / p.heads;
    const int chunk = static_cast<int>(number % p.heads) * kLanes + lane;
    Channels x = load_chunk(at(p.input.row(row), chunk));
    const Channels weight = load_chunk(at(row < p.text_rows ? p.text_norm : p.norm, lane));
    const Channels turns = load_turns(p.rotation + row * kHeadDim + lane * kChunkChannels);
    const float factor = norm_head<kHeadDim>(x, p.epsilon);
    Channels result;
    if constexpr (kGradient) {
        const Channels gradient = load_chunk(at(p.output_gradient.row(row), chunk));
        result = head_gradient<kHeadDim>(product(weight, rotate_back(gradient, turns)), x, factor);
    } else {
        result = rotate(product(x, weight), turns);
    }
    if (wanted <= last) {
        store(at(p.output.row(row), chunk), pack(result));
    }
}

}  // namespace scaledit::cuda::tokenwise
