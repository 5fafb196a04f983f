// Who attends to whom, tile by tile: the table of the paper's scale-local attention.
#pragma once

#include <cstdint>
#include <vector>

#include "geometry/cell_grid.h"
#include "scaledit/scaledit.h"

namespace scaledit {

class Mask {
public:
    // `text_tiles` tiles of text come first in memory, then the image's cells, then those of the guidance image. Keeps
    // references to the grids.
    Mask(const scaledit_geometry_options& options, std::int32_t text_tiles, const CellGrid& image,
         const CellGrid& guidance)
        : options_(options), text_{0, text_tiles}, image_(image), guidance_(guidance) {}

    // Appends the tiles that `query` attends to, in any order and some of them more than once.
    void append_keys(const scaledit_tile& query, std::vector<scaledit_tile_range>& found) const;

private:
    [[nodiscard]] Interval own_window(std::int32_t cell) const;
    [[nodiscard]] Interval guidance_region(std::int32_t cell, std::int64_t image_side) const;

    const scaledit_geometry_options options_;
    const scaledit_tile_range text_;
    const CellGrid& image_;
    const CellGrid& guidance_;
};

}  // namespace scaledit
