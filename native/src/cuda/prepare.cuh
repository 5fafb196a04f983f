// The pre-pass: from the projections' output to the packed INT8 and FP8 or FP16 tiles (packed.h), with the queries' and
// keys' RMSNorm and rotation on the way.
//
// measure() looks at a sample of the keys for their mean (any vector close to it will do: what is subtracted from all
// keys of a head changes no weight), at one of queries and keys for the balance between them, and at one of the values
// for their channels' means and ranges; prepare() reads everything and writes the tiles. Values lose their mean
// on the way to e4m3, and the attention adds it again at its end, as weights add up to 1: matrix instructions sum FP8
// products with few bits, which shrinks sums of one sign. In the same way attention takes off what rounding did to the
// mean of the values that a tile attends to.
//
// A sample's range is not that of all: its scale leaves room above it (kValueHeadroom). Where prepare() meets a value
// beyond even that, pack_values_anew() packs the head's values once more, with the range that they have.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/device_geometry.h"
#include "cuda/device_tensor.cuh"
#include "cuda/int8.cuh"
#include "cuda/packed.h"
#include "cuda/ptx.cuh"
#include "cuda/tile_pairs.h"

namespace scaledit::cuda {

struct PrepareParameters {
    const TokenRange* tiles;
    std::int32_t tile_count;
    std::int32_t heads;
    std::int64_t tokens;
    std::int64_t text_tokens;  // the first ones
    DeviceTensor query, key, value;
    // [head_dim] each, or null: the queries and keys are normed already.
    const __nv_bfloat16* query_norm;
    const __nv_bfloat16* key_norm;
    const __nv_bfloat16* text_query_norm;
    const __nv_bfloat16* text_key_norm;
    float norm_epsilon;
    const float2* rotation;  // [tokens, head_dim / 2] cosine and sine, or null: they are rotated already
    float scale;
    bool with_mean;               // whether the products of queries with the mean key are wanted
    std::int32_t measure_blocks;  // of a head
    std::int32_t block_heads;     // of a tile that a block of prepare() makes
    std::int32_t pairs;           // of tiles, whose means correct() corrects
    std::int32_t long_pairs;      // the first of them
    std::byte* workspace;
    Workspace at;

    template <typename Element>
    __device__ Element* in_workspace(std::size_t offset) const {
        return reinterpret_cast<Element*>(workspace + offset);
    }
    __device__ std::size_t head_tile(int head, int tile) const {
        return static_cast<std::size_t>(head) * tile_count + tile;
    }
};

__device__ inline uint4 load_channels(const __nv_bfloat16* row, int lane) {
    return *reinterpret_cast<const uint4*>(row + lane * kChunkChannels);
}

// What a row with these squares in each lane is to be multiplied by for a root mean square of 1.
template <int kHeadDim, int kLanes>
__device__ inline float norm_factor(float squares, float epsilon) {
    return rsqrtf(lane_sum<kLanes>(squares) / kHeadDim + epsilon);
}

__device__ inline void multiply(Channels& channels, const Channels& weight) {
#pragma unroll
    for (int i = 0; i < kChunkChannels; ++i) {
        channels.x[i] *= weight.x[i];
    }
}

// The rotation of a chunk's channels: two pairs of them, cosine and sine each, in 16 bytes.
constexpr int kChunkRotations = kChunkChannels / 4;

// That of a token's chunk.
template <int kHeadDim>
__device__ inline const float4* chunk_rotation(const PrepareParameters& p, std::int64_t token, int chunk) {
    return reinterpret_cast<const float4*>(p.rotation) +
           (token * (kHeadDim / kChunkChannels) + chunk) * kChunkRotations;
}

// Two pairs of channels from `from` on.
__device__ inline void rotate(Channels& channels, int from, const float4& rotation) {
    const float cosine[2] = {rotation.x, rotation.z};
    const float sine[2] = {rotation.y, rotation.w};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        float& x = channels.x[from + 2 * i];
        float& y = channels.x[from + 2 * i + 1];
        const float turned = fmaf(x, cosine[i], -y * sine[i]);
        y = fmaf(y, cosine[i], x * sine[i]);
        x = turned;
    }
}

// Norm and rotation of a lane's chunks of a query or key. The norm's factor (1 without a norm) is handed back for the
// caller, who has other factors as well. weight(chunk) are those of its channels, rotation(chunk, i) part i of its own.
template <int kHeadDim, int kChunks, typename Weight, typename Rotation>
__device__ inline float finish(Channels (&channels)[kChunks], float epsilon, bool normed, Weight&& weight, bool rotated,
                               Rotation&& rotation) {
    float factor = 1;
    if (normed) {
        float squares = square_sum(channels[0]);
#pragma unroll
        for (int chunk = 1; chunk < kChunks; ++chunk) {
            squares += square_sum(channels[chunk]);
        }
        factor = norm_factor<kHeadDim, kHeadDim / kChunkChannels / kChunks>(squares, epsilon);
    }
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
        multiply(channels[chunk], weight(chunk));
        if (rotated) {
#pragma unroll
            for (int i = 0; i < kChunkRotations; ++i) {
                rotate(channels[chunk], 4 * i, rotation(chunk, i));
            }
        }
    }
    return factor;
}

constexpr int kMeasureThreads = 256;
constexpr int kMeasureStride = 16;       // of the tokens whose keys and values are looked at
constexpr int kMeasureQueryStride = 64;  // likewise, queries

// Whether not all tokens are looked at, as those of a short sequence are.
__host__ __device__ constexpr bool is_sampled(std::int64_t tokens) { return tokens >= kMeasureStride * 1024; }

// Tokens that are looked at.
struct Sample {
    int stride;
    int count;
};
__device__ inline Sample sample(std::int64_t tokens, int stride) {
    const int own = is_sampled(tokens) ? stride : 1;
    return {own, (static_cast<int>(tokens) + own - 1) / own};
}

// What a block of measure() has: its rows look at tokens, and what they find of each channel is joined.
template <int kHeadDim>
class Measuring {
public:
    static constexpr int kLanes = kHeadDim / kChunkChannels;
    static constexpr int kRows = kMeasureThreads / kLanes;
    struct Memory {
        float channels[kRows][kHeadDim];
    };

    __device__ Measuring(const PrepareParameters& parameters, Memory& memory)
        : p(parameters),
          memory_(memory),
          head_(static_cast<int>(blockIdx.x)),
          lane_(static_cast<int>(threadIdx.x) % kLanes),
          row_(static_cast<int>(threadIdx.x) / kLanes) {}

    // Block `block` of `blocks` of the head's.
    __device__ void queries(int block, int blocks) const {
        Channels squares{};
        for_sample(sample(p.tokens, kMeasureQueryStride), block, blocks, [&](int token, bool real) {
            const Channels query = finished(p.query, p.query_norm, p.text_query_norm, token);
#pragma unroll
            for (int i = 0; i < kChunkChannels; ++i) {
                squares.x[i] = real ? fmaf(query.x[i], query.x[i], squares.x[i]) : squares.x[i];
            }
        });
        keep(squares, block, p.at.query_squares, add);
    }

