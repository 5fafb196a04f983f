// What training does to the tokens of a batch of pictures: modulation and gated addition with vectors of each picture,
// and GELU, forward and back. All wait for memory, so each reads and writes everything once.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/batch_rows.cuh"
#include "cuda/channels.cuh"
#include "cuda/tokenwise.cuh"

namespace scaledit::cuda::tokenwise {

// Grid [pictures * parts], the parts of a picture next to each other: a block has some of a picture's rows.
struct Pictures {
    std::int64_t count;
    std::int64_t rows;  // of one
    std::int32_t parts;
    int chunks;  // of a row

    __device__ std::int64_t picture() const { return blockIdx.x / static_cast<unsigned>(parts); }
    __device__ std::int64_t part() const { return blockIdx.x % static_cast<unsigned>(parts); }
    template <typename Shape>
    __device__ OwnRows<Shape> own_rows() const {
        const std::int64_t begin = picture() * rows;
        return {begin + first_row(rows, part(), parts), begin + first_row(rows, part() + 1, parts), chunks};
    }

    // The chunk that a thread has of its picture's vector.
    template <typename Shape>
    __device__ uint4 chunk_of(const Bfloat16Rows& vectors, const OwnRows<Shape>& own) const {
        return *reinterpret_cast<const uint4*>(at(vectors.row(picture()), own.chunk));
    }
    // Writes the block's part of its picture's gradient.
    template <typename Shape>
    __device__ void join(const Rows<float>& gradients, const OwnRows<Shape>& own, const Channels& sums) const {
        own.join(sums, chunks, chunks * kChunkChannels, gradients.row(part() * count + picture()));
    }
};

// What a norm takes of a row, and gives it.
struct RowNorm {
    Width width;
    float epsilon;

    __device__ float factor(float square_sum_of_row) const { return rsqrtf(width.mean(square_sum_of_row) + epsilon); }
};

__device__ inline void subtract(Channels& from, float number) {
#pragma unroll
    for (float& x : from.x) {
        x -= number;
    }
}

struct BatchModulateParameters {
    Pictures pictures;
    RowNorm norm;
    Bfloat16Rows hidden, shift, scale, output;
};

template <typename Shape>
__global__ void __launch_bounds__(Shape::kMostThreads)
    batch_modulate(const __grid_constant__ BatchModulateParameters p) {
    __shared__ WarpParts<float> sums;
    __shared__ WarpParts<float> square_sums;
    const OwnRows<Shape> own = p.pictures.own_rows<Shape>();
    const Channels shift = unpack(p.pictures.chunk_of(p.shift, own));
    const Channels scale = unpack(p.pictures.chunk_of(p.scale, own));
    own.template each<1>([&](std::int64_t row, int) { return at(p.hidden.row(row), own.chunk); },
                         [&](std::int64_t row, const uint4(&chunks)[1]) {
                             Channels x = unpack(chunks[0]);
                             subtract(x, p.norm.width.mean(own.row_sum(sum_of(x), sums)));
                             const float factor = p.norm.factor(own.row_sum(square_sum(x), square_sums));
#pragma unroll
                             for (int i = 0; i < kChunkChannels; ++i) {
                                 x.x[i] = fmaf(x.x[i], fmaf(factor, scale.x[i], factor), shift.x[i]);
                             }
                             own.store(p.output, row, pack(x));
                         });
}

struct BatchModulateGradientParameters {
    Pictures pictures;
    RowNorm norm;
    Bfloat16Rows hidden, scale, output_gradient, hidden_gradient;
    Rows<float> shift_gradient, scale_gradient;
};

// With d = hidden - mean, r = 1 / sqrt(mean(d^2) + epsilon), n = d r and g = dy (1 + scale):
//   dhidden = r g - r mean(g) - n r mean(g n),  dshift = the sum over rows of dy,  dscale = that of dy n
template <bool kAdds, typename Shape>
__global__ void __launch_bounds__(Shape::kMostThreads)
    batch_modulate_gradient(const __grid_constant__ BatchModulateGradientParameters p) {
    __shared__ WarpParts<float2> sums;
    __shared__ WarpParts<float2> product_sums;
    const OwnRows<Shape> own = p.pictures.own_rows<Shape>();
    const Channels scale = unpack(p.pictures.chunk_of(p.scale, own));
    Channels shift_gradient{};
    Channels scale_gradient{};
    const auto from = [&](std::int64_t row, int copy) {
        const Bfloat16Rows& rows = copy == 0 ? p.hidden : copy == 1 ? p.output_gradient : p.hidden_gradient;
        return at(rows.row(row), own.chunk);
    };
    constexpr int kCopies = kAdds ? 3 : 2;
    own.template each<kCopies>(from, [&](std::int64_t row, const uint4(&chunks)[kCopies]) {
        Channels x = unpack(chunks[0]);
        const Channels gradient = unpack(chunks[1]);
        Channels stretched;
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            stretched.x[i] = fmaf(gradient.x[i], scale.x[i], gradient.x[i]);
        }
        const float2 sum = own.row_sums({sum_of(x), sum_of(stretched)}, sums);
        subtract(x, p.norm.width.mean(sum.x));
        float both = 0;
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            both = fmaf(stretched.x[i], x.x[i], both);
        }
        const float2 products = own.row_sums({square_sum(x), both}, product_sums);
        const float factor = p.norm.factor(products.x);
        const float mean = p.norm.width.mean(sum.y) * factor;
        const float slope = p.norm.width.mean(products.y) * factor * factor;
        Channels old;
        if constexpr (kAdds) {
            old = unpack(chunks[2]);
        }
        Channels result;
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            const float start = kAdds ? old.x[i] - mean : -mean;
            const float normed = x.x[i] * factor;
            result.x[i] = fmaf(factor, stretched.x[i], fmaf(-normed, slope, start));
            shift_gradient.x[i] += gradient.x[i];
            scale_gradient.x[i] = fmaf(gradient.x[i], normed, scale_gradient.x[i]);
        }
        own.store(p.hidden_gradient, row, pack(result));
    });
    p.pictures.join(p.shift_gradient, own, shift_gradient);
    p.pictures.join(p.scale_gradient, own, scale_gradient);
}

