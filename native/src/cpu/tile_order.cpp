#include "cpu/tile_order.h"

#include <algorithm>

namespace scaledit::cpu {
namespace {

// Heads are packed and worked on in groups. Packed tiles of a group should stay in the last cache on their way from one
// pass to the next,
constexpr std::size_t kGroupBytes = std::size_t{12} << 20;
// but a group must have so many times the work of its longest tile for each thread, or threads would wait for it.
constexpr std::int64_t kGroupBalance = 4;

// Tiles that meet more than this many times the average are taken before all others, of all heads: one of them at the
// end would keep a single thread busy. The rest goes head by head, which keeps packed tiles in the caches.
constexpr std::int64_t kLongTile = 2;

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

std::int64_t count(std::span<const scaledit_tile_range> ranges) {
    std::int64_t tiles = 0;
    for (const auto& range : ranges) {
        tiles += range.count;
    }
    return tiles;
}

}  // namespace

TileOrder::TileOrder(const TileLists& lists) : lists_(lists), met_by_all_(count(lists.ranges)) {
    const std::int64_t limit = kLongTile * met_by_all_ / tiles();
    long_tiles_ =
        std::ranges::find_if(lists_.schedule, [&](auto tile) { return count(lists_.ranges_of(tile)) <= limit; }) -
        lists_.schedule.begin();
}

std::int64_t TileOrder::heads_in_group(std::int64_t heads, std::int32_t threads, std::size_t head_bytes) const {
    const auto cached = static_cast<std::int64_t>(kGroupBytes / head_bytes);
    const std::int64_t longest = count(lists_.ranges_of(lists_.schedule.front()));
    const std::int64_t balanced = divide_up(kGroupBalance * threads * longest, met_by_all_);
    const std::int64_t wanted = std::clamp<std::int64_t>(std::max(cached, balanced), 1, heads);
    return divide_up(heads, divide_up(heads, wanted));
}

TileOrder::Work TileOrder::work_of(std::int64_t item, std::int64_t heads) const {
    if (item < heads * long_tiles_) {
        return {item % heads, lists_.schedule[size(item / heads)]};
    }
    const std::int64_t rest = item - heads * long_tiles_;
    const std::int64_t short_tiles = tiles() - long_tiles_;
    return {rest / short_tiles, lists_.schedule[size(long_tiles_ + rest % short_tiles)]};
}

}  // namespace scaledit::cpu
