#include "geometry/query_lists.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace scaledit {

QueryLists::QueryLists(const Geometry& geometry) {
    const auto tiles = geometry.tiles().size();
    std::vector<std::vector<scaledit_tile_range>> found(tiles);
    std::vector<std::int32_t> queries(tiles);
    for (std::size_t query = 0; query < tiles; ++query) {
        const auto number = static_cast<std::int32_t>(query);
        for (const scaledit_tile_range& keys : geometry.ranges(number)) {
            for (std::int32_t i = 0; i < keys.count; ++i) {
                const auto key = static_cast<std::size_t>(keys.first) + static_cast<std::size_t>(i);
                auto& ranges = found[key];
                if (!ranges.empty() && ranges.back().first + ranges.back().count == number) {
                    ++ranges.back().count;
                } else {
                    ranges.push_back({number, 1});
                }
                ++queries[key];
            }
        }
    }
    offsets_.reserve(tiles + 1);
    offsets_.push_back(0);
    for (const auto& ranges : found) {
        ranges_.insert(ranges_.end(), ranges.begin(), ranges.end());
        offsets_.push_back(static_cast<std::int64_t>(ranges_.size()));
    }
    schedule_.resize(tiles);
    std::iota(schedule_.begin(), schedule_.end(), 0);
    std::stable_sort(schedule_.begin(), schedule_.end(), [&](std::int32_t a, std::int32_t b) {
        return queries[static_cast<std::size_t>(a)] > queries[static_cast<std::size_t>(b)];
    });
}

}  // namespace scaledit
