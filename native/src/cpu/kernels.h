// What the driver and the kernels of each instruction set share: the state of one query tile, and the table of kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantize/tile_layout.h"

namespace scaledit::cpu {

using quantize::kMaxHeadDim;
using quantize::kTileTokens;

// Weights of quantised kernels are integers up to 2^13: 64 of them times 13-bit values (quantize::kValueLimit) still
// fit an int32.
inline constexpr int kWeightExponent = 13;
static_assert((std::int64_t{kTileTokens} << kWeightExponent) * 4095 <= INT32_MAX);

// Widest vector of float32 of any instruction set.
inline constexpr int kMaxLanes = 16;

// One query tile of one head on its way through its key tiles. It lies in the caller's workspace.
//
// Online softmax in base 2: a score s of a row stands for the weight 2^(scale * (s - reference)). The reference is the
// maximum of the newest key tile rather than of all so far, because weights are rounded relative to it: a tile that one
// far greater score overshadows keeps its precision. It stays within `descent` of the maximum so far, which bounds
// output and sum.
struct alignas(64) QueryTile {
    std::uint32_t query[kTileTokens][kMaxHeadDim];  // chunks, see quantize/tile_layout.h
    float scores[kTileTokens][kTileTokens];         // of the newest key tile; then its weights, as chunks
    float output[kTileTokens][kMaxHeadDim];         // not yet divided by sum
    float sum[kTileTokens][kMaxLanes];              // of weights, spread over a vector's lanes
    float scale[kTileTokens];                       // turns a row's scores into base 2 logits
    float descent[kTileTokens];
    float lowest[kTileTokens];        // distance from the reference whose weight is 2^-126, which is as good as zero
    float tile_maximum[kTileTokens];  // of scores in the newest key tile
    float maximum[kTileTokens];       // of scores so far
    float reference[kTileTokens];
    float rescale[kTileTokens];  // of what has been summed so far, when the reference moves
    std::int32_t tokens;
    std::int32_t head_dim;
};

struct KeyValueTile {
    const std::byte* key;  // packed, see quantize/tile_layout.h
    const std::byte* value;
    std::int32_t tokens;
};

// Adds one key tile to a query tile.
using AttendTile = void (*)(const KeyValueTile& keys, QueryTile& queries);

struct Kernel {
    quantize::TileLayout layout;
    int weight_exponent;  // weights, and so sum and output, are 2^weight_exponent times too large
    AttendTile attend_tile;
};

// One tile of one head on its way through the tiles that it meets in the backward pass, in float32. Query tiles take
// what comes from their keys, key tiles what comes from their queries:
//
//             left    right            left_gradient   right_gradient
//   queries   query   output gradient  query gradient
//   keys      key     value            key gradient    value gradient
//
// It lies in the caller's workspace.
struct alignas(64) GradientTile {
    float left[kTileTokens][kMaxHeadDim];
    float right[kTileTokens][kMaxHeadDim];
    float left_gradient[kTileTokens][kMaxHeadDim];
    float right_gradient[kTileTokens][kMaxHeadDim];
    float weights[kTileTokens][kTileTokens];          // of the newest pair of tiles: scores in base 2, then softmax
    float score_gradients[kTileTokens][kTileTokens];  // likewise: of the weights, then of the scores
    float log2_sum_exp[kTileTokens];                  // of queries
    float delta[kTileTokens];                         // of queries: output . output gradient
    std::int32_t tokens;
    std::int32_t head_dim;
};

// A tile that is met, packed as keys are and as values are.
struct MetTile {
    const std::byte* left;   // as keys
    const std::byte* right;  // as keys
    const std::byte* left_rows;
    const std::byte* right_rows;  // queries alone
    const float* log2_sum_exp;    // [kTileTokens], queries alone; any number for tokens that the tile lacks
    const float* delta;
    std::int32_t tokens;
};

// Adds what comes from one met tile to a tile's gradients.
using PropagateTile = void (*)(const MetTile& met, GradientTile& own);

struct GradientKernels {
    quantize::TileLayout layout;
    PropagateTile to_queries;
    PropagateTile to_keys;
};

// What one instruction set has to offer.
struct Kernels {
    Kernel float32;
    Kernel int8;
    GradientKernels gradients;
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512VnniKernels;
#endif

}  // namespace scaledit::cpu