    __device__ void keys(int block, int blocks) const {
        Channels sum{};
        Channels squares{};
        for_sample(sample(p.tokens, kMeasureStride), block, blocks, [&](int token, bool real) {
            const Channels key = finished(p.key, p.key_norm, p.text_key_norm, token);
#pragma unroll
            for (int i = 0; i < kChunkChannels; ++i) {
                sum.x[i] += real ? key.x[i] : 0;
                squares.x[i] = real ? fmaf(key.x[i], key.x[i], squares.x[i]) : squares.x[i];
            }
        });
        keep(squares, block, p.at.key_squares, add);
        keep(sum, block, p.at.key_sums, add);
    }

    __device__ void values(int block, int blocks) const {
        Channels sum{};
        __nv_bfloat162 low[kChunkChannels / 2];
        __nv_bfloat162 high[kChunkChannels / 2];
#pragma unroll
        for (int i = 0; i < kChunkChannels / 2; ++i) {
            low[i] = __float2bfloat162_rn(INFINITY);
            high[i] = __float2bfloat162_rn(-INFINITY);
        }
        constexpr int kAhead = 3;
        const Sample of = sample(p.tokens, kMeasureStride);
        const int step = blocks * kRows;
        for (int first = block * kRows; first < of.count; first += kAhead * step) {
            uint4 bits[kAhead];
#pragma unroll
            for (int i = 0; i < kAhead; ++i) {
                // One of each `stride` tokens, each time another: all cells have their tokens in the same order.
                const int at = min(first + row_ + i * step, of.count - 1);
                const int token = min(at * of.stride + (at * 5 & (of.stride - 1)), static_cast<int>(p.tokens) - 1);
                bits[i] = ptx::load_once(p.value.row(token, head_) + lane_ * kChunkChannels);
            }
#pragma unroll
            for (int i = 0; i < kAhead; ++i) {
                const bool real = first + row_ + i * step < of.count;
                const Channels value = unpack(bits[i]);
                const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits[i]);
#pragma unroll
                for (int c = 0; c < kChunkChannels / 2; ++c) {
                    sum.x[2 * c] += real ? value.x[2 * c] : 0;
                    sum.x[2 * c + 1] += real ? value.x[2 * c + 1] : 0;
                    low[c] = __hmin2(low[c], pairs[c]);
                    high[c] = __hmax2(high[c], pairs[c]);
                }
            }
        }
        const auto in_float = [](const __nv_bfloat162(&pairs)[kChunkChannels / 2]) {
            Channels channels;
#pragma unroll
            for (int i = 0; i < kChunkChannels / 2; ++i) {
                channels.x[2 * i] = __low2float(pairs[i]);
                channels.x[2 * i + 1] = __high2float(pairs[i]);
            }
            return channels;
        };
        keep(sum, block, p.at.value_sums, add);
        keep(in_float(low), block, p.at.value_lows, [](float a, float b) { return fminf(a, b); });
        keep(in_float(high), block, p.at.value_highs, [](float a, float b) { return fmaxf(a, b); });
    }

private:
    static constexpr Channels kOnes = {1, 1, 1, 1, 1, 1, 1, 1};
    __device__ static float add(float a, float b) { return a + b; }

    template <typename Look>
    __device__ void for_sample(const Sample& of, int block, int blocks, Look&& look) const {
        for (int at = block * kRows + row_; at - row_ < of.count; at += blocks * kRows) {
            look(at < of.count ? at * of.stride : 0, at < of.count);
        }
    }

    __device__ Channels finished(const DeviceTensor& tensor, const __nv_bfloat16* norm, const __nv_bfloat16* text_norm,
                                 int token) const {
        Channels channels[] = {unpack(load_channels(tensor.row(token, head_), lane_))};
        const float factor = finish<kHeadDim>(
            channels, p.norm_epsilon, norm != nullptr,
            [&](int) {
                return norm == nullptr ? kOnes : unpack(load_channels(token < p.text_tokens ? text_norm : norm, lane_));
            },
            p.rotation != nullptr, [&](int, int i) { return chunk_rotation<kHeadDim>(p, token, lane_)[i]; });
#pragma unroll
        for (float& x : channels[0].x) {
            x *= factor;
        }
        return channels[0];
    }

    // Joins what the block's rows have of each channel, and keeps it for conclude().
    template <typename Both>
    __device__ void keep(const Channels& own, int block, std::size_t to, Both&& both) const {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kChunkChannels; ++i) {
            memory_.channels[row_][lane_ * kChunkChannels + i] = own.x[i];
        }
        __syncthreads();
        if (threadIdx.x < kHeadDim) {
            float all = memory_.channels[0][threadIdx.x];
            for (int r = 1; r < kRows; ++r) {
                all = both(all, memory_.channels[r][threadIdx.x]);
            }
            p.in_workspace<float>(to)[(block * p.heads + head_) * kHeadDim + threadIdx.x] = all;
        }
    }

    const PrepareParameters& p;
    Memory& memory_;
    const int head_;
    const int lane_;
    const int row_;
};

// Grid [heads, measure_blocks(heads)].
template <int kHeadDim>
__global__ void __launch_bounds__(kMeasureThreads, 6) measure(const __grid_constant__ PrepareParameters p) {
    ptx::launch_dependents();
    __shared__ typename Measuring<kHeadDim>::Memory memory;
    const Measuring<kHeadDim> measuring(p, memory);
    const int block = static_cast<int>(blockIdx.y);
    measuring.values(block, p.measure_blocks);
    measuring.keys(block, p.measure_blocks);
    measuring.queries(block, p.measure_blocks);
}

__device__ inline float pair_sum(float x) { return x + __shfl_xor_sync(0xffffffffU, x, 1); }
__device__ inline float power_of_two(int exponent) { return __int_as_float((127 + exponent) << 23); }

// Of what a pair's queries are multiplied by and its keys divided: half of the way, in powers, from one's size to the
// other's, so that in both all pairs are as alike as they can be.
__device__ inline int balance_exponent(float query_squares, float key_squares) {
    constexpr float kMost = 16;
    const float exponent = 0.25F * (log2f(key_squares) - log2f(query_squares));
    // What is no number, as for pairs of zeros, is no reason to change anything.
    return fabsf(exponent) < INFINITY ? static_cast<int>(rintf(fminf(fmaxf(exponent, -kMost), kMost))) : 0;
}

// What is known of a channel.
struct Measured {
    float query_squares;
    float key_sum;
    float key_squares;
    float value_sum;
    float value_low;
    float value_high;

    __device__ void join(const Measured& other) {
        query_squares += other.query_squares;
        key_sum += other.key_sum;
        key_squares += other.key_squares;
        value_sum += other.value_sum;
        value_low = fminf(value_low, other.value_low);
        value_high = fmaxf(value_high, other.value_high);
    }
};

// What a channel's limit is where its largest magnitude is `largest`: above zero, so that no other value of a channel
// whose sample is zeros is taken for one.
template <ValueFormat kFormat>
__device__ inline float value_limit(float largest) {
    constexpr float kSmallest = 1e-30F;
    const float limit = fmaxf(largest, kSmallest);
    // The power of two below.
    return kFormat == ValueFormat::kFp16 ? __uint_as_float(__float_as_uint(limit) & 0x7f800000U) : limit;
}

