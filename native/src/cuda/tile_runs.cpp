#include "cuda/tile_runs.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace scaledit::cuda {
namespace {

constexpr std::int32_t kNoTile = std::numeric_limits<std::int32_t>::max();

// The ranges of a query tile, walked through in the order of memory.
class Walk {
public:
    explicit Walk(std::span<const scaledit_tile_range> ranges) : ranges_(ranges) {}

    // Passes over what ends at `at` or before.
    void advance(std::int32_t at) {
        while (!ranges_.empty() && end_of_first() <= at) {
            ranges_ = ranges_.subspan(1);
        }
    }
    [[nodiscard]] bool lists(std::int32_t at) const { return !ranges_.empty() && ranges_.front().first <= at; }
    // The first tile behind `at` from which lists() answers differently.
    [[nodiscard]] std::int32_t change(std::int32_t at) const {
        if (ranges_.empty()) {
            return kNoTile;
        }
        return lists(at) ? end_of_first() : ranges_.front().first;
    }

private:
    [[nodiscard]] std::int32_t end_of_first() const { return ranges_.front().first + ranges_.front().count; }

    std::span<const scaledit_tile_range> ranges_;
};

}  // namespace

void append_runs(std::span<const std::span<const scaledit_tile_range>> ranges, std::vector<TileRun>& runs) {
    std::vector<Walk> walks(ranges.begin(), ranges.end());
    for (std::int32_t at = 0; at != kNoTile;) {
        std::int32_t next = kNoTile;
        std::uint32_t cells = 0;
        for (std::size_t i = 0; i < walks.size(); ++i) {
            walks[i].advance(at);
            cells |= walks[i].lists(at) ? 1U << i : 0U;
            next = std::min(next, walks[i].change(at));
        }
        if (cells != 0) {
            runs.push_back({at, next, cells});
        }
        at = next;
    }
}

}  // namespace scaledit::cuda
