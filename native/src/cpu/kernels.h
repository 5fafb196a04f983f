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

// What one instruction set has to offer.
struct Kernels {
    Kernel float32;
    Kernel int8;
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512VnniKernels;
#endif

}  // namespace scaledit::cpu