constexpr int kConcludeChannels = 32;  // of a block, a warp's lanes
constexpr int kConcludeWarps = 16;     // that share what the blocks of measure() have found
constexpr int kConcludeThreads = kConcludeChannels * kConcludeWarps;

// Grid [heads * head_dim / kConcludeChannels]: the balance, the mean key, the mean value, and what values are
// multiplied by.
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kConcludeThreads) conclude(const __grid_constant__ PrepareParameters p) {
    ptx::launch_dependents();
    __shared__ Measured parts[kConcludeWarps][kConcludeChannels];
    const int lane = static_cast<int>(threadIdx.x) % kConcludeChannels;
    const int warp = static_cast<int>(threadIdx.x) / kConcludeChannels;
    const int channel = static_cast<int>(blockIdx.x) * kConcludeChannels + lane;  // of all heads
    Measured& found = parts[warp][lane];
    {
        Measured own{0, 0, 0, 0, INFINITY, -INFINITY};
        ptx::wait_for_kernels();
#pragma unroll 4
        for (int block = warp; block < p.measure_blocks; block += kConcludeWarps) {
            const int at = block * p.heads * kHeadDim + channel;
            own.join({p.in_workspace<float>(p.at.query_squares)[at], p.in_workspace<float>(p.at.key_sums)[at],
                      p.in_workspace<float>(p.at.key_squares)[at], p.in_workspace<float>(p.at.value_sums)[at],
                      p.in_workspace<float>(p.at.value_lows)[at], p.in_workspace<float>(p.at.value_highs)[at]});
        }
        found = own;
    }
    for (int others = kConcludeWarps / 2; others > 0; others /= 2) {
        __syncthreads();
        if (warp < others) {
            found.join(parts[warp + others][lane]);
        }
    }
    if (warp > 0) {
        return;
    }
    const auto [query_squares, key_sum, key_squares, value_sum, low, high] = found;
    const auto queries = static_cast<float>(sample(p.tokens, kMeasureQueryStride).count);
    const auto keys = static_cast<float>(sample(p.tokens, kMeasureStride).count);
    // A sum that a NaN joined says nothing of the other keys: any mean will do for them.
    const float mean_of_keys = key_sum / keys;
    const float key_mean = fabsf(mean_of_keys) < INFINITY ? mean_of_keys : 0;
    const int balance =
        balance_exponent(pair_sum(query_squares) / queries, pair_sum(fmaf(-key_mean, key_sum, key_squares)) / keys);
    if (channel % 2 == 0) {
        p.in_workspace<float>(p.at.query_balance)[channel / 2] = power_of_two(balance);
        p.in_workspace<float>(p.at.key_balance)[channel / 2] = power_of_two(-balance);
    }
    p.in_workspace<float>(p.at.key_mean)[channel] = key_mean * power_of_two(-balance);
    float mean = 0;
    float limit = fmaxf(high, -low);
    if constexpr (kFormat == ValueFormat::kFp8) {
        // One that is small beside the values is left in them: they are bfloat16, and moved by less than their steps
        // are wide they would all be rounded to one side. A sum that a NaN joined says nothing: it stays its rows' own.
        constexpr float kSmallMean = 1.0F / 32;
        const float all = value_sum / keys;  // values are sampled as keys are
        if (fabsf(all) > kSmallMean * limit && fabsf(all) < INFINITY) {
            mean = all;
            // Of numbers in bfloat16 that are not all one, some are farther from their mean than 2^-10 of it; where all
            // are one, what float32 rounds off must not look like a difference.
            limit = fmaxf(fmaxf(high - mean, mean - low), 0x1p-10F * fabsf(mean));
        }
    }
    if (is_sampled(p.tokens) && limit < INFINITY) {
        limit = fminf(kValueHeadroom * limit, FLT_MAX);
    }
    limit = value_limit<kFormat>(limit);
    p.in_workspace<float>(p.at.value_mean)[channel] = mean;
    p.in_workspace<float>(p.at.value_limits)[channel] = limit;
    p.in_workspace<float>(p.at.value_forward)[channel] = kValueLimit<kFormat> / limit;
    p.in_workspace<std::uint32_t>(p.at.value_beyond)[channel] = 0;
    if (channel % kHeadDim == 0) {
        p.in_workspace<std::int32_t>(p.at.heads_anew)[channel / kHeadDim] = 0;
    }
    if (channel == 0) {
        for (int i = 0; i < 2; ++i) {
            p.in_workspace<std::int32_t>(p.at.next)[i] = 0;
        }
    }
}

template <int kHeadDim>
constexpr int kPrepareThreads = 4 * kHeadDim;
__host__ __device__ constexpr std::int32_t head_blocks(std::int32_t heads, std::int32_t block_heads) {
    return (heads + block_heads - 1) / block_heads;
}
// Many heads to a block, as long as there are blocks enough for a GPU, and about as many to each.
constexpr std::int32_t kMostBlockHeads = 16;
inline std::int32_t block_heads(std::int64_t tiles, std::int32_t heads) {
    constexpr std::int64_t kEnough = 1024;
    const auto most = static_cast<std::int32_t>(std::clamp<std::int64_t>(tiles * heads / kEnough, 1, kMostBlockHeads));
    const std::int32_t blocks = head_blocks(heads, most);
    return (heads + blocks - 1) / blocks;
}
// What a block makes of its tile. Neighbouring blocks make all of them: each waits for something else.
enum class Part { kQueries, kKeys, kValues };
constexpr int kParts = 3;

// One tile of some heads, as a block of prepare() sees it.
template <int kHeadDim>
class TileRows {
public:
    static constexpr int kThreads = kPrepareThreads<kHeadDim>;
    static constexpr int kChunks = 2;  // of a row that a lane has: `lane`, and kLanes on
    static constexpr int kLanes = kHeadDim / kChunkChannels / kChunks;  // that share a row
    static_assert(kThreads / kLanes == kTileTokens);
    static constexpr std::size_t kTileBytes = kTileTokens * kHeadDim;

    __device__ TileRows(const PrepareParameters& parameters)
        : TileRows(parameters, static_cast<int>(blockIdx.x) / kParts / head_blocks(parameters),
                   static_cast<int>(blockIdx.x) / kParts % head_blocks(parameters) * parameters.block_heads,
                   parameters.block_heads) {}
    // Up to `most_heads` heads from `from` on.
    __device__ TileRows(const PrepareParameters& parameters, int number, int from, int most_heads)
        : p(parameters),
          tile(number),
          own(p.tiles[tile]),
          lane(static_cast<int>(threadIdx.x) % kLanes),
          row(static_cast<int>(threadIdx.x) / kLanes),
          first_head(from),
          end_head(min(from + most_heads, p.heads)) {}

    // A row that the tile lacks is its first once more.
    __device__ int real_row() const { return row < own.tokens ? row : 0; }
    __device__ int chunk(int i) const { return i * kLanes + lane; }
    __device__ std::size_t at(int head) const { return p.head_tile(head, tile); }

