#include "cuda/device_geometry.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

#include "cuda/tile_runs.h"
#include "error.h"
#include "geometry/query_lists.h"

namespace scaledit::cuda {
namespace {

constexpr std::size_t kAlignment = 16;
constexpr std::int64_t kSplitProcessors = 132;  // a Hopper's, as sold
constexpr std::int64_t kLeastPartStages = 8;    // a part begins with its queries and ends with its sums

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

// In a stage for the query tiles of the set `now`, before one for those of the set `next`.
Successors successors(std::uint32_t now, std::uint32_t next) {
    Successors all = 0;
    auto successor = static_cast<std::uint32_t>(std::countr_zero(next));
    for (std::uint32_t tile = kGroupTiles; tile-- > 0;) {
        if ((now >> tile & 1U) != 0) {
            all |= successor << 2 * tile;
            successor = tile;
        }
    }
    return all;
}

// Lists the stages of one group: the key tiles of its query tiles, merged.
class Stages {
public:
    // `ranges[i]` are the query tile i's.
    explicit Stages(std::span<const std::span<const scaledit_tile_range>> ranges)
        : tiles_(ranges.size()), all_((1U << ranges.size()) - 1) {
        std::vector<TileRun> merged;
        append_runs(ranges, merged);
        for (const TileRun& run : merged) {
            if (run.cells == all_) {
                add_for_all(run.first, run.end);
            } else {
                for (std::int32_t tile = run.first; tile < run.end; ++tile) {
                    some_[run.cells].push_back(tile);
                }
            }
        }
        add_for_some(2);
        if (pending_) {
            apart_.push_back({*pending_, -1, all_});
        }
        add_for_some(1);
    }

    [[nodiscard]] std::size_t apart() const { return apart_.size(); }

    // Whether query tile 0 attends to the first stage. At the start of every group the turn is its: without it nobody
    // would ever take that stage.
    [[nodiscard]] bool begin_with_first() const { return !together_.empty() || (apart_.front().cells & 1U) != 0; }

    // Appends the runs to the others', and says the rest to the group.
    void write(std::vector<KeyRun>& runs, TileGroup& group) const {
        group.runs_first = static_cast<std::int32_t>(runs.size());
        const auto apart_cells = [&](std::size_t i) { return i < apart_.size() ? apart_[i].cells : 1U; };
        for (std::size_t i = 0; i < together_.size(); ++i) {
            KeyRun run = together_[i];
            run.within = successors(all_, all_);
            run.last = successors(all_, i + 1 < together_.size() ? all_ : apart_cells(0));
            runs.push_back(run);
            group.together += run.stages;
        }
        std::fill_n(group.whole, tiles_, group.together);
        for (std::size_t i = 0; i < apart_.size(); ++i) {
            const auto& [first, second, cells] = apart_[i];
            runs.push_back({first, second, 1, cells, 0, successors(cells, apart_cells(i + 1))});
            for (std::size_t tile = 0; tile < tiles_; ++tile) {
                if ((cells >> tile & 1U) != 0) {
                    group.apart[tile] |= std::uint64_t{1} << i;
                    ++(second < 0 ? group.halves : group.whole)[tile];
                }
            }
        }
        group.stages = group.together + static_cast<std::int32_t>(apart_.size());
        group.runs_end = static_cast<std::int32_t>(runs.size());
    }

private:
    struct Apart {
        std::int32_t first;
        std::int32_t second;
        std::uint32_t cells;  // bit i: for the query tile i
    };

    // In stages of two; one that is left over waits for the next.
    void add_for_all(std::int32_t first, std::int32_t end) {
        if (pending_) {
            together_.push_back({*pending_, first++, 1, all_, 0, 0});
            pending_.reset();
        }
        if (end - first >= 2) {
            together_.push_back({first, first + 1, (end - first) / 2, all_, 0, 0});
        }
        if ((end - first) % 2 != 0) {
            pending_ = end - 1;
        }
    }

