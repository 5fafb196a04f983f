// Token geometry of one picture: grids, Hilbert order, cells, and which tiles each tile attends to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit {

class Geometry {
public:
    // Throws Error (SCALEDIT_INVALID_ARGUMENT) when the options cannot be met.
    explicit Geometry(const scaledit_geometry_options& options);

    [[nodiscard]] const scaledit_geometry_info& info() const { return info_; }

    // Tiles in the order of memory.
    [[nodiscard]] std::span<const scaledit_tile> tiles() const { return tiles_; }

    // The tiles that query tile `tile` attends to, as ascending ranges that do not touch.
    [[nodiscard]] std::span<const scaledit_tile_range> ranges(std::int64_t tile) const {
        const auto t = static_cast<std::size_t>(tile);
        const auto first = static_cast<std::size_t>(offsets_[t]);
        return std::span(ranges_).subspan(first, static_cast<std::size_t>(offsets_[t + 1]) - first);
    }

    [[nodiscard]] std::span<const scaledit_tile_range> all_ranges() const { return ranges_; }
    [[nodiscard]] std::span<const std::int64_t> offsets() const { return offsets_; }

    // Query tiles that have keys, most keys first.
    [[nodiscard]] std::span<const std::int32_t> schedule() const { return schedule_; }

    // Raster index of the token at each position of the sequence.
    [[nodiscard]] std::span<const std::int64_t> order() const { return order_; }

private:
    void lay_out_text(std::int64_t tokens);
    void append_ranges(std::vector<scaledit_tile_range>& found);
    void build_schedule();
    [[nodiscard]] std::int64_t key_tokens(std::int64_t tile) const;

    scaledit_geometry_info info_{};
    std::vector<scaledit_tile> tiles_;
    std::vector<std::int64_t> offsets_;
    std::vector<scaledit_tile_range> ranges_;
    std::vector<std::int32_t> schedule_;
    std::vector<std::int64_t> order_;
};

}  // namespace scaledit
