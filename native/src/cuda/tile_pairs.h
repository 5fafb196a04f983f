// Query tiles two by two, with the key tiles that either of them attends to.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/tile_runs.h"
#include "geometry/geometry.h"

namespace scaledit::cuda {

constexpr int kPairTiles = 2;

// Neighbouring query tiles that a block works on together: most of their keys are the same.
struct TilePair {
    std::int32_t tile[kPairTiles];  // the second is -1 where a stream ends with an odd one
    std::int32_t runs_first;
    std::int32_t runs_end;
};

struct PairLists {
    std::vector<TilePair> pairs;  // long_pairs of text and guidance, most keys first, then the image's as in memory
    std::vector<TileRun> runs;
    std::int32_t long_pairs;
};
PairLists pair_tiles(const Geometry& geometry);

}  // namespace scaledit::cuda
