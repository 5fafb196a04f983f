// Kernels that treat each row of a matrix by itself: gated addition, LayerNorm with modulation, GELU, e4m3.
//
// All wait for memory, so each reads and writes everything once. A block has one row; each of its threads has a few
// chunks of 8 channels, which it copies to shared memory all at once: in registers the compiler would fetch one when it
// has done with another. A thread reads what it has copied itself, so that copies need no barrier.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/channels.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tokenwise.h"

namespace scaledit::cuda::tokenwise {

constexpr int kChunkBytes = 16;  // of bfloat16
// Of a thread: what a row costs however long it is, its sums over the block above all, is paid by few warps, and FLUX's
// rows of 3072, 12288 and 15360 channels fill 2, 8 and 10 warps.
constexpr int kThreadChunks = 6;
constexpr int kWarpThreads = 32;

// Threads that a block has for a row.
constexpr int row_threads(int chunks) {
    const int threads = (chunks + kThreadChunks - 1) / kThreadChunks;
    return (threads + kWarpThreads - 1) / kWarpThreads * kWarpThreads;
}
constexpr int kMostHiddenThreads = row_threads(kMostHiddenWidth / kChunkChannels);
constexpr int kMostThreads = row_threads(kMostWidth / kChunkChannels);

template <typename Element>
__device__ inline Element* at(Element* row, int chunk) {
    return row + chunk * kChunkChannels;
}

// The chunks of its block's row that a thread has: kThreadChunks of them, fewer in the last threads of a row unless
// kWhole says that the row fills the block. Then nothing has to be asked.
template <bool kWhole>
struct OwnChunks {
    int chunks;  // of the row

    // body(which of the thread's, which of the row's)
    template <typename Body>
    __device__ void each(Body&& body) const {
#pragma unroll
        for (int i = 0; i < kThreadChunks; ++i) {
            const int chunk = i * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
            if (kWhole || chunk < chunks) {
                body(i, chunk);
            }
        }
    }

    // Begins to copy this thread's chunks of a row to shared memory.
    __device__ void copy(uint4* to, const __nv_bfloat16* row) const {
        each([&](int, int chunk) { ptx::copy_async(ptx::shared_address(to + chunk), at(row, chunk), kChunkBytes); });
    }
};

// Room for the chunks of a row, or of two.
__device__ inline uint4* shared_chunks() {
    extern __shared__ uint4 memory[];
    return memory;
}

__device__ inline void wait_for_copies() {
    ptx::commit_copies();
    ptx::wait_copies<0>();
}

// A matrix of bfloat16, or of e4m3 in bytes.
template <typename Element>
struct Rows {
    Element* data;
    std::int64_t stride;

    __device__ Element* row(std::int64_t number) const { return data + number * stride; }
};
template <typename Element>
Rows<Element> rows_of(const scaledit_matrix& matrix) {
    return {static_cast<Element*>(matrix.data), matrix.row_stride};
}
inline int chunks_of(std::int32_t width) { return width / kChunkChannels; }

using Bfloat16Rows = Rows<__nv_bfloat16>;
using Fp8Rows = Rows<std::uint8_t>;

// A vector of the current rows and one of the guidance rows.
struct ModulationPart {
    const __nv_bfloat16* current;
    const __nv_bfloat16* guidance;

