// GroupNorm of a picture whose channels lie side by side, and SiLU.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tokenwise.cuh"

namespace scaledit::cuda::tokenwise {

constexpr int kGroupNormThreads = 256;

struct GroupNormParameters {
    std::int64_t rows;
    std::int32_t chunks;  // of 8 channels
    std::int32_t groups;
    float epsilon;
    const __nv_bfloat16* weight;
    const __nv_bfloat16* bias;
    Rows<__nv_bfloat16> input, output;
    float* sums;    // [kGroupNormBlocks, 2, channels]: of what channels are above their first position, and of squares
    float* scales;  // [2, channels]: factor, term
};

// The rows of a thread: always the same chunk of them, so that what belongs to its channels stays in registers. Blocks
// take turns, so that all read near each other.
template <typename Body>
__device__ inline void each_row(const GroupNormParameters& p, Body&& body) {
    const int at_once = kGroupNormThreads / p.chunks;
    const int own = static_cast<int>(threadIdx.x) / p.chunks;
    if (own < at_once) {
        const int chunk = static_cast<int>(threadIdx.x) % p.chunks;
        const auto step = static_cast<std::int64_t>(gridDim.x) * at_once;
        for (std::int64_t row = std::int64_t{blockIdx.x} * at_once + own; row < p.rows; row += step) {
            body(row, chunk);
        }
    }
}

__device__ inline Channels load_row(const Rows<__nv_bfloat16>& rows, std::int64_t row, int chunk) {
    return unpack(*reinterpret_cast<const uint4*>(at(rows.row(row), chunk)));
}

// Sums of each channel over a block's rows. Taken from the first position, so that a variance is no difference of two
// large numbers unless that position is far off all others, by a hundred deviations or more.
__global__ void __launch_bounds__(kGroupNormThreads) measure_channels(const __grid_constant__ GroupNormParameters p) {
    __shared__ float kept[2][kGroupNormThreads * kChunkChannels];
    const int chunk = static_cast<int>(threadIdx.x) % p.chunks;
    const Channels first = load_row(p.input, 0, chunk);
    Channels sum{};
    Channels squares{};
    each_row(p, [&](std::int64_t row, int of_row) {
        const Channels x = load_row(p.input, row, of_row);
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            const float above = x.x[i] - first.x[i];
            sum.x[i] += above;
            squares.x[i] = fmaf(above, above, squares.x[i]);
        }
    });
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        kept[0][threadIdx.x * kChunkChannels + i] = sum.x[i];
        kept[1][threadIdx.x * kChunkChannels + i] = squares.x[i];
    }
    __syncthreads();
    const int channels = p.chunks * kChunkChannels;
    const int at_once = kGroupNormThreads / p.chunks;
    for (int i = static_cast<int>(threadIdx.x); i < 2 * channels; i += kGroupNormThreads) {
        float all = 0;
        for (int own = 0; own < at_once; ++own) {
            all += kept[i / channels][own * channels + i % channels];
        }
        p.sums[std::int64_t{blockIdx.x} * 2 * channels + i] = all;
    }
}

// One block, a thread for each channel.
__global__ void __launch_bounds__(kMostNormChannels) conclude_groups(const __grid_constant__ GroupNormParameters p) {
    __shared__ float means[kMostNormChannels];
    __shared__ float variances[kMostNormChannels];
    const auto channels = static_cast<int>(blockDim.x);
    const auto channel = static_cast<int>(threadIdx.x);
    double sum = 0;
    double squares = 0;
    for (int block = 0; block < kGroupNormBlocks; ++block) {
        const float* of_block = p.sums + std::int64_t{block} * 2 * channels + channel;
        sum += static_cast<double>(of_block[0]);
        squares += static_cast<double>(of_block[channels]);
    }
    const auto count = static_cast<double>(p.rows);
    const double above = sum / count;
    means[channel] = __bfloat162float(p.input.row(0)[channel]) + static_cast<float>(above);
    variances[channel] = fmaxf(static_cast<float>(squares / count - above * above), 0);
    __syncthreads();
    const int group_channels = channels / p.groups;
    const int begin = channel / group_channels * group_channels;
    float mean = 0;
    for (int i = begin; i < begin + group_channels; ++i) {
        mean += means[i];
    }
    mean /= static_cast<float>(group_channels);
    float variance = 0;
    for (int i = begin; i < begin + group_channels; ++i) {
        const float off = means[i] - mean;
        variance += fmaf(off, off, variances[i]);
    }
    variance /= static_cast<float>(group_channels);
    const float factor = __bfloat162float(p.weight[channel]) * rsqrtf(variance + p.epsilon);
    p.scales[channel] = factor;
    p.scales[channels + channel] = fmaf(-mean, factor, __bfloat162float(p.bias[channel]));
}

template <bool kSilu>
__global__ void __launch_bounds__(kGroupNormThreads) norm_channels(const __grid_constant__ GroupNormParameters p) {
    const int first = static_cast<int>(threadIdx.x) % p.chunks * kChunkChannels;
    Channels factor;
    Channels term;
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        factor.x[i] = p.scales[first + i];
        term.x[i] = p.scales[p.chunks * kChunkChannels + first + i];
    }
    each_row(p, [&](std::int64_t row, int chunk) {
        Channels x = load_row(p.input, row, chunk);
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            const float normed = fmaf(x.x[i], factor.x[i], term.x[i]);
            x.x[i] = kSilu ? normed * ptx::reciprocal(1 + ptx::exp2(-ptx::kLog2E * normed)) : normed;
        }
        *reinterpret_cast<uint4*>(at(p.output.row(row), chunk)) = pack(x);
    });
}

}  // namespace scaledit::cuda::tokenwise