    // Where chunk(i) of this lane's token begins, in the first head's tile of one byte a channel; heads are tile_count
    // tiles apart.
    __device__ std::byte* packed(std::size_t offset, int i) const {
        return p.in_workspace<std::byte>(offset) + at(first_head) * kTileBytes + row * kHeadDim +
               swizzled_chunk(kHeadDim, row, chunk(i) / 2) * 16 + lane % 2 * 8;
    }

    const PrepareParameters& p;
    const int tile;
    const TokenRange own;
    const int lane;
    const int row;
    const int first_head;
    const int end_head;

private:
    __device__ static int head_blocks(const PrepareParameters& p) { return cuda::head_blocks(p.heads, p.block_heads); }
};

// Heads of a tile that are on their way to shared memory at a time.
constexpr int kHeadsAhead = 3;

// A block's shared memory.
template <int kHeadDim>
struct PrepareMemory {
    using Rows = TileRows<kHeadDim>;
    static constexpr int kWords = kTileTokens / 4;
    static constexpr int kStride = kWords + 1;  // words: neighbouring channels in different banks

    // By thread, as each copies it: its chunks, or (FP8) its channels of a word's rows.
    union {
        uint4 chunks[kHeadsAhead][Rows::kChunks][Rows::kThreads];
        uint2 fours[kHeadsAhead][4][Rows::kThreads];
    } ahead;
    alignas(16) float numbers[2][kMostBlockHeads * kHeadDim];
    union {
        struct {
            float4 rotation[Rows::kChunks][kChunkRotations][Rows::kThreads];
            // By head, so that one barrier a head is enough: one is written, one read, one cleared.
            std::uint32_t magnitudes[3][kKeyGroups];  // bits of floats, which compare as they do
        } query_key;
        struct {
            // By head, so that one barrier a head is enough.
            std::uint32_t words[2][kHeadDim * kStride];
            __half errors[2][kWords][kHeadDim];  // of the four tokens of a word
        } value;
    } of;
};

// What a block knows of each of its heads, up to two numbers a channel, in shared memory: loaded once, it is not waited
// for head after head.
template <int kHeadDim>
class OfHeads {
public:
    __device__ OfHeads(PrepareMemory<kHeadDim>& memory, const TileRows<kHeadDim>& rows)
        : memory_(memory), rows_(rows) {}

    // number(i) of the [heads, kHeadDim] arrays' elements i. The block's threads have to wait for each other after it.
    template <typename Number>
    __device__ void load(int which, Number&& number) {
        const int first = rows_.first_head * kHeadDim;
        const int count = (rows_.end_head - rows_.first_head) * kHeadDim;
        for (int i = static_cast<int>(threadIdx.x); i < count; i += TileRows<kHeadDim>::kThreads) {
            memory_.numbers[which][i] = number(first + i);
        }
    }
    // Four numbers from a channel on.
    __device__ float4 four(int which, int head, int from) const {
        return *reinterpret_cast<const float4*>(&memory_.numbers[which][(head - rows_.first_head) * kHeadDim + from]);
    }
    // Of chunk(i).
    __device__ Channels chunk(int which, int head, int i) const {
        const float4 low = four(which, head, rows_.chunk(i) * kChunkChannels);
        const float4 high = four(which, head, rows_.chunk(i) * kChunkChannels + 4);
        return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    }

private:
    PrepareMemory<kHeadDim>& memory_;
    const TileRows<kHeadDim>& rows_;
};

__device__ inline float element(const float4& four, int i) {
    return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
}

// A thread's part of a tile, kCopies times Bits, head after head. It copies the next heads' to shared memory meanwhile,
// where in registers little would fit, and reads what it has copied itself, so that copies need no barrier.
template <typename Bits, int kCopies, int kThreads>
class Source {
public:
    // from(i) is where copy i is of the first head.
    template <typename From>
    __device__ Source(Bits (&memory)[kHeadsAhead][kCopies][kThreads], std::int64_t head_stride, int heads, From&& from)
        : memory_(&memory[0][0][threadIdx.x]), head_stride_(head_stride), heads_(heads) {
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
            from_[i] = from(i);
        }
#pragma unroll
        for (int ahead = 0; ahead < kHeadsAhead; ++ahead) {
            copy();
            advance();
        }
    }
    // The next head's.
    __device__ void take(Bits (&bits)[kCopies]) {
        ptx::wait_copies<kHeadsAhead - 1>();
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
            bits[i] = memory_[(place_ * kCopies + i) * kThreads];
        }
        copy();
        advance();
    }

private:
    __device__ void copy() {
        if (heads_ > 0) {
            --heads_;
#pragma unroll
            for (int i = 0; i < kCopies; ++i) {
                ptx::copy_async<sizeof(Bits)>(ptx::shared_address(memory_ + (place_ * kCopies + i) * kThreads),
                                              from_[i]);
                from_[i] += head_stride_;
            }
        }
        ptx::commit_copies();
    }
    __device__ void advance() { place_ = place_ + 1 == kHeadsAhead ? 0 : place_ + 1; }

    Bits* memory_;
    const __nv_bfloat16* from_[kCopies];
    std::int64_t head_stride_;
    int heads_;  // not yet begun
    int place_ = 0;
};

// Of a lane's chunks.
template <int kHeadDim>
using RowSource = Source<uint4, TileRows<kHeadDim>::kChunks, TileRows<kHeadDim>::kThreads>;
template <int kHeadDim>
__device__ inline RowSource<kHeadDim> row_source(PrepareMemory<kHeadDim>& memory, const TileRows<kHeadDim>& rows,
                                                 const DeviceTensor& tensor) {
    return {memory.ahead.chunks, tensor.head_stride, rows.end_head - rows.first_head, [&](int i) {
                return tensor.row(rows.own.first + rows.real_row(), rows.first_head) + rows.chunk(i) * kChunkChannels;
            }};
}

// Norm and rotation of queries or keys: kBoth says that there are both, so that nothing has to be asked. What the norm
// multiplies channels by is one number of each head's with the balance; the rotation is in shared memory, copied once
// for all heads as Source copies them.
template <int kHeadDim, bool kBoth>
class Finish {
public:
    using Rows = TileRows<kHeadDim>;
    __device__ Finish(PrepareMemory<kHeadDim>& memory, const Rows& rows, const __nv_bfloat16* weight)
        : rows_(rows), weight_(weight), rotation_(&memory.of.query_key.rotation[0][0][threadIdx.x]) {
        if (rotated()) {
#pragma unroll
            for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
                const float4* from =
                    chunk_rotation<kHeadDim>(rows.p, rows.own.first + rows.real_row(), rows.chunk(chunk));
#pragma unroll
                for (int i = 0; i < kChunkRotations; ++i) {
                    ptx::copy_async<sizeof(float4)>(ptx::shared_address(place(chunk, i)), from + i);
                }
            }
        }
    }

    // What channel i of all heads' is multiplied by, and balanced.
    __device__ float weight(int i, std::size_t balance) const {
        const PrepareParameters& p = rows_.p;
        return (normed() ? __bfloat162float(weight_[i % kHeadDim]) : 1) * p.in_workspace<float>(balance)[i / 2];
    }
    // The norm's factor; the channels are multiplied by the numbers 0 of their head.
    __device__ float operator()(Channels (&channels)[Rows::kChunks], const OfHeads<kHeadDim>& heads, int head) const {
        return finish<kHeadDim>(
            channels, rows_.p.norm_epsilon, normed(), [&](int chunk) { return heads.chunk(0, head, chunk); }, rotated(),
            [&](int chunk, int i) { return *place(chunk, i); });
    }

