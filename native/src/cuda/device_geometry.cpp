#include "cuda/device_geometry.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

#include "error.h"

namespace scaledit::cuda {
namespace {

constexpr std::size_t kAlignment = 16;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename Element>
void put(std::vector<std::byte>& block, std::size_t at, const std::vector<Element>& elements) {
    std::memcpy(block.data() + at, elements.data(), elements.size() * sizeof(Element));
}

// Whether two tiles that follow each other in memory share most of their keys.
bool belong_together(const scaledit_tile& one, const scaledit_tile& other) {
    return one.stream == other.stream &&
           (one.stream != SCALEDIT_IMAGE || std::abs(one.row - other.row) + std::abs(one.column - other.column) == 1);
}

// Merges the key ranges of a group's tiles into runs.
class Merge {
public:
    explicit Merge(std::vector<KeyRun>& runs) : runs_(runs) {}

    // `ranges[i]` are those of the group's tile i; the group's counts of stages are set.
    void operator()(std::array<std::span<const scaledit_tile_range>, kGroupTiles> ranges, TileGroup& group) {
        group.runs_first = static_cast<std::int32_t>(runs_.size());
        for (auto& tiles : some_) {
            tiles.clear();
        }
        pending_.reset();
        std::uint32_t all = 0;
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            all |= ranges[i].empty() ? 0U : 1U << i;
        }
        for (std::int32_t at = 0;;) {
            std::int32_t next = std::numeric_limits<std::int32_t>::max();
            std::uint32_t cells = 0;
            for (std::size_t i = 0; i < ranges.size(); ++i) {
                while (!ranges[i].empty() && end_of(ranges[i].front()) <= at) {
                    ranges[i] = ranges[i].subspan(1);
                }
                if (!ranges[i].empty()) {
                    const bool covers = ranges[i].front().first <= at;
                    cells |= covers ? 1U << i : 0U;
                    next = std::min(next, covers ? end_of(ranges[i].front()) : ranges[i].front().first);
                }
            }
            if (next == std::numeric_limits<std::int32_t>::max()) {
                break;
            }
            if (cells == all) {
                add_for_all(at, next, all);
            } else if (cells != 0) {
                for (std::int32_t tile = at; tile < next; ++tile) {
                    some_[cells].push_back(tile);
                }
            }
            at = next;
        }
        add_for_some(true);
        if (pending_) {
            runs_.push_back({*pending_, -1, 1, all});
        }
        add_for_some(false);
        group.runs_end = static_cast<std::int32_t>(runs_.size());
        count_stages(group);
    }

private:
    static std::int32_t end_of(const scaledit_tile_range& range) { return range.first + range.count; }

    // In stages of two; one that is left over waits for the next.
    void add_for_all(std::int32_t first, std::int32_t end, std::uint32_t all) {
        if (pending_) {
            runs_.push_back({*pending_, first++, 1, all});
            pending_.reset();
        }
        if (end - first >= 2) {
            runs_.push_back({first, first + 1, (end - first) / 2, all});
        }
        if ((end - first) % 2 != 0) {
            pending_ = end - 1;
        }
    }

    // Stages of two, or what then is left, for each tile in turn. Tiles that share more go first.
    void add_for_some(bool whole) {
        const std::size_t tiles = whole ? 2 : 1;
        for (bool found = true; found;) {
            found = false;
            for (std::uint32_t cell = 0; cell < kGroupTiles; ++cell) {
                std::vector<std::int32_t>* best = nullptr;
                std::uint32_t cells = 0;
                for (std::uint32_t candidate = 0; candidate < some_.size(); ++candidate) {
                    if ((candidate >> cell & 1U) != 0 && some_[candidate].size() >= tiles &&
                        (best == nullptr || std::popcount(candidate) > std::popcount(cells))) {
                        best = &some_[candidate];
                        cells = candidate;
                    }
                }
                if (best != nullptr) {
                    found = true;
                    const std::int32_t last = best->back();
                    best->pop_back();
                    runs_.push_back({whole ? best->back() : last, whole ? last : -1, 1, cells});
                    if (whole) {
                        best->pop_back();
                    }
                }
            }
        }
    }

    void count_stages(TileGroup& group) const {
        for (std::int32_t r = group.runs_first; r < group.runs_end; ++r) {
            const KeyRun& run = runs_[static_cast<std::size_t>(r)];
            group.stages += run.stages;
            for (std::size_t i = 0; i < kGroupTiles; ++i) {
                if ((run.cells >> i & 1U) != 0) {
                    (run.second < 0 ? group.halves : group.whole)[i] += run.stages;
                }
            }
        }
    }

    std::vector<KeyRun>& runs_;
    std::optional<std::int32_t> pending_;
    std::array<std::vector<std::int32_t>, 1U << kGroupTiles> some_;  // by the tiles that list them
};

}  // namespace