    __device__ const uint4* chunks(bool of_guidance) const {
        return reinterpret_cast<const uint4*>(of_guidance ? guidance : current);
    }
};

__device__ inline void store(__nv_bfloat16* to, const uint4& bits) { *reinterpret_cast<uint4*>(to) = bits; }

// Of a chunk alone, so that those of several chunks need not wait for each other.
__device__ inline float sum_of(const Channels& channels) {
    const float(&x)[kChunkChannels] = channels.x;
    return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

// What the warps of a block tell each other, once: a reduction of its own for each.
template <typename Number>
using WarpParts = Number[kWarpThreads];

// Puts what a warp has where the others find it, and hands back what warp number `lane` has; 0 where there is none.
template <typename Number>
__device__ inline Number exchange(Number of_warp, WarpParts<Number>& parts) {
    const unsigned lane = threadIdx.x % kWarpThreads;
    if (lane == 0) {
        parts[threadIdx.x / kWarpThreads] = of_warp;
    }
    __syncthreads();
    return lane < blockDim.x / kWarpThreads ? parts[lane] : Number{};
}

// The sum over the block, the same bits in all threads.
__device__ inline float block_sum(float x, WarpParts<float>& parts) {
    return lane_sum<kWarpThreads>(exchange(lane_sum<kWarpThreads>(x), parts));
}

// Likewise two sums at once.
__device__ inline float2 block_sums(float2 x, WarpParts<float2>& parts) {
    const float2 of_warp = exchange(float2{lane_sum<kWarpThreads>(x.x), lane_sum<kWarpThreads>(x.y)}, parts);
    return {lane_sum<kWarpThreads>(of_warp.x), lane_sum<kWarpThreads>(of_warp.y)};
}

// The largest of the block's numbers, none of which is below 0. Their bits have the same order; a NaN is above all.
__device__ inline float block_max(float x, WarpParts<unsigned>& parts) {
    const unsigned of_warp = __reduce_max_sync(0xffffffffU, __float_as_uint(x));
    return __uint_as_float(__reduce_max_sync(0xffffffffU, exchange(of_warp, parts)));
}

// What codes of e4m3 are multiplied by to give the row, and the row to give codes.
struct RowScale {
    float back;
    float forward;
};
__device__ inline RowScale row_scale(float largest) {
    constexpr float kLimit = 448;
    constexpr float kSmallest = 0x1p-100F;  // of zeros
    const float back = ptx::max_nan(largest * (1 / kLimit), kSmallest);
    return {back, ptx::reciprocal(back)};
}

__device__ inline void store_fp8(std::uint8_t* to, const Channels& channels, float forward) {
    float x[kChunkChannels];
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        x[i] = channels.x[i] * forward;
    }
    *reinterpret_cast<uint2*>(to) = {ptx::pack_fp8(x[0], x[1], x[2], x[3]), ptx::pack_fp8(x[4], x[5], x[6], x[7])};
}

// hidden + gate * update, as it is kept in memory.
__device__ inline uint4 add_gated(const uint4& hidden, const uint4& gate, const uint4& update) {
    Channels sum = unpack(hidden);
    const Channels factor = unpack(gate);
    const Channels added = unpack(update);
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        sum.x[i] = fmaf(factor.x[i], added.x[i], sum.x[i]);
    }
    return pack(sum);
}

struct AddGatedParameters {
    Bfloat16Rows hidden;
    Bfloat16Rows update;
    ModulationPart gate;
    std::int64_t first_guidance_row;
    int chunks;
};

// Adds to a row of hidden; then body(which chunk of the thread's, what it has become). Needs room for two rows.
template <bool kWhole, typename Body>
__device__ inline void add_gated_row(const AddGatedParameters& p, std::int64_t row, Body&& body) {
    const OwnChunks<kWhole> own{p.chunks};
    uint4* const of_hidden = shared_chunks();
    uint4* const of_update = of_hidden + p.chunks;
    __nv_bfloat16* const hidden = p.hidden.row(row);
    own.copy(of_hidden, hidden);
    own.copy(of_update, p.update.row(row));
    wait_for_copies();
    const uint4* const gate = p.gate.chunks(row >= p.first_guidance_row);
    own.each([&](int i, int chunk) {
        const uint4 sum = add_gated(of_hidden[chunk], __ldg(gate + chunk), of_update[chunk]);
        store(at(hidden, chunk), sum);
        body(i, sum);
    });
}

// Grid [rows], as those of all kernels here.
template <bool kWhole>
__global__ void __launch_bounds__(kMostHiddenThreads) add_gated_rows(const AddGatedParameters p) {
    add_gated_row<kWhole>(p, blockIdx.x, [](int, const uint4&) {});
}

