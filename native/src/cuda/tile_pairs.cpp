#include "cuda/tile_pairs.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>

namespace scaledit::cuda {
namespace {

constexpr std::int32_t kNoTile = std::numeric_limits<std::int32_t>::max();

// The ranges of a query tile, walked through in the order of memory.
class Walk {
public:
    explicit Walk(std::span<const scaledit_tile_range> ranges) : ranges_(ranges) {}

    // Passes over what ends at `at` or before.
    void advance(std::int32_t at) {
        while (!ranges_.empty() && ranges_.front().first + ranges_.front().count <= at) {
            ranges_ = ranges_.subspan(1);
        }
    }
    [[nodiscard]] bool lists(std::int32_t at) const { return !ranges_.empty() && ranges_.front().first <= at; }
    // The first tile behind `at` from which lists() answers differently.
    [[nodiscard]] std::int32_t change(std::int32_t at) const {
        if (ranges_.empty()) {
            return kNoTile;
        }
        return lists(at) ? ranges_.front().first + ranges_.front().count : ranges_.front().first;
    }

private:
    std::span<const scaledit_tile_range> ranges_;
};

void append_runs(std::array<Walk, kPairTiles> walks, std::vector<PairRun>& runs) {
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

}  // namespace

PairLists pair_tiles(const Geometry& geometry) {
    struct Counted {
        TilePair pair;
        std::int64_t keys;  // tiles
    };
    PairLists lists{};
    std::vector<Counted> long_pairs;
    std::vector<TilePair> image_pairs;
    const auto tiles = geometry.tiles();
    for (std::size_t tile = 0; tile < tiles.size();) {
        const bool two = tile + 1 < tiles.size() && tiles[tile + 1].stream == tiles[tile].stream;
        const auto first = static_cast<std::int32_t>(tile);
        TilePair pair{{first, two ? first + 1 : -1}, static_cast<std::int32_t>(lists.runs.size()), 0};
        append_runs({Walk(geometry.ranges(first)),
                     Walk(two ? geometry.ranges(first + 1) : std::span<const scaledit_tile_range>())},
                    lists.runs);
        pair.runs_end = static_cast<std::int32_t>(lists.runs.size());
        if (tiles[tile].stream == SCALEDIT_IMAGE) {
            image_pairs.push_back(pair);
        } else {
            std::int64_t keys = 0;
            for (std::int32_t r = pair.runs_first; r < pair.runs_end; ++r) {
                const PairRun& run = lists.runs[static_cast<std::size_t>(r)];
                keys += run.end - run.first;
            }
            long_pairs.push_back({pair, keys});
        }
        tile += two ? 2 : 1;
    }
    std::ranges::stable_sort(long_pairs, std::ranges::greater(), &Counted::keys);
    lists.long_pairs = static_cast<std::int32_t>(long_pairs.size());
    for (const Counted& counted : long_pairs) {
        lists.pairs.push_back(counted.pair);
    }
    // The image's cost about the same: in the order of memory they find each other's keys in the cache.
    lists.pairs.insert(lists.pairs.end(), image_pairs.begin(), image_pairs.end());
    return lists;
}

}  // namespace scaledit::cuda