private:
    __device__ bool normed() const { return kBoth || weight_ != nullptr; }
    __device__ bool rotated() const { return kBoth || rows_.p.rotation != nullptr; }
    __device__ float4* place(int chunk, int i) const {
        return rotation_ + (chunk * kChunkRotations + i) * Rows::kThreads;
    }

    const Rows& rows_;
    const __nv_bfloat16* weight_;  // of the norm, or null
    float4* rotation_;
};

template <int kChunks>
__device__ inline float largest_magnitude(const Channels (&channels)[kChunks]) {
    float largest = largest_magnitude(channels[0]);
#pragma unroll
    for (int chunk = 1; chunk < kChunks; ++chunk) {
        largest = ptx::max_nan(largest, largest_magnitude(channels[chunk]));
    }
    return largest;
}

template <int kHeadDim, bool kBoth>
__device__ inline void prepare_queries(PrepareMemory<kHeadDim>& memory, const TileRows<kHeadDim>& rows,
                                       const __nv_bfloat16* weight) {
    using Rows = TileRows<kHeadDim>;
    const PrepareParameters& p = rows.p;
    const Finish<kHeadDim, kBoth> finish(memory, rows, weight);
    auto source = row_source(memory, rows, p.query);
    OfHeads<kHeadDim> heads(memory, rows);
    ptx::wait_for_kernels();
    heads.load(0, [&](int i) { return finish.weight(i, p.at.query_balance); });
    if (p.with_mean) {
        heads.load(1, [&](int i) { return p.in_workspace<float>(p.at.key_mean)[i]; });
    }
    __syncthreads();
    std::byte* packed = rows.packed(p.at.query, 0);
    const std::ptrdiff_t next_chunk = rows.packed(p.at.query, 1) - packed;
    std::size_t at = rows.at(rows.first_head) * kTileTokens + rows.row;
    for (int head = rows.first_head; head < rows.end_head; ++head) {
        uint4 bits[Rows::kChunks];
        source.take(bits);
        Channels query[Rows::kChunks] = {unpack(bits[0]), unpack(bits[1])};
        const float factor = finish(query, heads, head);
        const QuantizationScale scale = int8_scale(lane_max<Rows::kLanes>(largest_magnitude(query)));
        if (rows.lane == 0) {
            p.in_workspace<float>(p.at.query_scale)[at] = scale.back * factor * p.scale * ptx::kLog2E;
        }
        if (p.with_mean) {
            float product = 0;
#pragma unroll
            for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
                const Channels mean = heads.chunk(1, head, chunk);
#pragma unroll
                for (int i = 0; i < kChunkChannels; ++i) {
                    product = fmaf(query[chunk].x[i], mean.x[i], product);
                }
            }
            product = lane_sum<Rows::kLanes>(product);
            if (rows.lane == 0) {
                p.in_workspace<float>(p.at.query_mean)[at] = product * factor * p.scale;
            }
        }
#pragma unroll
        for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
            *reinterpret_cast<uint2*>(packed + chunk * next_chunk) = quantize(query[chunk], scale.forward);
        }
        packed += p.tile_count * Rows::kTileBytes;
        at += static_cast<std::size_t>(p.tile_count) * kTileTokens;
    }
}

template <int kHeadDim, bool kBoth>
__device__ inline void prepare_keys(PrepareMemory<kHeadDim>& memory, const TileRows<kHeadDim>& rows,
                                    const __nv_bfloat16* weight) {
    using Rows = TileRows<kHeadDim>;
    auto& magnitudes = memory.of.query_key.magnitudes;
    const PrepareParameters& p = rows.p;
    const Finish<kHeadDim, kBoth> finish(memory, rows, weight);
    auto source = row_source(memory, rows, p.key);
    OfHeads<kHeadDim> heads(memory, rows);
    if (threadIdx.x < 3 * kKeyGroups) {
        magnitudes[threadIdx.x / kKeyGroups][threadIdx.x % kKeyGroups] = 0;
    }
    ptx::wait_for_kernels();
    heads.load(0, [&](int i) { return finish.weight(i, p.at.key_balance); });
    heads.load(1, [&](int i) { return p.in_workspace<float>(p.at.key_mean)[i]; });
    __syncthreads();
    std::byte* packed = rows.packed(p.at.key, 0);
    const std::ptrdiff_t next_chunk = rows.packed(p.at.key, 1) - packed;
    const int group = rows.row / 2 % kKeyGroups;
    for (int head = rows.first_head; head < rows.end_head; ++head, packed += p.tile_count * Rows::kTileBytes) {
        auto& magnitude = magnitudes[head % 3];
        uint4 bits[Rows::kChunks];
        source.take(bits);
        Channels key[Rows::kChunks] = {unpack(bits[0]), unpack(bits[1])};
        const float factor = finish(key, heads, head);
#pragma unroll
        for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
            const Channels mean = heads.chunk(1, head, chunk);
#pragma unroll
            for (int i = 0; i < kChunkChannels; ++i) {
                key[chunk].x[i] = fmaf(key[chunk].x[i], factor, -mean.x[i]);
            }
        }
        const float largest = lane_max<Rows::kLanes>(largest_magnitude(key));
        if (rows.lane == 0) {
            atomicMax(&magnitude[group], __float_as_uint(largest));
        }
        if (threadIdx.x < kKeyGroups) {
            magnitudes[(head + 1) % 3][threadIdx.x] = 0;
        }
        __syncthreads();
        const float forward = int8_scale(__uint_as_float(magnitude[group])).forward;
#pragma unroll
        for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
            *reinterpret_cast<uint2*>(packed + chunk * next_chunk) = quantize(key[chunk], forward);
        }
        KeyRecord& record = p.in_workspace<KeyRecord>(p.at.key_record)[rows.at(head)];
        if (threadIdx.x < kKeyGroups) {
            record.scale[threadIdx.x] = int8_scale(__uint_as_float(magnitude[threadIdx.x])).back;
        } else if (threadIdx.x == kKeyGroups) {
            record.tokens = rows.own.tokens;
        }
    }
}

// What the values of a block's heads are multiplied by: as conclude() found, or anew, which is by what prepare() met
// beyond it.
template <ValueFormat kFormat, bool kAnew>
__device__ inline float value_forward(const PrepareParameters& p, int i) {
    if constexpr (kAnew) {
        const float beyond = p.in_workspace<float>(p.at.value_beyond)[i];
        if (beyond > 0) {
            return kValueLimit<kFormat> / value_limit<kFormat>(beyond);
        }
    }
    return p.in_workspace<float>(p.at.value_forward)[i];
}

// Codes in a word that are the largest of their format, or none of its numbers: such have a bit of kLargestBits in
// largest_codes().
template <ValueFormat kFormat>
constexpr std::uint32_t kLargestBits = kFormat == ValueFormat::kFp8 ? 0x80808080U : 0x80008000U;
template <ValueFormat kFormat>
__device__ inline std::uint32_t largest_codes(std::uint32_t word) {
    return kFormat == ValueFormat::kFp8 ? (word & 0x7e7e7e7eU) + 0x02020202U : (word & 0x7c007c00U) + 0x04000400U;
}

