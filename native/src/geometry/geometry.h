// Token geometry of one picture: grids, Hilbert order, cells, and which tiles each tile attends to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit {

// Which tiles each tile meets, as ascending ranges that do not touch, and the order in which to take the tiles: those
// with most to do first.
struct TileLists {
    std::span<const std::int64_t> offsets;  // [tiles + 1]
    std::span<const scaledit_tile_range> ranges;
    std::span<const std::int32_t> schedule;  // [tiles that meet any]

    [[nodiscard]] std::span<const scaledit_tile_range> ranges_of(std::int64_t tile) const {
        const auto t = static_cast<std::size_t>(tile);
        const auto first = static_cast<std::size_t>(offsets[t]);
        return ranges.subspan(first, static_cast<std::size_t>(offsets[t + 1]) - first);
    }
};

class Geometry {
public:
    // Throws Error (SCALEDIT_INVALID_ARGUMENT) when the options cannot be met.
    explicit Geometry(const scaledit_geometry_options& options);

    // The geometry of one shard of the picture: see scaledit_geometry_shard(). Throws Error
    // (SCALEDIT_INVALID_ARGUMENT) when there are fewer windows than shards, or when this is a shard itself.
    [[nodiscard]] Geometry shard(std::int32_t shards, std::int32_t index) const;

    [[nodiscard]] const scaledit_geometry_info& info() const { return info_; }

    // Tiles in the order of memory.
    [[nodiscard]] std::span<const scaledit_tile> tiles() const { return tiles_; }

    // For each query tile the key tiles that it attends to.
    [[nodiscard]] TileLists keys() const { return {offsets_, ranges_, schedule_}; }

    // The tiles that query tile `tile` attends to.
    [[nodiscard]] std::span<const scaledit_tile_range> ranges(std::int64_t tile) const {
        return keys().ranges_of(tile);
    }

    [[nodiscard]] std::span<const scaledit_tile_range> all_ranges() const { return ranges_; }
    [[nodiscard]] std::span<const std::int64_t> offsets() const { return offsets_; }

    // Query tiles that have keys, most keys first.
    [[nodiscard]] std::span<const std::int32_t> schedule() const { return schedule_; }

    // How many tokens the tiles of a range have.
    [[nodiscard]] std::int64_t tokens_of(const scaledit_tile_range& range) const;

    // Raster index of the token at each position of the sequence.
    [[nodiscard]] std::span<const std::int64_t> order() const { return order_; }

private:
    // Tiles first ... end - 1.
    struct TileSpan {
        std::size_t first;
        std::size_t end;

        [[nodiscard]] bool has(std::size_t tile) const { return first <= tile && tile < end; }
    };

    Geometry() = default;

    // What a shard owns.
    struct Share {
        TileSpan image;
        TileSpan guidance;

        [[nodiscard]] bool has(std::size_t tile) const { return image.has(tile) || guidance.has(tile); }
    };

    [[nodiscard]] std::size_t end_of_stream(std::int32_t stream) const;
    [[nodiscard]] std::vector<Share> share_out(std::int32_t shards) const;
    [[nodiscard]] std::vector<std::size_t> imported_tiles(const std::vector<Share>& shares, const Share& own) const;
    void lay_out_text(std::int64_t tokens);
    void append_ranges(std::vector<scaledit_tile_range>& found);
    void build_schedule();
    [[nodiscard]] std::int64_t key_tokens(std::int64_t tile) const;
    [[nodiscard]] std::int64_t tokens_before(std::size_t tile) const;

    scaledit_geometry_info info_{};
    std::int32_t window_ = 0;  // tokens along a side
    bool whole_ = true;
    std::vector<scaledit_tile> tiles_;
    std::vector<std::int64_t> offsets_;
    std::vector<scaledit_tile_range> ranges_;
    std::vector<std::int32_t> schedule_;
    std::vector<std::int64_t> order_;
};

}  // namespace scaledit
