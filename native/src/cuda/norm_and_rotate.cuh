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

// Eight channels a thread, a head of a token for as many neighbouring lanes as it has eights. Both directions wait for
// memory: everything is read and written once, but for the rotation, which the heads of a token find in the cache.
//
//   y = R(w n),  n = x r,  r = 1 / sqrt(mean(x^2) + epsilon)        with R orthogonal
//   dx = r (g - n mean(g n)),  g = w R^T(dy)
template <int kHeadDim, bool kGradient>
__global__ void __launch_bounds__(kHeadThreads) norm_and_rotate(const __grid_constant__ NormAndRotateParameters p) {
    constexpr int kLanes = kHeadDim / kChunkChannels;
    const std::int64_t wanted = (std::int64_t{blockIdx.x} * kHeadThreads + threadIdx.x) / kLanes;
    const std::int64_t last = p.rows * p.heads - 1;
    const std::int64_t number = wanted < last ? wanted : last;  // all lanes take part in sums
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const std::int64_t row = number / p.heads;
    const int chunk = static_cast<int>(number % p.heads) * kLanes + lane;
    const auto load = [](const __nv_bfloat16* from) { return unpack(*reinterpret_cast<const uint4*>(from)); };

    Channels x = load(at(p.input.row(row), chunk));
    const Channels weight = load(at(row < p.text_rows ? p.text_norm : p.norm, lane));
    float turn[kChunkChannels];  // cosine and sine of each pair
    const auto* turns = reinterpret_cast<const float4*>(p.rotation + row * kHeadDim + lane * kChunkChannels);
    *reinterpret_cast<float4*>(turn) = turns[0];
    *reinterpret_cast<float4*>(turn + 4) = turns[1];
    const float factor = rsqrtf(lane_sum<kLanes>(square_sum(x)) / kHeadDim + p.epsilon);
#pragma unroll
    for (float& channel : x.x) {
        channel *= factor;
    }
    Channels result;
    if constexpr (kGradient) {
        const Channels gradient = load(at(p.output_gradient.row(row), chunk));
        float both = 0;
#pragma unroll
        for (int i = 0; i < kChunkChannels; i += 2) {
            const float(&g)[kChunkChannels] = gradient.x;
            result.x[i] = weight.x[i] * fmaf(g[i], turn[i], g[i + 1] * turn[i + 1]);
            result.x[i + 1] = weight.x[i + 1] * fmaf(g[i + 1], turn[i], -g[i] * turn[i + 1]);
            both = fmaf(result.x[i], x.x[i], fmaf(result.x[i + 1], x.x[i + 1], both));
        }
        const float mean = lane_sum<kLanes>(both) / kHeadDim;
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            result.x[i] = factor * fmaf(-x.x[i], mean, result.x[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < kChunkChannels; i += 2) {
            const float a = x.x[i] * weight.x[i];
            const float b = x.x[i + 1] * weight.x[i + 1];
            result.x[i] = fmaf(a, turn[i], -b * turn[i + 1]);
            result.x[i + 1] = fmaf(b, turn[i], a * turn[i + 1]);
        }
    }
    if (wanted <= last) {
        *reinterpret_cast<uint4*>(at(p.output.row(row), chunk)) = pack(result);
    }
}

}  // namespace scaledit::cuda::tokenwise
