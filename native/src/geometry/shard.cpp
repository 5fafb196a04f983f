// Cuts a picture's geometry into shards.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "error.h"
#include "geometry/cell_grid.h"
#include "geometry/geometry.h"

namespace scaledit {
namespace {

// What a token's products with weights take beside attention, as pairs of a query and a key: in a step of FLUX.1-dev at
// 4096^2 in FP8 on an H200 attention takes 153 ms for about 1,950 pairs a token, all the rest 810 ms (java/NOTES.md).
constexpr std::int64_t kOwnWork = 10'000;

struct Window {
    std::size_t end;  // of its tiles
    std::int64_t work;
};

// Where each shard's windows end: beside the window at which its share of all work does, but a window for each.
std::vector<std::size_t> share_out(const std::vector<Window>& windows, std::size_t shards) {
    double all = 0;
    for (const Window& window : windows) {
        all += static_cast<double>(window.work);
    }
    std::vector<std::size_t> ends;
    std::size_t end = 0;
    double done = 0;
    for (std::size_t shard = 1; shard < shards; ++shard) {
        const double goal = all * static_cast<double>(shard) / static_cast<double>(shards);
        const std::size_t most = windows.size() - (shards - shard);
        do {
            done += static_cast<double>(windows[end++].work);
        } while (end < most && done + static_cast<double>(windows[end].work) / 2 <= goal);
        ends.push_back(end);
    }
    ends.push_back(windows.size());
    return ends;
}

}  // namespace

Geometry::TileSpan Geometry::image_tiles() const {
    const auto end_of = [&](std::int32_t stream) {
        const auto beyond =
            std::ranges::find_if(tiles_, [&](const scaledit_tile& tile) { return tile.stream > stream; });
        return static_cast<std::size_t>(beyond - tiles_.begin());
    };
    return {end_of(SCALEDIT_TEXT), end_of(SCALEDIT_IMAGE)};
}

Geometry::TileSpan Geometry::own_tiles(std::int32_t shards, std::int32_t index) const {
    const TileSpan image = image_tiles();
    const std::int32_t side = window_ / kCellSide;  // cells
    std::vector<Window> windows;
    for (std::size_t tile = image.first; tile < image.end; ++tile) {
        const scaledit_tile& now = tiles_[tile];
        const scaledit_tile& before = tiles_[std::max(image.first + 1, tile) - 1];
        if (windows.empty() || now.row / side != before.row / side || now.column / side != before.column / side) {
            windows.push_back({tile, 0});
        }
        windows.back().end = tile + 1;
        windows.back().work +=
            now.tokens * (key_tokens(static_cast<std::int64_t>(tile)) + info_.text_tokens + kOwnWork);
    }
    const auto most = static_cast<std::int64_t>(windows.size());
    expect(1 <= shards && shards <= most, "shards", shards, "1 to " + to_text(most) + ", one for each window");
    expect(0 <= index && index < shards, "index", index, "0 to " + to_text(shards - 1));
    const std::vector<std::size_t> ends = share_out(windows, static_cast<std::size_t>(shards));
    const auto end_of = [&](std::int32_t shard) { return windows[ends[static_cast<std::size_t>(shard)] - 1].end; };
    return {index == 0 ? image.first : end_of(index - 1), end_of(index)};
}

// Image tiles that tiles of the shard attend to and that it does not own, ascending.
std::vector<std::size_t> Geometry::imported_tiles(TileSpan own) const {
    const TileSpan image = image_tiles();
    std::vector<bool> named(tiles_.size());
    for (std::size_t tile = own.first; tile < own.end; ++tile) {
        for (const scaledit_tile_range& range : ranges(static_cast<std::int64_t>(tile))) {
            const auto first = named.begin() + range.first;
            std::fill(first, first + range.count, true);
        }
    }
    std::vector<std::size_t> imported;
    for (std::size_t tile = image.first; tile < image.end; ++tile) {
        if (named[tile] && !own.has(tile)) {
            imported.push_back(tile);
        }
    }
    return imported;
}

Geometry Geometry::shard(std::int32_t shards, std::int32_t index) const {
    if (!whole_) {
        fail_invalid("geometry is a shard's, expected a whole picture's");
    }
    const TileSpan image = image_tiles();
    const TileSpan own = own_tiles(shards, index);
    std::vector<std::size_t> sources;  // the tile of the whole picture that each of the shard's is
    for (std::size_t tile = 0; tile < tiles_.size(); ++tile) {
        if (own.has(tile) || !image.has(tile)) {
            sources.push_back(tile);
        }
    }
    const std::size_t queries = sources.size();
    const std::vector<std::size_t> imported = imported_tiles(own);
    sources.insert(sources.end(), imported.begin(), imported.end());

    Geometry shard;
    shard.window_ = window_;
    shard.whole_ = false;
    shard.info_ = info_;
    shard.info_.first_image = tiles_[own.first].first - info_.text_tokens;
    shard.info_.image_tokens = 0;
    shard.info_.pairs = 0;
    std::vector<std::int32_t> numbers(tiles_.size());  // in the shard, of those that are there
    for (std::size_t tile = 0; tile < sources.size(); ++tile) {
        scaledit_tile copy = tiles_[sources[tile]];
        const auto first = order_.begin() + copy.first;
        copy.first = static_cast<std::int64_t>(shard.order_.size());
        shard.order_.insert(shard.order_.end(), first, first + copy.tokens);
        shard.tiles_.push_back(copy);
        numbers[sources[tile]] = static_cast<std::int32_t>(tile);
        if (copy.stream == SCALEDIT_IMAGE) {
            (tile < queries ? shard.info_.image_tokens : shard.info_.imported_tokens) += copy.tokens;
        }
    }
    shard.info_.tokens = static_cast<std::int64_t>(shard.order_.size());
    shard.info_.tiles = static_cast<std::int64_t>(shard.tiles_.size());

    shard.offsets_.push_back(0);
    std::vector<scaledit_tile_range> found;
    for (std::size_t tile = 0; tile < sources.size(); ++tile) {
        found.clear();
        const bool text = shard.tiles_[tile].stream == SCALEDIT_TEXT;
        const auto listed =
            tile < queries ? ranges(static_cast<std::int64_t>(sources[tile])) : std::span<const scaledit_tile_range>();
        for (const scaledit_tile_range& range : listed) {
            for (std::int32_t i = 0; i < range.count; ++i) {
                const auto key = static_cast<std::size_t>(range.first) + static_cast<std::size_t>(i);
                if (!text || own.has(key) || (index == 0 && !image.has(key))) {
                    found.push_back({numbers[key], 1});
                }
            }
        }
        shard.append_ranges(found);
    }
    shard.info_.ranges = static_cast<std::int64_t>(shard.ranges_.size());
    shard.build_schedule();
    return shard;
}

}  // namespace scaledit
