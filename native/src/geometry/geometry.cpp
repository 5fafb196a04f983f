#include "geometry/geometry.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "error.h"
#include "geometry/cell_grid.h"
#include "geometry/mask.h"

namespace scaledit {
namespace {

constexpr std::int64_t kMaxTextTokens = 65536;
constexpr std::int64_t kMaxSide = 4096;  // tokens: 65,536 pixels
constexpr std::int32_t kTextTileTokens = 64;

void check(const scaledit_geometry_options& options) {
    const auto in = [](std::int64_t value, std::int64_t low, std::int64_t high) {
        return low <= value && value <= high;
    };
    const auto one_of = [](std::int32_t value, auto... allowed) { return ((value == allowed) || ...); };
    expect(in(options.text_tokens, 0, kMaxTextTokens), "text_tokens", options.text_tokens, "0 to 65536");
    expect(in(options.image_width, 1, kMaxSide), "image_width", options.image_width, "1 to 4096 tokens");
    expect(in(options.image_height, 1, kMaxSide), "image_height", options.image_height, "1 to 4096 tokens");
    expect(one_of(options.ratio, 0, 1, 2, 4, 8), "ratio", options.ratio, "1, 2, 4 or 8, or 0 for no guidance tokens");
    expect(one_of(options.window, 16, 32, 64), "window", options.window, "16, 32 or 64 tokens");
    expect(options.reach >= 0, "reach", options.reach, "0 or more cells");
    expect(options.guidance_margin >= 0, "guidance_margin", options.guidance_margin, "0 or more guidance tokens");
    expect(
        one_of(options.guidance_attention, SCALEDIT_GUIDANCE_GLOBAL, SCALEDIT_GUIDANCE_LOCAL, SCALEDIT_GUIDANCE_NONE),
        "guidance_attention", options.guidance_attention, "0 (global), 1 (local) or 2 (none)");
    expect(one_of(options.guidance_without_text, 0, 1), "guidance_without_text", options.guidance_without_text,
           "0 or 1");
}

std::int64_t guidance_side(std::int64_t image_side, std::int32_t ratio) {
    return ratio == 0 ? 0 : (image_side + ratio - 1) / ratio;
}

}  // namespace

Geometry::Geometry(const scaledit_geometry_options& options) {
    check(options);
    window_ = options.window;
    info_.text_tokens = options.text_tokens;
    info_.image_tokens = options.image_width * options.image_height;
    info_.guidance_width = guidance_side(options.image_width, options.ratio);
    info_.guidance_height = guidance_side(options.image_height, options.ratio);
    info_.guidance_tokens = info_.guidance_width * info_.guidance_height;
    info_.tokens = info_.text_tokens + info_.image_tokens + info_.guidance_tokens;

    order_.reserve(static_cast<std::size_t>(info_.tokens));
    lay_out_text(options.text_tokens);
    const auto text_tiles = static_cast<std::int32_t>(tiles_.size());
    const CellGrid image(SCALEDIT_IMAGE, options.image_width, options.image_height, options.window, tiles_, order_);
    const CellGrid guidance(SCALEDIT_GUIDANCE, info_.guidance_width, info_.guidance_height, options.window, tiles_,
                            order_);
    info_.tiles = static_cast<std::int64_t>(tiles_.size());

    const Mask mask(options, text_tiles, image, guidance);
    std::vector<scaledit_tile_range> found;
    offsets_.reserve(tiles_.size() + 1);
    offsets_.push_back(0);
    for (const scaledit_tile& query : tiles_) {
        found.clear();
        mask.append_keys(query, found);
        append_ranges(found);
    }
    info_.ranges = static_cast<std::int64_t>(ranges_.size());
    build_schedule();
}

void Geometry::lay_out_text(std::int64_t tokens) {
    order_.resize(static_cast<std::size_t>(tokens));
    std::iota(order_.begin(), order_.end(), std::int64_t{0});
    for (std::int64_t first = 0; first < tokens; first += kTextTileTokens) {
        const auto count = static_cast<std::int32_t>(std::min<std::int64_t>(kTextTileTokens, tokens - first));
        tiles_.push_back({first, count, SCALEDIT_TEXT, static_cast<std::int32_t>(tiles_.size()), 0});
    }
}

// Appends the next query tile's ranges: those found, in ascending order, with the ones that touch or overlap joined.
void Geometry::append_ranges(std::vector<scaledit_tile_range>& found) {
    std::erase_if(found, [](const scaledit_tile_range& range) { return range.count == 0; });
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto begin = ranges_.size();
    for (const scaledit_tile_range& range : found) {
        if (ranges_.size() > begin && range.first <= ranges_.back().first + ranges_.back().count) {
            scaledit_tile_range& last = ranges_.back();
            last.count = std::max(last.first + last.count, range.first + range.count) - last.first;
        } else {
            ranges_.push_back(range);
        }
    }
    offsets_.push_back(static_cast<std::int64_t>(ranges_.size()));
}

// Orders the query tiles that have keys by the number of these, and counts the pairs on the way.
void Geometry::build_schedule() {
    std::vector<std::int64_t> keys(tiles_.size());
    for (std::size_t tile = 0; tile < tiles_.size(); ++tile) {
        keys[tile] = key_tokens(static_cast<std::int64_t>(tile));
        info_.pairs += keys[tile] * tiles_[tile].tokens;
    }
    for (std::size_t tile = 0; tile < tiles_.size(); ++tile) {
        if (keys[tile] > 0) {
            schedule_.push_back(static_cast<std::int32_t>(tile));
        }
    }
    info_.query_tiles = static_cast<std::int64_t>(schedule_.size());
    std::stable_sort(schedule_.begin(), schedule_.end(), [&](std::int32_t a, std::int32_t b) {
        return keys[static_cast<std::size_t>(a)] > keys[static_cast<std::size_t>(b)];
    });
}

std::int64_t Geometry::key_tokens(std::int64_t tile) const {
    std::int64_t keys = 0;
    for (const scaledit_tile_range& range : ranges(tile)) {
        keys += tokens_of(range);
    }
    return keys;
}

std::int64_t Geometry::tokens_of(const scaledit_tile_range& range) const {
    const auto first = static_cast<std::size_t>(range.first);
    return tokens_before(first + static_cast<std::size_t>(range.count)) - tokens_before(first);
}

// `tile` may be one past the last.
std::int64_t Geometry::tokens_before(std::size_t tile) const {
    return tile < tiles_.size() ? tiles_[tile].first : info_.tokens;
}

}  // namespace scaledit
