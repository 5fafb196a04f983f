// Queries, keys and values as the quantised kernels read them, in the caller's workspace.
//
// Everything is kept by head and tile: a tile has room for 64 tokens, those that it lacks are zeros. The order inside a
// tile is the one in which the matrix instructions read it, so that a tile is copied to shared memory as it lies:
//
//   queries  INT8, a scale for each token. [token][head_dim bytes], 16-byte chunks swizzled (swizzled_chunk).
//   keys     INT8 without the mean key, in the same order; a scale for each group of 16 tokens, 8 n + 2 i and
//            8 n + 2 i + 1 for i = 0 .. 3: a lane's columns of Q K^T. In place of a token that it lacks a tile has its
//            first once more: so no maximum is other than that of real tokens.
//   values   in one of two formats, with a scale for each channel of a head, 0 for the tokens that the tile lacks:
//            e4m3: [channel][64 bytes], swizzled; in each 32 tokens byte 4 i + b (b < 4) is token 2 i + b % 2 +
//            8 (b / 2), byte 16 + 4 i + b that token + 16: so the weights that a lane holds after Q K^T are its part of
//            the next product. After the channels come kOnesRows rows of ones for real tokens, 0 for those lacking:
//            their product with weights is the weights' sum, and nothing need be masked.
//            FP16: [token][2 head_dim bytes], swizzled. A scale is a power of two, so that bfloat16 fits without
//            rounding down to 2^-27 of its channel's largest.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda/device_geometry.h"
#include "cuda/kernels.h"

