// From the projection of a stream of a batch's tokens to the queries or keys of the sequences that attend, and back.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/batch_rows.cuh"
#include "cuda/channels.cuh"
#include "cuda/norm_and_rotate.cuh"
#include "cuda/tokenwise.cuh"

namespace scaledit::cuda::tokenwise {

// Divides what is below 2^31 by a product and a shift: a division would take as long as the rest of a row. Exactly:
// with a divisor d up to 2^s the factor f is 2^(31 + s) / d rounded up, so f d is above 2^(31 + s) by less than 2^s,
// and n f / 2^(31 + s) above n / d by less than 1 / d.
class Divisor {
public:
    explicit Divisor(std::int64_t divisor) {
        while (std::int64_t{1} << (shift_ - 31) < divisor) {
            ++shift_;
        }
        const auto by = static_cast<std::uint64_t>(divisor);
        factor_ = static_cast<std::uint32_t>(((std::uint64_t{1} << shift_) + by - 1) / by);
    }
    __device__ std::int64_t quotient(std::int64_t of) const {
        return static_cast<std::int64_t>(static_cast<std::uint64_t>(static_cast<std::uint32_t>(of)) * factor_ >>
                                         shift_);
    }

private:
    std::uint32_t factor_;
    std::uint32_t shift_ = 31;
};

// Where the sequences have a stream's rows.
struct Sequences {
    Divisor by_picture;
    std::int64_t picture_rows;
    std::int64_t sequence_rows;
    std::int64_t first;

    struct Place {
        std::int64_t in_sequence;
        std::int64_t row;  // of all sequences
    };
    __device__ Place place(std::int64_t row) const {
        const std::int64_t picture = by_picture.quotient(row);
        const std::int64_t in_sequence = first + row - picture * picture_rows;
        return {in_sequence, picture * sequence_rows + in_sequence};
    }
};

struct BatchNormAndRotateParameters {
    std::int64_t rows;
    int chunks;  // of a row
    Sequences sequences;
    float epsilon;
    const __nv_bfloat16* norm;
    const float* rotation;  // [sequence_rows, kHeadDim / 2, 2]
    Bfloat16Rows input;
    Bfloat16Rows sequence;  // the output, or its gradient
};

template <int kHeadDim, typename Shape>
struct BatchHeads {
    const BatchNormAndRotateParameters& p;
    OwnRows<Shape> own;
    int first_channel;  // of the thread's, in its head
    Channels weight;

    __device__ explicit BatchHeads(const BatchNormAndRotateParameters& parameters)
        : p(parameters),
          own(first_row(p.rows, blockIdx.x, gridDim.x), first_row(p.rows, blockIdx.x + 1, gridDim.x), p.chunks),
          first_channel(own.chunk % (kHeadDim / kChunkChannels) * kChunkChannels),
          weight(load_chunk(p.norm + first_channel)) {}

    __device__ Channels turns(const Sequences::Place& place) const {
        return load_turns(p.rotation + place.in_sequence * kHeadDim + first_channel);
    }
};

// Grid [blocks], as many as there are to be.
template <int kHeadDim, typename Shape>
__global__ void __launch_bounds__(Shape::kMostThreads)
    batch_norm_and_rotate(const __grid_constant__ BatchNormAndRotateParameters p) {
    const BatchHeads<kHeadDim, Shape> heads(p);
    const OwnRows<Shape>& own = heads.own;
    own.template each<1>([&](std::int64_t row, int) { return at(p.input.row(row), own.chunk); },
                         [&](std::int64_t row, const uint4(&chunks)[1]) {
                             const Sequences::Place place = p.sequences.place(row);
                             const Channels turns = heads.turns(place);
                             Channels x = unpack(chunks[0]);
                             norm_head<kHeadDim>(x, p.epsilon);
                             own.store(p.sequence, place.row, pack(rotate(product(x, heads.weight), turns)));
                         });
}

// Grid [parts].
template <int kHeadDim, typename Shape>
__global__ void __launch_bounds__(Shape::kMostThreads)
    batch_norm_and_rotate_gradient(const __grid_constant__ BatchNormAndRotateParameters p,
                                   const __grid_constant__ Bfloat16Rows input_gradient, float* norm_gradient) {
    const BatchHeads<kHeadDim, Shape> heads(p);
    const OwnRows<Shape>& own = heads.own;
    Channels sums{};
    const auto from = [&](std::int64_t row, int copy) {
        return at(copy == 0 ? p.input.row(row) : p.sequence.row(p.sequences.place(row).row), own.chunk);
    };
    own.template each<2>(from, [&](std::int64_t row, const uint4(&chunks)[2]) {
        const Channels turns = heads.turns(p.sequences.place(row));
        Channels x = unpack(chunks[0]);
        const float factor = norm_head<kHeadDim>(x, p.epsilon);
        const Channels back = rotate_back(unpack(chunks[1]), turns);
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            sums.x[i] = fmaf(back.x[i], x.x[i], sums.x[i]);
        }
        own.store(input_gradient, row, pack(head_gradient<kHeadDim>(product(heads.weight, back), x, factor)));
    });
    own.join(sums, p.chunks, kHeadDim, norm_gradient + std::int64_t{blockIdx.x} * kHeadDim);
}

}  // namespace scaledit::cuda::tokenwise