struct BatchAddGatedParameters {
    Pictures pictures;
    Bfloat16Rows hidden, update, gate, output;
};

template <typename Shape>
__global__ void __launch_bounds__(Shape::kMostThreads)
    batch_add_gated(const __grid_constant__ BatchAddGatedParameters p) {
    const OwnRows<Shape> own = p.pictures.own_rows<Shape>();
    const uint4 gate = p.pictures.chunk_of(p.gate, own);
    own.template each<2>(
        [&](std::int64_t row, int copy) { return at((copy == 0 ? p.hidden : p.update).row(row), own.chunk); },
        [&](std::int64_t row, const uint4(&chunks)[2]) {
            own.store(p.output, row, add_gated(chunks[0], gate, chunks[1]));
        });
}

struct BatchAddGatedGradientParameters {
    Pictures pictures;
    Bfloat16Rows update, gate, output_gradient, update_gradient;
    Rows<float> gate_gradient;
};

// dupdate = dy gate,  dgate = the sum over rows of dy update
template <typename Shape>
__global__ void __launch_bounds__(Shape::kMostThreads)
    batch_add_gated_gradient(const __grid_constant__ BatchAddGatedGradientParameters p) {
    const OwnRows<Shape> own = p.pictures.own_rows<Shape>();
    const Channels gate = unpack(p.pictures.chunk_of(p.gate, own));
    Channels gate_gradient{};
    own.template each<2>(
        [&](std::int64_t row, int copy) { return at((copy == 0 ? p.update : p.output_gradient).row(row), own.chunk); },
        [&](std::int64_t row, const uint4(&chunks)[2]) {
            const Channels update = unpack(chunks[0]);
            Channels gradient = unpack(chunks[1]);
#pragma unroll
            for (int i = 0; i < kChunkChannels; ++i) {
                gate_gradient.x[i] = fmaf(gradient.x[i], update.x[i], gate_gradient.x[i]);
                gradient.x[i] *= gate.x[i];
            }
            own.store(p.update_gradient, row, pack(gradient));
        });
    p.pictures.join(p.gate_gradient, own, gate_gradient);
}

// Grid [tiles of 32 chunks, blocks for the rows]: of rows however long a warp has a tile.
struct Tiles {
    std::int64_t rows;
    int chunks;

    __device__ OwnRows<ByWarp> own_rows() const {
        return {first_row(rows, blockIdx.y, gridDim.y), first_row(rows, blockIdx.y + 1, gridDim.y), chunks,
                static_cast<int>(blockIdx.x) * kWarpThreads};
    }
};

struct JoinGeluParameters {
    Tiles tiles;
    Bfloat16Rows plain;
    Bfloat16Rows gelu;
    int plain_chunks;  // the first ones
    Bfloat16Rows output;
};

__global__ void __launch_bounds__(ByWarp::kMostThreads) join_gelu_rows(const __grid_constant__ JoinGeluParameters p) {
    const OwnRows<ByWarp> own = p.tiles.own_rows();
    const bool is_plain = own.chunk < p.plain_chunks;
    const Bfloat16Rows& rows = is_plain ? p.plain : p.gelu;
    const int chunk = is_plain ? own.chunk : own.chunk - p.plain_chunks;
    own.each<1>([&](std::int64_t row, int) { return at(rows.row(row), chunk); },
                [&](std::int64_t row, const uint4(&chunks)[1]) {
                    own.store(p.output, row, is_plain ? chunks[0] : pack(gelu(unpack(chunks[0]))));
                });
}

// With s = 1 / (1 + e^-2u), which GELU multiplies x by: s + x s (1 - s) 2u'. Where s is 0 or 1, from kGeluFar on, what
// multiplies 1 - s must not become infinite. A NaN is in s.
constexpr float kGeluFar = 12;
__device__ inline float gelu_slope(float x) {
    const float factor = gelu_factor(x);
    const float near = fminf(fmaxf(x, -kGeluFar), kGeluFar);
    const float rise = near * fmaf(near * near, 3 * kGeluCubic * kGeluLinear, kGeluLinear);
    return fmaf(factor - factor * factor, rise, factor);
}

struct GeluGradientParameters {
    Tiles tiles;
    Bfloat16Rows input, output_gradient, input_gradient;
};

__global__ void __launch_bounds__(ByWarp::kMostThreads)
    gelu_gradient_rows(const __grid_constant__ GeluGradientParameters p) {
    const OwnRows<ByWarp> own = p.tiles.own_rows();
    own.each<2>(
        [&](std::int64_t row, int copy) { return at((copy == 0 ? p.input : p.output_gradient).row(row), own.chunk); },
        [&](std::int64_t row, const uint4(&chunks)[2]) {
            const Channels x = unpack(chunks[0]);
            Channels gradient = unpack(chunks[1]);
#pragma unroll
            for (int i = 0; i < kChunkChannels; ++i) {
                gradient.x[i] *= gelu_slope(x.x[i]);
            }
            own.store(p.input_gradient, row, pack(gradient));
        });
}

}  // namespace scaledit::cuda::tokenwise
