// The cells of one stream's token grid and where they lie in memory.
#pragma once

#include <cstdint>
#include <vector>

#include "scaledit/scaledit.h"

namespace scaledit {

inline constexpr std::int32_t kCellSide = 8;  // tokens

// From first to last, both included.
struct Interval {
    std::int64_t first;
    std::int64_t last;
};

class CellGrid {
public:
    // Appends the grid's cells to `tiles` and the raster index of each of its tokens to `order`, both in the order of
    // memory: windows along a Hilbert curve over the grid of windows, tokens along a Hilbert curve inside a window. The
    // second curve is turned so that it begins beside the end of the window before, as far as windows are full. A grid
    // of 0 x 0 tokens is allowed.
    CellGrid(scaledit_stream stream, std::int64_t width, std::int64_t height, std::int32_t window,
             std::vector<scaledit_tile>& tiles, std::vector<std::int64_t>& order);

    // All tiles of the grid.
    [[nodiscard]] scaledit_tile_range all() const { return all_; }

    // Appends the tiles of the cells in these rows and columns, as far as they lie inside the grid.
    void append(Interval rows, Interval columns, std::vector<scaledit_tile_range>& found) const;

private:
    std::int64_t rows_;     // of cells
    std::int64_t columns_;  // of cells
    scaledit_tile_range all_{};
    std::vector<std::int32_t> tile_of_cell_;  // [rows, columns]
};

}  // namespace scaledit