// Of a row, to divide by.
struct Width {
    float channels;
    float inverse;

    // A quotient, not just a product with the inverse: the mean of a row of one number is this number, to the bit.
    __device__ float mean(float sum_of_row) const {
        const float close = sum_of_row * inverse;
        return fmaf(fmaf(-close, channels, sum_of_row), inverse, close);
    }
};
inline Width row_width(std::int32_t width) {
    const auto channels = static_cast<float>(width);
    return {channels, 1 / channels};
}

// Output is __nv_bfloat16, or std::uint8_t for e4m3.
template <typename Output>
struct ModulateParameters {
    AddGatedParameters sum;  // where nothing is added, hidden, rows and chunks alone
    ModulationPart shift;
    ModulationPart scale;
    Width width;
    float epsilon;
    Rows<Output> output;
    float* output_scale;
};

template <bool kAdds, bool kWhole, typename Output>
__global__ void __launch_bounds__(kMostHiddenThreads, 3) modulate_rows(const ModulateParameters<Output> p) {
    constexpr bool kInFp8 = std::is_same_v<Output, std::uint8_t>;
    __shared__ WarpParts<float> sums;
    __shared__ WarpParts<float> square_sums;
    const std::int64_t row = blockIdx.x;
    const OwnChunks<kWhole> own{p.sum.chunks};

    Channels channels[kThreadChunks];
    float sum = 0;
    const auto take = [&](int i, const uint4& bits) {
        channels[i] = unpack(bits);
        sum += sum_of(channels[i]);
    };
    if constexpr (kAdds) {
        add_gated_row<kWhole>(p.sum, row, take);
    } else {
        uint4* const of_hidden = shared_chunks();
        own.copy(of_hidden, p.sum.hidden.row(row));
        wait_for_copies();
        own.each([&](int i, int chunk) { take(i, of_hidden[chunk]); });
    }

    const float mean = p.width.mean(block_sum(sum, sums));
    float squares = 0;
    own.each([&](int i, int) {
#pragma unroll
        for (float& x : channels[i].x) {
            x -= mean;
        }
        squares += square_sum(channels[i]);
    });
    const float factor = rsqrtf(p.width.mean(block_sum(squares, square_sums)) + p.epsilon);

    Output* const output = p.output.row(row);
    const bool of_guidance = row >= p.sum.first_guidance_row;
    const uint4* const scales = p.scale.chunks(of_guidance);
    const uint4* const shifts = p.shift.chunks(of_guidance);
    float largest = 0;
    own.each([&](int i, int chunk) {
        const Channels scale = unpack(__ldg(scales + chunk));
        const Channels shift = unpack(__ldg(shifts + chunk));
#pragma unroll
        for (int c = 0; c < kChunkChannels; ++c) {
            channels[i].x[c] = fmaf(channels[i].x[c], fmaf(factor, scale.x[c], factor), shift.x[c]);
        }
        if constexpr (kInFp8) {
            largest = ptx::max_nan(largest, largest_magnitude(channels[i]));
        } else {
            store(at(output, chunk), pack(channels[i]));
        }
    });
    if constexpr (kInFp8) {
        __shared__ WarpParts<unsigned> maxima;
        const RowScale scale = row_scale(block_max(largest, maxima));
        own.each([&](int i, int chunk) { store_fp8(at(output, chunk), channels[i], scale.forward); });
        if (threadIdx.x == 0) {
            p.output_scale[row] = scale.back;
        }
    }
}

// GELU as approximated by tanh: x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + e^-2u).
// Written so it keeps its digits where tanh u is close to -1.
constexpr float kGeluLinear = 2 * 0.7978845608028654F;  // of 2u
constexpr float kGeluCubic = 0.044715F;                 // beside it

