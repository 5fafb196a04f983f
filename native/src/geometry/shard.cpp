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

// Where each shard's things end, given the work of each: beside the one at which its part of all work does, but with
// `least` for each.
std::vector<std::size_t> cut(const std::vector<std::int64_t>& work, std::size_t shards, std::size_t least) {
    double all = 0;
    for (const std::int64_t of_one : work) {
        all += static_cast<double>(of_one);
    }
    std::vector<std::size_t> ends;
    std::size_t end = 0;
    double done = 0;
    for (std::size_t shard = 1; shard <= shards; ++shard) {
        const double goal = all * static_cast<double>(shard) / static_cast<double>(shards);
        const std::size_t fewest = end + least;
        const std::size_t most = work.size() - (shards - shard) * least;
        const auto next = [&] { return static_cast<double>(work[end]); };
        while (end < fewest || (end < most && (shard == shards || done + next() / 2 <= goal))) {
            done += next();
            ++end;
        }
        ends.push_back(end);
    }
    return ends;
}

}  // namespace

// Where the tiles of a stream end.
std::size_t Geometry::end_of_stream(std::int32_t stream) const {
    const auto beyond = std::ranges::find_if(tiles_, [&](const scaledit_tile& tile) { return tile.stream > stream; });
    return static_cast<std::size_t>(beyond - tiles_.begin());
}

// Windows of the image, and tiles of the guidance image. Throws Error when there are fewer windows than shards.
std::vector<Geometry::Share> Geometry::share_out(std::int32_t shards) const {
    const std::size_t image = end_of_stream(SCALEDIT_TEXT);
    const std::size_t guidance = end_of_stream(SCALEDIT_IMAGE);
    const auto work = [&](std::size_t tile) {
        const std::int64_t asked_by = tile < guidance ? info_.text_tokens : 0;
        return tiles_[tile].tokens * (key_tokens(static_cast<std::int64_t>(tile)) + asked_by + kOwnWork);
    };
    const std::int32_t side = window_ / kCellSide;  // cells
    std::vector<std::size_t> window_ends;
    std::vector<std::int64_t> window_work;
    for (std::size_t tile = image; tile < guidance; ++tile) {
        const scaledit_tile& now = tiles_[tile];
        const scaledit_tile& before = tiles_[std::max(image + 1, tile) - 1];
        if (tile == image || now.row / side != before.row / side || now.column / side != before.column / side) {
            window_ends.push_back(tile);
            window_work.push_back(0);
        }
        window_ends.back() = tile + 1;
        window_work.back() += work(tile);
    }
    const auto most = static_cast<std::int64_t>(window_ends.size());
    expect(1 <= shards && shards <= most, "shards", shards, "1 to " + to_text(most) + ", one for each window");

    std::vector<std::int64_t> guidance_work;
    for (std::size_t tile = guidance; tile < tiles_.size(); ++tile) {
        guidance_work.push_back(work(tile));
    }
    const auto count = static_cast<std::size_t>(shards);
    const std::vector<std::size_t> of_image = cut(window_work, count, 1);
    const std::vector<std::size_t> of_guidance = cut(guidance_work, count, 0);
    std::vector<Share> shares;
    Share next{{image, image}, {guidance, guidance}};
    for (std::size_t shard = 0; shard < count; ++shard) {
        next.image = {next.image.end, window_ends[of_image[shard] - 1]};
        next.guidance = {next.guidance.end, guidance + of_guidance[shard]};
        shares.push_back(next);
    }
    return shares;
}

// Image and guidance tiles that tiles of the shard attend to and that it does not own: shard by shard, ascending.
std::vector<std::size_t> Geometry::imported_tiles(const std::vector<Share>& shares, const Share& own) const {
    std::vector<bool> named(tiles_.size());
    for (const TileSpan& queries : {own.image, own.guidance}) {
        for (std::size_t tile = queries.first; tile < queries.end; ++tile) {
            for (const scaledit_tile_range& range : ranges(static_cast<std::int64_t>(tile))) {
                const auto first = named.begin() + range.first;
                std::fill(first, first + range.count, true);
            }
        }
    }
    std::vector<std::size_t> imported;
    for (const Share& owner : shares) {
        for (const TileSpan& owned : {owner.image, owner.guidance}) {
            for (std::size_t tile = owned.first; tile < owned.end; ++tile) {
                if (named[tile] && !own.has(tile)) {
                    imported.push_back(tile);
                }
            }
        }
    }
    return imported;
}

Geometry Geometry::shard(std::int32_t shards, std::int32_t index) const {
    if (!whole_) {
        fail_invalid("geometry is a shard's, expected a whole picture's");
    }
    const std::vector<Share> shares = share_out(shards);
    expect(0 <= index && index < shards, "index", index, "0 to " + to_text(shards - 1));
    const Share& own = shares[static_cast<std::size_t>(index)];
    const std::size_t text_end = end_of_stream(SCALEDIT_TEXT);
    std::vector<std::size_t> sources;  // the tile of the whole picture that each of the shard's is
    for (std::size_t tile = 0; tile < tiles_.size(); ++tile) {
        if (tile < text_end || own.has(tile)) {
            sources.push_back(tile);
        }
    }
    const std::size_t queries = sources.size();
    const std::vector<std::size_t> imported = imported_tiles(shares, own);
    sources.insert(sources.end(), imported.begin(), imported.end());

    Geometry shard;
    shard.window_ = window_;
    shard.whole_ = false;
    shard.info_ = info_;
    shard.info_.first_image = tokens_before(own.image.first) - info_.text_tokens;
    shard.info_.first_guidance = tokens_before(own.guidance.first) - info_.text_tokens - info_.image_tokens;
    shard.info_.image_tokens = 0;
    shard.info_.guidance_tokens = 0;
    shard.info_.pairs = 0;
    std::vector<std::int32_t> numbers(tiles_.size());  // in the shard, of those that are there
    for (std::size_t tile = 0; tile < sources.size(); ++tile) {
        scaledit_tile copy = tiles_[sources[tile]];
        const auto first = order_.begin() + copy.first;
        copy.first = static_cast<std::int64_t>(shard.order_.size());
        shard.order_.insert(shard.order_.end(), first, first + copy.tokens);
        shard.tiles_.push_back(copy);
        numbers[sources[tile]] = static_cast<std::int32_t>(tile);
        if (tile >= queries) {
            shard.info_.imported_tokens += copy.tokens;
        } else if (copy.stream == SCALEDIT_IMAGE) {
            shard.info_.image_tokens += copy.tokens;
        } else if (copy.stream == SCALEDIT_GUIDANCE) {
            shard.info_.guidance_tokens += copy.tokens;
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
                if (!text || own.image.has(key) || (index == 0 && key < text_end)) {
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