// For pack_values_anew(): if a value is beyond what its format holds with its channel's scale, its magnitude.
template <int kHeadDim, ValueFormat kFormat>
__device__ inline void note_beyond(const PrepareParameters& p, std::int64_t token, int head, int channel) {
    // In e4m3 what rounds to the largest number is not cut off.
    constexpr float kMost = kFormat == ValueFormat::kFp8 ? 464 : 65504;
    const int i = head * kHeadDim + channel;
    const float value = __bfloat162float(p.value.row(token, head)[channel]);
    const float magnitude = fabsf(value - p.in_workspace<float>(p.at.value_mean)[i]);
    if (magnitude * p.in_workspace<float>(p.at.value_forward)[i] > kMost) {  // false for a NaN
        atomicMax(p.in_workspace<std::uint32_t>(p.at.value_beyond) + i, __float_as_uint(magnitude));
        p.in_workspace<std::int32_t>(p.at.heads_anew)[head] = 1;
    }
}

template <bool kAnew, int kHeadDim>
__device__ inline void prepare_values_in_fp8(PrepareMemory<kHeadDim>& memory, const TileRows<kHeadDim>& rows) {
    constexpr ValueFormat kFormat = ValueFormat::kFp8;
    using Rows = TileRows<kHeadDim>;
    constexpr int kStride = PrepareMemory<kHeadDim>::kStride;
    constexpr int kWords = PrepareMemory<kHeadDim>::kWords;
    auto& words = memory.of.value.words;
    auto& errors = memory.of.value.errors;
    const PrepareParameters& p = rows.p;
    // A thread takes four channels of the four tokens that become one word.
    constexpr int kLanes = kHeadDim / 4;
    static_assert(kTileTokens / 4 * kLanes == Rows::kThreads);
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int word = static_cast<int>(threadIdx.x) / kLanes;
    const auto token = [](int word, int b) {
        return word / 8 * 32 + word / 4 % 2 * 16 + word % 4 * 2 + b % 2 + b / 2 * 8;
    };
    std::uint32_t real = 0;  // the bytes of tokens that the tile has
#pragma unroll
    for (int b = 0; b < 4; ++b) {
        real |= token(word, b) < rows.own.tokens ? 0xffU << 8 * b : 0;
    }
    const std::uint32_t real_halves[2] = {__byte_perm(real, 0, 0x1100), __byte_perm(real, 0, 0x3322)};
    constexpr std::size_t kTileBytes = kValueTileBytes<kFormat, kHeadDim>;
    Source<uint2, 4, Rows::kThreads> source(
        memory.ahead.fours, p.value.head_stride, rows.end_head - rows.first_head, [&](int b) {
            return p.value.row(rows.own.first + (token(word, b) < rows.own.tokens ? token(word, b) : 0),
                               rows.first_head) +
                   lane * 4;
        });
    OfHeads<kHeadDim> heads(memory, rows);
    ptx::wait_for_kernels();
    heads.load(0, [&](int i) { return value_forward<kFormat, kAnew>(p, i); });
    heads.load(1,
               [&](int i) { return -p.in_workspace<float>(p.at.value_mean)[i] * value_forward<kFormat, kAnew>(p, i); });
    __syncthreads();
    std::uint32_t largest = 0;
    for (int head = rows.first_head; head < rows.end_head; ++head) {
        std::byte* tile = p.in_workspace<std::byte>(p.at.value) + rows.at(head) * kTileBytes;
        uint2 bits[4];
        source.take(bits);
        const float4 forward = heads.four(0, head, lane * 4);
        const float4 offset = heads.four(1, head, lane * 4);
        __half2 error[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            float four[4];
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const std::uint32_t pair = c < 2 ? bits[b].x : bits[b].y;
                const float value = __uint_as_float(c % 2 == 0 ? pair << 16 : pair & 0xffff0000U);
                four[b] = fmaf(value, element(forward, c), element(offset, c));
            }
            // By way of FP16, in which errors are exact but for its own rounding, 1/128 of e4m3's.
            const __half2 exact[2] = {__floats2half2_rn(four[0], four[1]), __floats2half2_rn(four[2], four[3])};
            const std::uint32_t packed = ptx::pack_fp8(exact[0], exact[1]);
            largest |= largest_codes<kFormat>(packed);
            words[head % 2][(lane * 4 + c) * kStride + word] = packed & real;
            error[c] = __hadd2(ptx::mask(__hsub2(ptx::unpack_fp8(packed), exact[0]), real_halves[0]),
                               ptx::mask(__hsub2(ptx::unpack_fp8(packed >> 16), exact[1]), real_halves[1]));
        }
        auto* of_word = reinterpret_cast<__half2*>(&errors[head % 2][word][lane * 4]);
        of_word[0] = __hadd2(__lows2half2(error[0], error[1]), __highs2half2(error[0], error[1]));
        of_word[1] = __hadd2(__lows2half2(error[2], error[3]), __highs2half2(error[2], error[3]));
        if (lane < kOnesRows) {
            constexpr std::uint32_t kOnes = 0x38383838;  // 1 four times
            const int row = kHeadDim + lane;
            *reinterpret_cast<std::uint32_t*>(tile + row * kTileTokens +
                                              swizzled_chunk(kTileTokens, row, word / 4) * 16 + word % 4 * 4) =
                kOnes & real;
        }
        __syncthreads();
        static_assert(kHeadDim * 4 == Rows::kThreads);
        const int row = static_cast<int>(threadIdx.x) / 4;
        const int chunk = static_cast<int>(threadIdx.x) % 4;
        const std::uint32_t* of = words[head % 2] + row * kStride + chunk * 4;
        *reinterpret_cast<uint4*>(tile + row * kTileTokens + swizzled_chunk(kTileTokens, row, chunk) * 16) = {
            of[0], of[1], of[2], of[3]};
        float of_channel = 0;
#pragma unroll
        for (int w = 0; w < kWords / 4; ++w) {
            of_channel += __half2float(errors[head % 2][chunk * (kWords / 4) + w][row]);
        }
        of_channel = lane_sum<4>(of_channel);
        if (chunk == 0) {
            p.in_workspace<__half>(p.at.value_errors)[rows.at(head) * kHeadDim + row] = __float2half_rn(of_channel);
        }
    }
    if (!kAnew && (largest & kLargestBits<kFormat>) != 0 && is_sampled(p.tokens)) {
        const int thread = ptx::thread();  // so that nothing of this is kept through the loop
#pragma unroll 1
        for (int i = 0; i < 16 * (rows.end_head - rows.first_head); ++i) {
            const int row = token(thread / kLanes, i / 4 % 4);
            note_beyond<kHeadDim, kFormat>(p, rows.own.first + (row < rows.own.tokens ? row : 0),
                                           rows.first_head + i / 16, thread % kLanes * 4 + i % 4);
        }
    }
}