GroupLists group_tiles(const Geometry& geometry) {
    GroupLists lists{};
    const auto tiles = geometry.tiles();
    Merge merge(lists.runs);
    for (std::size_t tile = 0; tile < tiles.size();) {
        TileGroup group{};
        std::ranges::fill(group.tile, -1);
        std::array<std::span<const scaledit_tile_range>, kGroupTiles> ranges;
        std::size_t count = 0;
        do {
            group.tile[count] = static_cast<std::int32_t>(tile);
            ranges[count] = geometry.ranges(static_cast<std::int64_t>(tile));
            ++count;
            ++tile;
        } while (count < kGroupTiles && tile < tiles.size() && belong_together(tiles[tile - 1], tiles[tile]));
        merge(ranges, group);
        lists.groups.push_back(group);
    }
    const auto image = [&](const TileGroup& group) {
        return tiles[static_cast<std::size_t>(group.tile[0])].stream == SCALEDIT_IMAGE;
    };
    // The image's groups cost about the same: in the order of memory they find each other's keys in the cache.
    const auto first_image = std::stable_partition(lists.groups.begin(), lists.groups.end(),
                                                   [&](const TileGroup& group) { return !image(group); });
    std::stable_sort(lists.groups.begin(), first_image,
                     [](const TileGroup& a, const TileGroup& b) { return a.stages > b.stages; });
    lists.long_groups = static_cast<std::int32_t>(first_image - lists.groups.begin());
    return lists;
}

namespace {

DeviceGeometryLayout layout(const Geometry& geometry, const GroupLists& lists, const PairLists& pair_lists) {
    const scaledit_geometry_info& info = geometry.info();
    const auto tiles = static_cast<std::size_t>(info.tiles);
    DeviceGeometryLayout at{};
    at.queries = 0;
    at.keys = aligned(at.queries + tiles * sizeof(TokenRange));
    at.offsets = aligned(at.keys + static_cast<std::size_t>(info.ranges) * sizeof(TokenRange));
    at.schedule = aligned(at.offsets + (tiles + 1) * sizeof(std::int32_t));
    at.groups = aligned(at.schedule + tiles * sizeof(std::int32_t));
    at.runs = aligned(at.groups + lists.groups.size() * sizeof(TileGroup));
    at.pairs = aligned(at.runs + lists.runs.size() * sizeof(KeyRun));
    at.pair_runs = aligned(at.pairs + pair_lists.pairs.size() * sizeof(TilePair));
    at.bytes = aligned(at.pair_runs + pair_lists.runs.size() * sizeof(PairRun));
    at.group_count = static_cast<std::int32_t>(lists.groups.size());
    at.long_groups = lists.long_groups;
    at.pair_count = static_cast<std::int32_t>(pair_lists.pairs.size());
    at.long_pairs = pair_lists.long_pairs;
    return at;
}

void expect_32_bits(const Geometry& geometry) {
    const scaledit_geometry_info& info = geometry.info();
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    if (info.tokens > most || info.ranges > most) {
        throw Error(SCALEDIT_UNSUPPORTED, "the geometry has " + to_text(info.tokens) + " tokens and " +
                                              to_text(info.ranges) + " ranges, a GPU takes up to " + to_text(most));
    }
}

}  // namespace

DeviceGeometryLayout layout(const Geometry& geometry) {
    expect_32_bits(geometry);
    return layout(geometry, group_tiles(geometry), pair_tiles(geometry));
}

std::vector<std::byte> pack(const Geometry& geometry) {
    expect_32_bits(geometry);
    const GroupLists lists = group_tiles(geometry);
    const PairLists pair_lists = pair_tiles(geometry);
    const DeviceGeometryLayout at = layout(geometry, lists, pair_lists);
    const auto tiles = geometry.tiles();
    std::vector<TokenRange> queries;
    queries.reserve(tiles.size());
    for (const scaledit_tile& tile : tiles) {
        queries.push_back({static_cast<std::int32_t>(tile.first), tile.tokens});
    }
    std::vector<TokenRange> keys;
    keys.reserve(geometry.all_ranges().size());
    for (const scaledit_tile_range& range : geometry.all_ranges()) {
        const auto first = static_cast<std::size_t>(range.first);
        const scaledit_tile& last = tiles[first + static_cast<std::size_t>(range.count) - 1];
        const std::int64_t tokens = last.first + last.tokens - tiles[first].first;
        keys.push_back({static_cast<std::int32_t>(tiles[first].first), static_cast<std::int32_t>(tokens)});
    }
    std::vector<std::int32_t> offsets;
    offsets.reserve(geometry.offsets().size());
    for (const std::int64_t offset : geometry.offsets()) {
        offsets.push_back(static_cast<std::int32_t>(offset));
    }
    const auto schedule = geometry.schedule();

    std::vector<std::byte> block(at.bytes);
    put(block, at.queries, queries);
    put(block, at.keys, keys);
    put(block, at.offsets, offsets);
    put(block, at.schedule, std::vector<std::int32_t>(schedule.begin(), schedule.end()));
    put(block, at.groups, lists.groups);
    put(block, at.runs, lists.runs);
    put(block, at.pairs, pair_lists.pairs);
    put(block, at.pair_runs, pair_lists.runs);
    return block;
}

}  // namespace scaledit::cuda
