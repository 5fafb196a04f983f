// How kernels of many short rows share them out among threads, and keep memory busy.
//
// A thread has the same chunk of 8 channels of all its rows: what belongs to a channel stays in registers, sums over
// rows too. Rows are copied to shared memory some ahead of the one that is worked on, each thread its own chunks, so
// that copies need no barrier and what is under way no registers.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tokenwise.cuh"

namespace scaledit::cuda::tokenwise {

// Each warp of a block has rows of its own, of 32 chunks at most: nothing waits for other warps.
struct ByWarp {
    static constexpr int kMostThreads = 256;
    static constexpr int kRowsAtOnce = kMostThreads / kWarpThreads;
    static constexpr int kSlots = 3;  // rows under way, with the one that is worked on
};
// A block has a row at a time, of 512 chunks at most.
struct ByBlock {
    static constexpr int kMostThreads = 512;
    static constexpr int kRowsAtOnce = 1;
    static constexpr int kSlots = 3;
};
// Likewise of 1,024: three matrices' rows and one ahead of each fit the 99 KB of a block on Ada and Blackwell.
struct ByLargeBlock {
    static constexpr int kMostThreads = 1024;
    static constexpr int kRowsAtOnce = 1;
    static constexpr int kSlots = 2;
};
static_assert(kMostHiddenWidth / kChunkChannels <= ByLargeBlock::kMostThreads);

// So many neighbouring rows, shared out among so many blocks: the first row of one.
__device__ inline std::int64_t first_row(std::int64_t rows, std::int64_t block, std::int64_t blocks) {
    return rows * block / blocks;
}

// The rows of a thread: begin ... end - 1 are the block's.
template <typename Shape>
struct OwnRows {
    static constexpr bool kByWarp = Shape::kRowsAtOnce > 1;

    std::int64_t first;
    std::int64_t end;
    int chunk;       // of each row
    bool has_chunk;  // without one a thread repeats the row's last, and stores nothing

    // Rows have `chunks` chunks, of which the block has those from `first_chunk` on.
    __device__ OwnRows(std::int64_t begin, std::int64_t behind, int chunks, int first_chunk = 0)
        : first(begin + number()), end(behind) {
        const int wanted = first_chunk + static_cast<int>(kByWarp ? threadIdx.x % kWarpThreads : threadIdx.x);
        has_chunk = wanted < chunks;
        chunk = has_chunk ? wanted : chunks - 1;
    }

    // Which of the rows that the block has at once.
    __device__ static int number() { return kByWarp ? static_cast<int>(threadIdx.x) / kWarpThreads : 0; }

    // from(row, which of the kCopies) says where the thread's chunks of a row are; then body(row, chunks), row by row.
    template <int kCopies, typename From, typename Body>
    __device__ void each(From&& from, Body&& body) const {
        constexpr int kAhead = Shape::kSlots - 1;
        uint4* const own = shared_chunks() + threadIdx.x;
        const auto chunk_in = [&](int slot, int copy) -> uint4& {
            return own[(slot * kCopies + copy) * static_cast<int>(blockDim.x)];
        };
        const auto begin_copies = [&](std::int64_t row, int slot) {
            if (row < end) {
#pragma unroll
                for (int copy = 0; copy < kCopies; ++copy) {
                    ptx::copy_async<kChunkBytes>(ptx::shared_address(&chunk_in(slot, copy)), from(row, copy));
                }
            }
            ptx::commit_copies();  // a group for each row, also where there is none
        };
#pragma unroll
        for (int ahead = 0; ahead < kAhead; ++ahead) {
            begin_copies(first + ahead * Shape::kRowsAtOnce, ahead);
        }
        int slot = 0;
        for (std::int64_t row = first; row < end; row += Shape::kRowsAtOnce) {
            // Where the row before was, whose chunks are in registers since.
            begin_copies(row + kAhead * Shape::kRowsAtOnce, slot == 0 ? kAhead : slot - 1);
            ptx::wait_copies<kAhead>();
            uint4 chunks[kCopies];
#pragma unroll
            for (int copy = 0; copy < kCopies; ++copy) {
                chunks[copy] = chunk_in(slot, copy);
            }
            body(row, chunks);
            slot = slot == kAhead ? 0 : slot + 1;
        }
    }

    __device__ void store(const Bfloat16Rows& rows, std::int64_t row, const uint4& bits) const {
        if (has_chunk) {
            tokenwise::store(at(rows.row(row), chunk), bits);
        }
    }

    // The sum over the row, the same bits in all its threads.
    __device__ float row_sum(float x, WarpParts<float>& parts) const {
        const float own = has_chunk ? x : 0;
        if constexpr (kByWarp) {
            return lane_sum<kWarpThreads>(own);
        } else {
            return block_sum(own, parts);
        }
    }
    // Likewise two sums at once.
    __device__ float2 row_sums(float2 x, WarpParts<float2>& parts) const {
        const float2 own = has_chunk ? x : float2{};
        if constexpr (kByWarp) {
            return {lane_sum<kWarpThreads>(own.x), lane_sum<kWarpThreads>(own.y)};
        } else {
            return block_sums(own, parts);
        }
    }

    // Joins what the block's threads have, in a fixed order: to[i] = the sum over all of channels i, i + period, ...
    // Once the rows are done, and for rows that one block has whole.
    __device__ void join(const Channels& sums, int chunks, int period, float* to) const {
        auto* const kept = reinterpret_cast<float*>(shared_chunks());
        __syncthreads();  // nobody reads rows any more, or the sums that were joined before
        if (has_chunk) {
            auto* const mine = reinterpret_cast<float4*>(kept + (number() * chunks + chunk) * kChunkChannels);
            mine[0] = {sums.x[0], sums.x[1], sums.x[2], sums.x[3]};
            mine[1] = {sums.x[4], sums.x[5], sums.x[6], sums.x[7]};
        }
        __syncthreads();
        const int all = Shape::kRowsAtOnce * chunks * kChunkChannels;
        for (int i = static_cast<int>(threadIdx.x); i < period; i += static_cast<int>(blockDim.x)) {
            float sum = 0;
            for (int other = i; other < all; other += period) {
                sum += kept[other];
            }
            to[i] = sum;
        }
    }
};

}  // namespace scaledit::cuda::tokenwise
