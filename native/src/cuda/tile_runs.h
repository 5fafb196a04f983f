// What several tiles meet, merged: the keys of query tiles, or the queries of key tiles.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit::cuda {

// Tiles first ... end - 1, which the same of those merged meet.
struct TileRun {
    std::int32_t first;
    std::int32_t end;
    std::uint32_t cells;  // bit i: the tile i of those merged
};

// Appends the runs of tiles with these ranges, each ascending, in the order of memory.
void append_runs(std::span<const std::span<const scaledit_tile_range>> ranges, std::vector<TileRun>& runs);

}  // namespace scaledit::cuda