// 1 / (1 + e^-2u)
__device__ inline float gelu_factor(float x) {
    constexpr float kLinear = -ptx::kLog2E * kGeluLinear;  // -2u as a power of 2
    constexpr float kCubic = kLinear * kGeluCubic;
    return ptx::reciprocal(1 + ptx::exp2(x * fmaf(x * x, kCubic, kLinear)));
}
__device__ inline float gelu(float x) { return x * gelu_factor(x); }

__device__ inline Channels gelu(Channels channels) {
#pragma unroll
    for (float& x : channels.x) {
        x = gelu(x);
    }
    return channels;
}

struct QuantizeParameters {
    Bfloat16Rows plain;
    Bfloat16Rows gelu;
    int plain_chunks;  // the first ones
    int chunks;
    Fp8Rows output;
    float* output_scale;

    __device__ bool is_plain(int chunk) const { return chunk < plain_chunks; }
    __device__ Channels channels(const uint4& bits, int chunk) const {
        const Channels plain_ones = unpack(bits);
        return is_plain(chunk) ? plain_ones : tokenwise::gelu(plain_ones);
    }
};

constexpr float kGeluDip = 0.1701F;  // no negative number's GELU is as far from 0

// The largest number of a chunk, two at a time, or the largest magnitude; a NaN if there is one.
__device__ inline std::uint32_t largest_pair(const uint4& bits, bool magnitudes) {
    const std::uint32_t mask = magnitudes ? 0x7fff7fffU : 0xffffffffU;
    return ptx::max_nan_bfloat(ptx::max_nan_bfloat(bits.x & mask, bits.y & mask),
                               ptx::max_nan_bfloat(bits.z & mask, bits.w & mask));
}
__device__ inline float larger_of(std::uint32_t pair) {
    return ptx::max_nan(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000U));
}

template <bool kWhole>
__global__ void __launch_bounds__(kMostThreads) quantize_rows(const QuantizeParameters p) {
    __shared__ WarpParts<unsigned> quick_maxima;
    __shared__ WarpParts<unsigned> maxima;
    const std::int64_t row = blockIdx.x;
    const OwnChunks<kWhole> own{p.chunks};
    uint4* const bits = shared_chunks();
    const __nv_bfloat16* const plain = p.plain.row(row);
    const __nv_bfloat16* const others = at(p.gelu.row(row), -p.plain_chunks);
    own.each([&](int, int chunk) {
        ptx::copy_async(ptx::shared_address(bits + chunk), at(p.is_plain(chunk) ? plain : others, chunk), kChunkBytes);
    });
    wait_for_copies();

    // GELU grows with every number above its dip, so of the largest number comes the largest magnitude; unless all are
    // so small that one below 0 may have it.
    std::uint32_t largest_plain = 0;
    std::uint32_t largest_other = 0;
    own.each([&](int, int chunk) {
        const std::uint32_t pair = largest_pair(bits[chunk], p.is_plain(chunk));
        largest_plain = ptx::max_nan_bfloat(largest_plain, p.is_plain(chunk) ? pair : 0);
        largest_other = ptx::max_nan_bfloat(largest_other, p.is_plain(chunk) ? 0 : pair);
    });
    float largest = block_max(ptx::max_nan(larger_of(largest_plain), gelu(larger_of(largest_other))), quick_maxima);
    if (p.plain_chunks < p.chunks && !(largest > kGeluDip)) {  // the same in all threads
        float exact = 0;
        own.each(
            [&](int, int chunk) { exact = ptx::max_nan(exact, largest_magnitude(p.channels(bits[chunk], chunk))); });
        largest = block_max(exact, maxima);
    }

    const RowScale scale = row_scale(largest);
    std::uint8_t* const output = p.output.row(row);
    own.each([&](int, int chunk) { store_fp8(at(output, chunk), p.channels(bits[chunk], chunk), scale.forward); });
    if (threadIdx.x == 0) {
        p.output_scale[row] = scale.back;
    }
}

}  // namespace scaledit::cuda::tokenwise