template <bool kAnew, int kHeadDim>
__device__ inline void prepare_values_in_fp16(PrepareMemory<kHeadDim>& memory, const TileRows<kHeadDim>& rows) {
    using Rows = TileRows<kHeadDim>;
    const PrepareParameters& p = rows.p;
    constexpr ValueFormat kFormat = ValueFormat::kFp16;
    constexpr int kRowBytes = 2 * kHeadDim;
    auto source = row_source(memory, rows, p.value);
    OfHeads<kHeadDim> heads(memory, rows);
    ptx::wait_for_kernels();
    heads.load(0, [&](int i) { return value_forward<kFormat, kAnew>(p, i); });
    __syncthreads();
    std::uint32_t largest = 0;
    for (int head = rows.first_head; head < rows.end_head; ++head) {
        uint4 bits[Rows::kChunks];
        source.take(bits);
#pragma unroll
        for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
            const Channels forward = heads.chunk(0, head, chunk);
            const Channels value = unpack(rows.row < rows.own.tokens ? bits[chunk] : uint4{});
            std::uint32_t pairs[kChunkChannels / 2];
#pragma unroll
            for (int i = 0; i < kChunkChannels / 2; ++i) {
                pairs[i] = ptx::pack_half(value.x[2 * i] * forward.x[2 * i], value.x[2 * i + 1] * forward.x[2 * i + 1]);
                largest |= largest_codes<kFormat>(pairs[i]);
            }
            *reinterpret_cast<uint4*>(
                p.in_workspace<std::byte>(p.at.value) + (rows.at(head) * kTileTokens + rows.row) * kRowBytes +
                swizzled_chunk(kRowBytes, rows.row, rows.chunk(chunk)) * 16) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
    if (!kAnew && (largest & kLargestBits<kFormat>) != 0 && is_sampled(p.tokens)) {
        constexpr int kOwn = Rows::kChunks * kChunkChannels;
        const int thread = ptx::thread();  // as above
        const int row = thread / Rows::kLanes;
#pragma unroll 1
        for (int i = 0; i < kOwn * (rows.end_head - rows.first_head); ++i) {
            const int chunk = i % kOwn / kChunkChannels * Rows::kLanes + thread % Rows::kLanes;
            note_beyond<kHeadDim, kFormat>(p, rows.own.first + (row < rows.own.tokens ? row : 0),
                                           rows.first_head + i / kOwn, chunk * kChunkChannels + i % kChunkChannels);
        }
    }
}

template <ValueFormat kFormat, bool kAnew, int kHeadDim>
__device__ inline void prepare_values(PrepareMemory<kHeadDim>& memory, const TileRows<kHeadDim>& rows) {
    if constexpr (kFormat == ValueFormat::kFp8) {
        prepare_values_in_fp8<kAnew>(memory, rows);
    } else {
        prepare_values_in_fp16<kAnew>(memory, rows);
    }
}

// Grid [tiles * head_blocks * kParts]. What it reads before it waits for the kernels before it is the caller's.
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kPrepareThreads<kHeadDim>, 1024 / kPrepareThreads<kHeadDim>)
    prepare(const __grid_constant__ PrepareParameters p) {
    ptx::launch_dependents();
    extern __shared__ unsigned char shared[];
    auto& memory = *reinterpret_cast<PrepareMemory<kHeadDim>*>(shared);
    const TileRows<kHeadDim> rows(p);
    const bool of_text = rows.own.first < p.text_tokens;
    switch (static_cast<Part>(blockIdx.x % kParts)) {
        case Part::kQueries: {
            const __nv_bfloat16* weight = of_text ? p.text_query_norm : p.query_norm;
            return weight != nullptr && p.rotation != nullptr ? prepare_queries<kHeadDim, true>(memory, rows, weight)
                                                              : prepare_queries<kHeadDim, false>(memory, rows, weight);
        }
        case Part::kKeys: {
            const __nv_bfloat16* weight = of_text ? p.text_key_norm : p.key_norm;
            return weight != nullptr && p.rotation != nullptr ? prepare_keys<kHeadDim, true>(memory, rows, weight)
                                                              : prepare_keys<kHeadDim, false>(memory, rows, weight);
        }
        case Part::kValues:
            return prepare_values<kFormat, false>(memory, rows);
    }
}

// Blocks of pack_values_anew(): nearly always they find nothing to do.
constexpr int kAnewBlocks = 132;

// Grid [kAnewBlocks]: values of heads in which prepare() met some beyond what their sample let expect, packed with the
// range that they have.
template <int kHeadDim, ValueFormat kFormat>
__global__ void __launch_bounds__(kPrepareThreads<kHeadDim>, 1024 / kPrepareThreads<kHeadDim>)
    pack_values_anew(const __grid_constant__ PrepareParameters p) {
    ptx::launch_dependents();
    extern __shared__ unsigned char shared[];
    auto& memory = *reinterpret_cast<PrepareMemory<kHeadDim>*>(shared);
    const std::int32_t* anew = p.in_workspace<std::int32_t>(p.at.heads_anew);
    const int thread = static_cast<int>(threadIdx.x);
    ptx::wait_for_kernels();
    bool any = false;
    for (int head = thread; head < p.heads; head += kPrepareThreads<kHeadDim>) {
        any |= anew[head] != 0;
    }
    if (__syncthreads_or(static_cast<int>(any)) == 0) {
        return;
    }
    for (int head = 0; head < p.heads; ++head) {
        if (anew[head] == 0) {
            continue;
        }
        for (int tile = static_cast<int>(blockIdx.x); tile < p.tile_count; tile += kAnewBlocks) {
            prepare_values<kFormat, true>(memory, TileRows<kHeadDim>(p, tile, head, 1));
            __syncthreads();  // before the memory is written again
        }
        // Nobody needs the old ones here.
        const float beyond = thread < kHeadDim ? p.in_workspace<float>(p.at.value_beyond)[head * kHeadDim + thread] : 0;
        if (blockIdx.x == 0 && beyond > 0) {
            p.in_workspace<float>(p.at.value_limits)[head * kHeadDim + thread] = value_limit<kFormat>(beyond);
        }
    }
}

constexpr int kCorrectWarps = 8;
constexpr int kCorrectThreads = 32 * kCorrectWarps;
// Channels of a long pair that a block takes, so that its many tiles are shared by many threads.
constexpr int kSliceChannels = 32;
template <int kHeadDim>
__host__ __device__ constexpr std::int64_t long_correct_blocks(std::int64_t long_pairs, std::int32_t heads) {
    return long_pairs * heads * (kHeadDim / kSliceChannels);
}
template <int kHeadDim>
constexpr std::int64_t correct_blocks(std::int64_t pairs, std::int64_t long_pairs, std::int32_t heads) {
    return long_correct_blocks<kHeadDim>(long_pairs, heads) +
           ((pairs - long_pairs) * heads + kCorrectWarps - 1) / kCorrectWarps;
}

// The sums over the key tiles of a pair's query tiles of four channels, of which a lane has the errors from `errors`
// on, in tiles kTileStride apart. Of the warp's lanes kLanes share a tile; of the tiles, in batches of 32, the warp
// takes every `warps`th batch from number `warp` on. All lanes of the same channels are given the same.
template <int kLanes, int kTileStride>
struct PairErrors {
    float sum[kPairTiles][4] = {};