namespace scaledit::cuda {

constexpr int kTileTokens = 64;
constexpr int kKeyGroups = 4;
constexpr int kOnesRows = 8;      // as many as a matrix instruction takes at least
constexpr float kFp8Limit = 448;  // the largest e4m3
// What a channel's largest power of two becomes in FP16. With weights up to 2^14, 65,536 of them add up to less than
// 2^46 in float32.
constexpr float kFp16Limit = 16384;

// What a channel's values may be by the largest of a sample of them, before they are packed anew. One in 16 is looked
// at: rarely do the others go 16 times as far. And of its 15 octaves e4m3 keeps enough: what is 1/1,000 of the sample's
// largest is off by 3.5 % at most, half of a step there.
constexpr float kValueHeadroom = 16;

// Blocks of measure() for a head: with all heads as many as a Hopper holds at once, whatever the GPU, so that results
// are the same.
constexpr std::int32_t kMeasureBlocks = 768;
constexpr std::int32_t kMostHeadMeasureBlocks = 128;
constexpr std::int32_t measure_blocks(std::int32_t heads) {
    return std::clamp(kMeasureBlocks / heads, 4, kMostHeadMeasureBlocks);
}

enum class ValueFormat { kFp8, kFp16 };

constexpr ValueFormat value_format(Kernel kernel) {
    return kernel == Kernel::kInt8Fp16Mma ? ValueFormat::kFp16 : ValueFormat::kFp8;
}
constexpr std::size_t value_tile_bytes(ValueFormat format, std::int32_t head_dim) {
    const auto channels = static_cast<std::size_t>(head_dim);
    return kTileTokens * (format == ValueFormat::kFp16 ? 2 * channels : channels + kOnesRows);
}
template <ValueFormat format, int head_dim>
constexpr std::size_t kValueTileBytes = value_tile_bytes(format, head_dim);
template <ValueFormat format>
constexpr float kValueLimit = format == ValueFormat::kFp16 ? kFp16Limit : kFp8Limit;

struct KeyRecord {
    float scale[kKeyGroups];
    std::int32_t tokens;  // real ones
    std::int32_t unused[3];
};

// Offsets into the workspace, each on a 128-byte boundary.
struct Workspace {
    std::size_t query;         // int8[heads][tiles][64 * head_dim]
    std::size_t key;           // int8[heads][tiles][64 * head_dim]
    std::size_t value;         // [heads][tiles][value_tile_bytes]
    std::size_t query_scale;   // float[heads][tiles][64]: with the softmax's scale, for powers of two
    std::size_t query_mean;    // float[heads][tiles][64]: scale * query . mean key
    std::size_t key_record;    // KeyRecord[heads][tiles]
    std::size_t value_errors;  // FP16[heads][tiles][head_dim]: what rounding added to a tile's values, in units of
                               // which value_limits has kFp8Limit; for FP8
    std::size_t output_mean;   // float[heads][tiles][head_dim]: the values' mean, less what rounding added to the mean
                               // of those that a query tile attends to; for FP8
    // What measure() finds: float[measure_blocks][heads][head_dim].
    std::size_t query_squares;
    std::size_t key_sums;
    std::size_t key_squares;
    std::size_t value_sums;
    std::size_t value_lows;
    std::size_t value_highs;
    // float[heads][head_dim / 2], for each pair of channels that the rotation turns: powers of two that queries and
    // keys are multiplied by, 1 taken together, so that a strong channel of the keys costs both of them bits, not one
    // many.
    std::size_t query_balance;
    std::size_t key_balance;
    // float[heads][head_dim]
    std::size_t key_mean;       // balanced
    std::size_t value_mean;     // what is taken from values before they are multiplied: 0 in FP16
    std::size_t value_forward;  // what prepare() multiplies them by
    std::size_t value_limits;   // what kValueLimit stands for
    std::size_t value_beyond;   // the largest, less its mean, where one is beyond the format with value_forward, else 0
    std::size_t heads_anew;     // int32[heads]: 1 where there is one
    // float4[kMostBlocks][kGroupTiles][head_dim / 8 + 1][128]: sums of long rows and their base, for wgmma; and those
    // of groups that are split, whose kernel another may run beside.
    std::size_t totals;
    std::size_t part_totals;
    // Of groups that are split, for wgmma: bfloat16[heads][split rows][head_dim], float[heads][split rows].
    std::size_t part_output;
    std::size_t part_log_sum_exp;
    std::size_t next;  // int32[2]: jobs that are given out, of parts and of groups, for wgmma; 0 after the pre-pass
    std::size_t bytes;
};

constexpr std::size_t kWorkspaceAlignment = 128;

// Of a quantised kernel. `split` is that of the geometry and the heads.
constexpr Workspace workspace(Kernel kernel, std::int64_t tiles, const Split& split, std::int32_t heads,
                              std::int32_t head_dim) {
    Workspace at{};
    std::size_t end = 0;
    const auto place = [&end](std::size_t bytes) {
        const std::size_t begin = end;
        end += (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
        return begin;
    };
    const auto head_count = static_cast<std::size_t>(heads);
    const auto channels = static_cast<std::size_t>(head_dim);
    const std::size_t head_tiles = head_count * static_cast<std::size_t>(tiles);
    const bool with_fp8 = value_format(kernel) == ValueFormat::kFp8;
    at.query = place(head_tiles * kTileTokens * channels);
    at.key = place(head_tiles * kTileTokens * channels);
    at.value = place(head_tiles * value_tile_bytes(value_format(kernel), head_dim));
    at.query_scale = place(head_tiles * kTileTokens * sizeof(float));
    at.query_mean = place(head_tiles * kTileTokens * sizeof(float));
    at.key_record = place(head_tiles * sizeof(KeyRecord));
    at.value_errors = place(with_fp8 ? head_tiles * channels * 2 : 0);
    at.output_mean = place(with_fp8 ? head_tiles * channels * sizeof(float) : 0);
    for (std::size_t* part :
         {&at.query_squares, &at.key_sums, &at.key_squares, &at.value_sums, &at.value_lows, &at.value_highs}) {
        *part = place(static_cast<std::size_t>(measure_blocks(heads)) * head_count * channels * sizeof(float));
    }
    for (std::size_t* part : {&at.query_balance, &at.key_balance}) {
        *part = place(head_count * channels / 2 * sizeof(float));
    }
    for (std::size_t* part : {&at.key_mean, &at.value_mean, &at.value_forward, &at.value_limits, &at.value_beyond}) {
        *part = place(head_count * channels * sizeof(float));
    }
    at.heads_anew = place(head_count * sizeof(std::int32_t));
    const bool with_wgmma = kernel == Kernel::kInt8Wgmma;
    const std::size_t of_group = kGroupTiles * (channels / 8 + 1) * 128 * 16;
    const std::size_t part_rows = with_wgmma ? head_count * static_cast<std::size_t>(split.rows()) : 0;
    at.totals = place(with_wgmma ? kMostBlocks * of_group : 0);
    at.part_totals = place(with_wgmma && split.groups > 0 ? kMostBlocks * of_group : 0);
    at.part_output = place(part_rows * channels * 2);
    at.part_log_sum_exp = place(part_rows * sizeof(float));
    at.next = place(2 * sizeof(std::int32_t));
    at.bytes = end;
    return at;
}

}  // namespace scaledit::cuda
