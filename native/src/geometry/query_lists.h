// A geometry's lists the other way round, for the gradients of keys and values.
#pragma once

#include <cstdint>
#include <vector>

#include "geometry/geometry.h"
#include "scaledit/scaledit.h"

namespace scaledit {

class QueryLists {
public:
    explicit QueryLists(const Geometry& geometry);

    // For each key tile the query tiles that attend to it; all tiles are in the schedule.
    [[nodiscard]] TileLists lists() const { return {offsets_, ranges_, schedule_}; }

private:
    std::vector<std::int64_t> offsets_;
    std::vector<scaledit_tile_range> ranges_;
    std::vector<std::int32_t> schedule_;
};

}  // namespace scaledit
