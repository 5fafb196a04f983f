// The key tiles of several query tiles, merged.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit::cuda {

// Key tiles first ... end - 1, to which the same query tiles attend.
struct TileRun {
    std::int32_t first;
    std::int32_t end;
    std::uint32_t cells;  // bit i: the query tile i of those merged
};

// Appends the runs of query tiles with these ranges, each ascending, in the order of memory.
void append_runs(std::span<const std::span<const scaledit_tile_range>> ranges, std::vector<TileRun>& runs);

}  // namespace scaledit::cuda
