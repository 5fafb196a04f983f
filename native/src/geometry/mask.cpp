#include "geometry/mask.h"

#include <algorithm>

namespace scaledit {
namespace {

Interval around(std::int64_t cell, std::int64_t reach) { return {cell - reach, cell + reach}; }

}  // namespace

void Mask::append_keys(const scaledit_tile& query, std::vector<scaledit_tile_range>& found) const {
    if (query.stream != SCALEDIT_GUIDANCE ||
        (options_.guidance_attention != SCALEDIT_GUIDANCE_NONE && options_.guidance_without_text == 0)) {
        found.push_back(text_);
    }
    if (query.stream == SCALEDIT_TEXT) {
        found.push_back(image_.all());
    } else if (query.stream == SCALEDIT_IMAGE) {
        image_.append(around(query.row, options_.reach), around(query.column, options_.reach), found);
        image_.append(own_window(query.row), own_window(query.column), found);
        if (options_.ratio != 0) {
            guidance_.append(guidance_region(query.row, options_.image_height),
                             guidance_region(query.column, options_.image_width), found);
        }
    } else if (options_.guidance_attention == SCALEDIT_GUIDANCE_GLOBAL) {
        found.push_back(guidance_.all());
    } else if (options_.guidance_attention == SCALEDIT_GUIDANCE_LOCAL) {
        guidance_.append(around(query.row, 1), around(query.column, 1), found);
    }
}

// Rows (or columns) of cells in the window of a cell.
Interval Mask::own_window(std::int32_t cell) const {
    const std::int32_t cells = options_.window / kCellSide;
    const std::int32_t first = cell / cells * cells;
    return {first, first + cells - 1};
}

// Rows (or columns) of guidance cells with a token that lies under an image cell or within the margin around it.
Interval Mask::guidance_region(std::int32_t cell, std::int64_t image_side) const {
    const std::int64_t first_token = std::int64_t{cell} * kCellSide;
    const std::int64_t last_token = std::min(first_token + kCellSide, image_side) - 1;
    const std::int64_t first = std::max<std::int64_t>(first_token / options_.ratio - options_.guidance_margin, 0);
    const std::int64_t last = last_token / options_.ratio + options_.guidance_margin;  // the grid's end cuts it off
    return {first / kCellSide, last / kCellSide};
}

}  // namespace scaledit
