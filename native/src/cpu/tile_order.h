// In which order threads take the tiles of several heads, and how many heads at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "geometry/geometry.h"

namespace scaledit::cpu {

class TileOrder {
public:
    explicit TileOrder(const TileLists& lists);

    // Those in the schedule.
    [[nodiscard]] std::int64_t tiles() const { return static_cast<std::int64_t>(lists_.schedule.size()); }

    // Of `heads` heads, groups of about the same size, whose packed tiles take `head_bytes` for each head.
    [[nodiscard]] std::int64_t heads_in_group(std::int64_t heads, std::int32_t threads, std::size_t head_bytes) const;

    struct Work {
        std::int64_t head;  // of the group
        std::int64_t tile;
    };

    // Item 0 ... heads * tiles() - 1 of a group.
    [[nodiscard]] Work work_of(std::int64_t item, std::int64_t heads) const;

private:
    TileLists lists_;
    std::int64_t met_by_all_ = 0;  // (tile, met tile) pairs
    std::int64_t long_tiles_ = 0;
};

}  // namespace scaledit::cpu