    // Stages of so many key tiles, for each query tile in turn. What more of them share goes first.
    void add_for_some(std::size_t key_tiles) {
        for (bool found = true; found;) {
            found = false;
            for (std::uint32_t tile = 0; tile < tiles_; ++tile) {
                std::uint32_t best = 0;
                for (std::uint32_t cells = 0; cells < some_.size(); ++cells) {
                    if ((cells >> tile & 1U) != 0 && some_[cells].size() >= key_tiles &&
                        std::popcount(cells) > std::popcount(best)) {
                        best = cells;
                    }
                }
                if (best != 0) {
                    found = true;
                    const auto take = [&tiles = some_[best]] {
                        const std::int32_t last = tiles.back();
                        tiles.pop_back();
                        return last;
                    };
                    const std::int32_t first = take();
                    apart_.push_back({first, key_tiles == 2 ? take() : -1, best});
                }
            }
        }
    }

    std::size_t tiles_;
    std::uint32_t all_;
    std::vector<KeyRun> together_;
    std::vector<Apart> apart_;
    std::optional<std::int32_t> pending_;
    std::array<std::vector<std::int32_t>, 1U << kGroupTiles> some_;  // by the query tiles that list them
};

}  // namespace

GroupLists group_tiles(const Geometry& geometry) {
    GroupLists lists{};
    const auto tiles = geometry.tiles();
    for (std::size_t first = 0; first < tiles.size();) {
        if (geometry.ranges(static_cast<std::int64_t>(first)).empty()) {
            ++first;
            continue;
        }
        std::size_t count = 1;
        while (count < kGroupTiles && first + count < tiles.size() &&
               !geometry.ranges(static_cast<std::int64_t>(first + count)).empty() &&
               belong_together(tiles[first + count - 1], tiles[first + count])) {
            ++count;
        }
        TileGroup group{};
        for (;; --count) {  // a tile alone has few stages apart, all of them its own
            std::array<std::span<const scaledit_tile_range>, kGroupTiles> ranges;
            for (std::size_t i = 0; i < count; ++i) {
                ranges[i] = geometry.ranges(static_cast<std::int64_t>(first + i));
            }
            const Stages stages{std::span(ranges).first(count)};
            if (stages.apart() <= kMostApart && stages.begin_with_first()) {
                stages.write(lists.runs, group);
                break;
            }
        }
        for (std::size_t i = 0; i < kGroupTiles; ++i) {
            group.tile[i] = i < count ? static_cast<std::int32_t>(first + i) : -1;
        }
        lists.groups.push_back(group);
        first += count;
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

// Whether all query tiles of a group attend to all of its stages.
bool attend_alike(const TileGroup& group) {
    for (std::size_t i = 0; i < kGroupTiles; ++i) {
        if (group.tile[i] >= 0 && group.whole[i] + group.halves[i] != group.stages) {
            return false;
        }
    }
    return true;
}

struct AllLists {
    explicit AllLists(const Geometry& geometry)
        : groups(group_tiles(geometry)),
          pairs(pair_tiles(geometry, geometry.keys())),
          queries(geometry),
          key_pairs(pair_tiles(geometry, queries.lists())) {}
    GroupLists groups;
    PairLists pairs;
    QueryLists queries;
    PairLists key_pairs;
};

DeviceGeometryLayout layout(const Geometry& geometry, const AllLists& all) {
    const GroupLists& lists = all.groups;
    const scaledit_geometry_info& info = geometry.info();
    const auto tiles = static_cast<std::size_t>(info.tiles);
    DeviceGeometryLayout at{};
    at.queries = 0;
    at.keys = aligned(at.queries + tiles * sizeof(TokenRange));
    at.offsets = aligned(at.keys + static_cast<std::size_t>(info.ranges) * sizeof(TokenRange));
    at.key_tokens = aligned(at.offsets + (tiles + 1) * sizeof(std::int32_t));
    at.query_tokens = aligned(at.key_tokens + tiles * sizeof(std::int32_t));
    at.schedule = aligned(at.query_tokens + tiles * sizeof(std::int32_t));
    at.groups = aligned(at.schedule + static_cast<std::size_t>(info.query_tiles) * sizeof(std::int32_t));
    at.runs = aligned(at.groups + lists.groups.size() * sizeof(TileGroup));
    at.pairs = aligned(at.runs + lists.runs.size() * sizeof(KeyRun));
    at.pair_runs = aligned(at.pairs + all.pairs.pairs.size() * sizeof(TilePair));
    at.key_pairs = aligned(at.pair_runs + all.pairs.runs.size() * sizeof(TileRun));
    at.key_pair_runs = aligned(at.key_pairs + all.key_pairs.pairs.size() * sizeof(TilePair));
    at.bytes = aligned(at.key_pair_runs + all.key_pairs.runs.size() * sizeof(TileRun));
    at.group_count = static_cast<std::int32_t>(lists.groups.size());
    at.long_groups = lists.long_groups;
    for (const TileGroup& group : lists.groups) {
        at.stages += group.stages;
    }
    for (std::int32_t i = 0; i < lists.long_groups; ++i) {
        const TileGroup& group = lists.groups[static_cast<std::size_t>(i)];
        if (group.stages != lists.groups.front().stages || !attend_alike(group)) {
            break;
        }
        at.alike_groups = i + 1;
        at.alike_stages = group.stages;
    }
    at.pair_count = static_cast<std::int32_t>(all.pairs.pairs.size());
    at.long_pairs = all.pairs.long_pairs;
    at.key_pair_count = static_cast<std::int32_t>(all.key_pairs.pairs.size());
    at.long_key_pairs = all.key_pairs.long_pairs;
    return at;
}

// How many tokens each tile meets.
std::vector<std::int32_t> tokens_met(const Geometry& geometry, const TileLists& lists) {
    std::vector<std::int32_t> met(geometry.tiles().size());
    for (std::size_t tile = 0; tile < met.size(); ++tile) {
        for (const scaledit_tile_range& range : lists.ranges_of(static_cast<std::int64_t>(tile))) {
            met[tile] += static_cast<std::int32_t>(geometry.tokens_of(range));
        }
    }
    return met;
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

Split split(const DeviceGeometryLayout& at, std::int32_t heads) {
    const std::int64_t jobs = std::int64_t{at.alike_groups} * heads;
    if (jobs == 0 || at.alike_stages <= at.stages * heads / kSplitProcessors / 2) {
        return {0, 1};
    }
    const std::int64_t parts = std::min(kSplitProcessors / jobs, at.alike_stages / kLeastPartStages);
    return parts > 1 ? Split{at.alike_groups, static_cast<std::int32_t>(parts)} : Split{0, 1};
}

DeviceGeometryLayout layout(const Geometry& geometry) {
    expect_32_bits(geometry);
    return layout(geometry, AllLists(geometry));
}

std::vector<std::byte> pack(const Geometry& geometry) {
    expect_32_bits(geometry);
    const AllLists lists(geometry);
    const DeviceGeometryLayout at = layout(geometry, lists);
    const auto tiles = geometry.tiles();
    std::vector<TokenRange> queries;
    queries.reserve(tiles.size());
    for (const scaledit_tile& tile : tiles) {
        queries.push_back({static_cast<std::int32_t>(tile.first), tile.tokens});
    }
    std::vector<TokenRange> keys;
    keys.reserve(geometry.all_ranges().size());
    for (const scaledit_tile_range& range : geometry.all_ranges()) {
        const std::int64_t first = tiles[static_cast<std::size_t>(range.first)].first;
        keys.push_back({static_cast<std::int32_t>(first), static_cast<std::int32_t>(geometry.tokens_of(range))});
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
    put(block, at.key_tokens, tokens_met(geometry, geometry.keys()));
    put(block, at.query_tokens, tokens_met(geometry, lists.queries.lists()));
    put(block, at.schedule, std::vector<std::int32_t>(schedule.begin(), schedule.end()));
    put(block, at.groups, lists.groups.groups);
    put(block, at.runs, lists.groups.runs);
    put(block, at.pairs, lists.pairs.pairs);
    put(block, at.pair_runs, lists.pairs.runs);
    put(block, at.key_pairs, lists.key_pairs.pairs);
    put(block, at.key_pair_runs, lists.key_pairs.runs);
    return block;
}

}  // namespace scaledit::cuda
