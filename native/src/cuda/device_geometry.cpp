#include "cuda/device_geometry.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
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

// Merges the key ranges of a pair's tiles into runs; tells how many tiles each lists.
class Merge {
public:
    explicit Merge(std::vector<TileRun>& runs) : runs_(runs) {}

    std::array<std::int32_t, 2> operator()(std::span<const scaledit_tile_range> one,
                                           std::span<const scaledit_tile_range> other) {
        listed_ = {};
        for (auto& tiles : alone_) {
            tiles.clear();
        }
        std::int32_t at = 0;
        while (!one.empty() || !other.empty()) {
            const std::int32_t next = std::min(boundary_after(one, at), boundary_after(other, at));
            add(at, next, (covers(one, at) ? 1U : 0U) | (covers(other, at) ? 2U : 0U));
            at = next;
            for (auto* ranges : {&one, &other}) {
                if (!ranges->empty() && end_of(ranges->front()) <= at) {
                    *ranges = ranges->subspan(1);
                }
            }
        }
        for (std::size_t i = 0; i < std::max(alone_[0].size(), alone_[1].size()); ++i) {
            for (const std::uint32_t cell : {0U, 1U}) {
                if (i < alone_[cell].size()) {
                    runs_.push_back({alone_[cell][i], 1, cell + 1});
                }
            }
        }
        return listed_;
    }

private:
    static std::int32_t end_of(const scaledit_tile_range& range) { return range.first + range.count; }
    static bool covers(std::span<const scaledit_tile_range> ranges, std::int32_t tile) {
        return !ranges.empty() && ranges.front().first <= tile;
    }
    static std::int32_t boundary_after(std::span<const scaledit_tile_range> ranges, std::int32_t tile) {
        if (ranges.empty()) {
            return std::numeric_limits<std::int32_t>::max();
        }
        return ranges.front().first > tile ? ranges.front().first : end_of(ranges.front());
    }
    void add(std::int32_t first, std::int32_t end, std::uint32_t cells) {
        for (const std::uint32_t cell : {0U, 1U}) {
            listed_[cell] += (cells >> cell & 1U) != 0 ? end - first : 0;
        }
        if (cells == 3) {
            runs_.push_back({first, end - first, cells});
        } else if (cells != 0) {
            for (std::int32_t tile = first; tile < end; ++tile) {
                alone_[cells - 1].push_back(tile);
            }
        }
    }

    std::vector<TileRun>& runs_;
    std::array<std::vector<std::int32_t>, 2> alone_;
    std::array<std::int32_t, 2> listed_{};
};

}  // namespace

PairLists pair_up(const Geometry& geometry) {
    PairLists lists{};
    const auto tiles = geometry.tiles();
    Merge merge(lists.runs);
    for (std::size_t tile = 0; tile < tiles.size();) {
        const bool paired = tile + 1 < tiles.size() && belong_together(tiles[tile], tiles[tile + 1]);
        const auto first = static_cast<std::int32_t>(tile);
        const auto begin = static_cast<std::int32_t>(lists.runs.size());
        const auto listed =
            merge(geometry.ranges(first), paired ? geometry.ranges(first + 1) : std::span<const scaledit_tile_range>());
        lists.pairs.push_back({{first, paired ? first + 1 : -1},
                               {listed[0], listed[1]},
                               begin,
                               static_cast<std::int32_t>(lists.runs.size())});
        tile += paired ? 2 : 1;
    }
    const auto image = [&](const TilePair& pair) {
        return tiles[static_cast<std::size_t>(pair.tile[0])].stream == SCALEDIT_IMAGE;
    };
    // The image's pairs cost about the same: in the order of memory they find each other's keys in the cache.
    const auto first_image = std::stable_partition(lists.pairs.begin(), lists.pairs.end(),
                                                   [&](const TilePair& pair) { return !image(pair); });
    std::stable_sort(lists.pairs.begin(), first_image, [](const TilePair& a, const TilePair& b) {
        return std::max(a.listed[0], a.listed[1]) > std::max(b.listed[0], b.listed[1]);
    });
    lists.long_pairs = static_cast<std::int32_t>(first_image - lists.pairs.begin());
    return lists;
}

namespace {

DeviceGeometryLayout layout(const Geometry& geometry, const PairLists& lists) {
    const scaledit_geometry_info& info = geometry.info();
    const auto tiles = static_cast<std::size_t>(info.tiles);
    DeviceGeometryLayout at{};
    at.queries = 0;
    at.keys = aligned(at.queries + tiles * sizeof(TokenRange));
    at.offsets = aligned(at.keys + static_cast<std::size_t>(info.ranges) * sizeof(TokenRange));
    at.schedule = aligned(at.offsets + (tiles + 1) * sizeof(std::int32_t));
    at.pairs = aligned(at.schedule + tiles * sizeof(std::int32_t));
    at.runs = aligned(at.pairs + lists.pairs.size() * sizeof(TilePair));
    at.bytes = aligned(at.runs + lists.runs.size() * sizeof(TileRun));
    at.pair_count = static_cast<std::int32_t>(lists.pairs.size());
    at.long_pairs = lists.long_pairs;
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
    return layout(geometry, pair_up(geometry));
}

std::vector<std::byte> pack(const Geometry& geometry) {
    expect_32_bits(geometry);
    const PairLists lists = pair_up(geometry);
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
    put(block, at.pairs, lists.pairs);
    put(block, at.runs, lists.runs);
    return block;
}

}  // namespace scaledit::cuda
