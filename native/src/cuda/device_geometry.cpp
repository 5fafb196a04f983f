#include "cuda/device_geometry.h"

#include <cstring>
#include <limits>

#include "error.h"

namespace scaledit::cuda {
namespace {

constexpr std::size_t kAlignment = 16;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename Element>
void put(std::vector<std::byte>& block, std::size_t at, const std::vector<Element>& elements) {
    std::memcpy(block.data() + at, elements.data(), elements.size() * sizeof(Element));
}

}  // namespace

DeviceGeometryLayout layout(const Geometry& geometry) {
    const scaledit_geometry_info& info = geometry.info();
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    if (info.tokens > most || info.ranges > most) {
        throw Error(SCALEDIT_UNSUPPORTED, "the geometry has " + to_text(info.tokens) + " tokens and " +
                                              to_text(info.ranges) + " ranges, a GPU takes up to " + to_text(most));
    }
    const auto tiles = static_cast<std::size_t>(info.tiles);
    const auto ranges = static_cast<std::size_t>(info.ranges);
    DeviceGeometryLayout at{};
    at.queries = 0;
    at.keys = aligned(at.queries + tiles * sizeof(TokenRange));
    at.offsets = aligned(at.keys + ranges * sizeof(TokenRange));
    at.schedule = aligned(at.offsets + (tiles + 1) * sizeof(std::int32_t));
    at.bytes = aligned(at.schedule + tiles * sizeof(std::int32_t));
    return at;
}

std::vector<std::byte> pack(const Geometry& geometry) {
    const DeviceGeometryLayout at = layout(geometry);
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
    return block;
}

}  // namespace scaledit::cuda