    __device__ PairErrors(const TilePair& pair, const TileRun* runs, const __half* errors, int warp, int warps) {
        constexpr unsigned kAll = 0xffffffffU;
        constexpr int kTurns = 32 / kLanes;
        constexpr int kAtOnce = kLanes < 8 ? kLanes : 8;  // tiles of a lane
        const int lane = static_cast<int>(threadIdx.x) % 32;
        ptx::wait_for_kernels();  // pairs and runs are the caller's, errors are not
        // Opaque, or it would be computed anew for each tile.
        asm volatile("" : "+l"(errors));
        for (std::int32_t first = pair.runs_first; first < pair.runs_end; first += 32) {
            // A lane has a run, and then a tile.
            const int run_count = min(32, pair.runs_end - first);
            const TileRun own = lane < run_count ? runs[first + lane] : TileRun{};
            int end = own.end - own.first;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const int before = __shfl_up_sync(kAll, end, step);
                end += lane >= step ? before : 0;
            }
            const int tiles = __shfl_sync(kAll, end, 31);
            const int offset = own.end - end;  // of a run's tiles to their places
            for (int place = 32 * warp; place < tiles; place += 32 * warps) {
                std::uint32_t tile = 0;
                std::uint32_t cells = 0;
                for (int run = run_count - 1; run >= 0; --run) {
                    const int run_end = __shfl_sync(kAll, end, run);
                    const int run_offset = __shfl_sync(kAll, offset, run);
                    const std::uint32_t run_cells = __shfl_sync(kAll, own.cells, run);
                    if (place + lane < run_end) {
                        tile = static_cast<std::uint32_t>(place + lane + run_offset);
                        cells = run_cells;
                    }
                }
                const std::uint32_t both = tile << kPairTiles | cells;
                const int count = min(32, tiles - place);
                for (int at = 0; at < count; at += kAtOnce * kTurns) {
                    uint2 bits[kAtOnce];
                    std::uint32_t of[kAtOnce];
#pragma unroll
                    for (int i = 0; i < kAtOnce; ++i) {
                        const int from = at + i * kTurns + lane / kLanes;
                        of[i] = __shfl_sync(kAll, both, from);
                        bits[i] = *reinterpret_cast<const uint2*>(
                            errors +
                            static_cast<std::size_t>(of[i] >> kPairTiles << kPairTiles) * (kTileStride >> kPairTiles));
                    }
#pragma unroll
                    for (int i = 0; i < kAtOnce; ++i) {
                        const auto* two = reinterpret_cast<const __half2*>(&bits[i]);
                        const float2 low = __half22float2(two[0]);
                        const float2 high = __half22float2(two[1]);
#pragma unroll
                        for (int t = 0; t < kPairTiles; ++t) {
                            if ((of[i] >> t & 1) != 0) {
                                sum[t][0] += low.x;
                                sum[t][1] += low.y;
                                sum[t][2] += high.x;
                                sum[t][3] += high.y;
                            }
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int step = kLanes; step < 32; step *= 2) {
            for (auto& of_tile : sum) {
                for (float& x : of_tile) {
                    x += __shfl_xor_sync(kAll, x, step);
                }
            }
        }
    }
};

// What the output of each query tile has to gain: the mean of the values, less that of what rounding added to those
// that it attends to. Grid [correct_blocks]: long pairs first, a block for some channels of each; then a warp for each
// pair.
template <int kHeadDim>
__global__ void __launch_bounds__(kCorrectThreads)
    correct(const __grid_constant__ PrepareParameters p, const TilePair* pairs, const TileRun* runs,
            const std::int32_t* key_tokens) {
    ptx::launch_dependents();
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const auto errors_of = [&](int head, int channel) {
        return p.in_workspace<__half>(p.at.value_errors) + p.head_tile(head, 0) * kHeadDim + channel;
    };
    const auto corrected = [&](float errors, int tile, float limit, float mean) {
        return fmaf(-errors * (1 / (kFp8Limit * static_cast<float>(key_tokens[tile]))), limit, mean);
    };
    const float* limits = p.in_workspace<float>(p.at.value_limits);
    const float* means = p.in_workspace<float>(p.at.value_mean);
    float* output = p.in_workspace<float>(p.at.output_mean);

    const auto long_blocks = static_cast<int>(long_correct_blocks<kHeadDim>(p.long_pairs, p.heads));
    if (static_cast<int>(blockIdx.x) < long_blocks) {
        constexpr int kSlices = kHeadDim / kSliceChannels;
        constexpr int kLanes = kSliceChannels / 4;
        __shared__ float sums[kCorrectWarps][kPairTiles][kSliceChannels];
        const int slice = static_cast<int>(blockIdx.x) % kSlices * kSliceChannels;
        const int head = static_cast<int>(blockIdx.x) / kSlices % p.heads;
        const TilePair pair = pairs[static_cast<int>(blockIdx.x) / kSlices / p.heads];
        const int of_lane = lane % kLanes * 4;
        const PairErrors<kLanes, kHeadDim> own(pair, runs, errors_of(head, slice + of_lane), warp, kCorrectWarps);
        if (lane < kLanes) {
#pragma unroll
            for (int t = 0; t < kPairTiles; ++t) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    sums[warp][t][of_lane + i] = own.sum[t][i];
                }
            }
        }
        __syncthreads();
        const int tile = warp < kPairTiles ? pair.tile[warp] : -1;
        if (tile >= 0) {
            float all = 0;
#pragma unroll
            for (const auto& of_warp : sums) {
                all += of_warp[warp][lane];
            }
            const int at = head * kHeadDim + slice + lane;
            output[p.head_tile(head, tile) * kHeadDim + slice + lane] = corrected(all, tile, limits[at], means[at]);
        }
        return;
    }
    const int image_pairs = p.pairs - p.long_pairs;
    const int job = (static_cast<int>(blockIdx.x) - long_blocks) * kCorrectWarps + warp;
    const int head = job / image_pairs;
    if (head >= p.heads) {
        return;
    }
    constexpr int kLanes = kHeadDim / 4;
    const TilePair pair = pairs[p.long_pairs + job % image_pairs];
    const int channel = lane % kLanes * 4;
    const PairErrors<kLanes, kHeadDim> own(pair, runs, errors_of(head, channel), 0, 1);
    const float4 limit = *reinterpret_cast<const float4*>(limits + head * kHeadDim + channel);
    const float4 mean = *reinterpret_cast<const float4*>(means + head * kHeadDim + channel);
#pragma unroll
    for (int t = 0; t < kPairTiles; ++t) {
        const int tile = pair.tile[t];
        if (tile >= 0 && lane < kLanes) {
            const float(&sum)[4] = own.sum[t];
            *reinterpret_cast<float4*>(output + p.head_tile(head, tile) * kHeadDim + channel) = {
                corrected(sum[0], tile, limit.x, mean.x), corrected(sum[1], tile, limit.y, mean.y),
                corrected(sum[2], tile, limit.z, mean.z), corrected(sum[3], tile, limit.w, mean.w)};
        }
    }
}

}  // namespace scaledit::cuda
