// Tiles two by two, with the tiles that either of them meets: query tiles with their keys, or key tiles with the
// queries that attend to them.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/tile_runs.h"
#include "geometry/geometry.h"

namespace scaledit::cuda {

constexpr int kPairTiles = 2;

// Neighbouring tiles that a block works on together: most of what they meet is the same.
struct TilePair {
    std::int32_t tile[kPairTiles];  // the second is -1 where a stream, or what of it meets any, ends with an odd one
    std::int32_t runs_first;
    std::int32_t runs_end;
};

struct PairLists {
    std::vector<TilePair> pairs;  // long_pairs of text and guidance, longest first, then the image's as in memory
    std::vector<TileRun> runs;
    std::int32_t long_pairs;
};

// Without tiles that meet none. `lists` are the geometry's keys(), or those of its QueryLists.
PairLists pair_tiles(const Geometry& geometry, const TileLists& lists);

}  // namespace scaledit::cuda
