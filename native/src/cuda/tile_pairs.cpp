#include "cuda/tile_pairs.h"

#include <algorithm>
#include <cstddef>
#include <span>

namespace scaledit::cuda {

PairLists pair_tiles(const Geometry& geometry, const TileLists& tile_lists) {
    struct Counted {
        TilePair pair;
        std::int64_t met;  // tiles
    };
    PairLists lists{};
    std::vector<Counted> long_pairs;
    std::vector<TilePair> image_pairs;
    const auto tiles = geometry.tiles();
    for (std::size_t tile = 0; tile < tiles.size();) {
        if (tile_lists.ranges_of(static_cast<std::int64_t>(tile)).empty()) {
            ++tile;
            continue;
        }
        // After the last image tile of a shard may come one of those that meet nobody.
        const bool two = tile + 1 < tiles.size() && tiles[tile + 1].stream == tiles[tile].stream &&
                         !tile_lists.ranges_of(static_cast<std::int64_t>(tile) + 1).empty();
        const auto first = static_cast<std::int32_t>(tile);
        TilePair pair{{first, two ? first + 1 : -1}, static_cast<std::int32_t>(lists.runs.size()), 0};
        const std::span<const scaledit_tile_range> ranges[] = {
            tile_lists.ranges_of(first),
            two ? tile_lists.ranges_of(first + 1) : std::span<const scaledit_tile_range>()};
        append_runs(ranges, lists.runs);
        pair.runs_end = static_cast<std::int32_t>(lists.runs.size());
        if (tiles[tile].stream == SCALEDIT_IMAGE) {
            image_pairs.push_back(pair);
        } else {
            std::int64_t met = 0;
            for (std::int32_t r = pair.runs_first; r < pair.runs_end; ++r) {
                const TileRun& run = lists.runs[static_cast<std::size_t>(r)];
                met += run.end - run.first;
            }
            long_pairs.push_back({pair, met});
        }
        tile += two ? 2 : 1;
    }
    std::ranges::stable_sort(long_pairs, std::ranges::greater(), &Counted::met);
    lists.long_pairs = static_cast<std::int32_t>(long_pairs.size());
    for (const Counted& counted : long_pairs) {
        lists.pairs.push_back(counted.pair);
    }
    // The image's cost about the same: in the order of memory they find what each other meets in the cache.
    lists.pairs.insert(lists.pairs.end(), image_pairs.begin(), image_pairs.end());
    return lists;
}

}  // namespace scaledit::cuda
