#include "geometry/cell_grid.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "geometry/hilbert.h"

namespace scaledit {
namespace {

constexpr std::int32_t kCellTokens = kCellSide * kCellSide;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// A corner of a window.
struct Corner {
    bool right;
    bool bottom;
};

// How the curve passes through one window: in at a corner, out at one of the two neighbouring corners.
struct Passage {
    Corner entry;
    bool vertical;  // the exit lies below or above the entry, not beside it

    [[nodiscard]] Corner exit() const {
        return vertical ? Corner{entry.right, !entry.bottom} : Corner{!entry.right, entry.bottom};
    }

    // Turns a point of the curve that runs from the top left to the top right corner of a square.
    [[nodiscard]] Point turn(Point point, std::int32_t side) const {
        const Point turned = vertical ? Point{point.y, point.x} : point;
        return {entry.right ? side - 1 - turned.x : turned.x, entry.bottom ? side - 1 - turned.y : turned.y};
    }
};

// The passage that leaves at the side that faces the next window. A diagonal step counts as one to the side.
Passage pass(Corner entry, Point step) {
    const bool sideways = step.x != 0;
    const bool already_there = sideways ? entry.right == (step.x > 0) : entry.bottom == (step.y > 0);
    return {entry, sideways == already_there};
}

// The corner of the next window that is nearest to the exit of this one.
Corner enter(Corner exit, Point step) {
    return {step.x == 0 ? exit.right : step.x < 0, step.y == 0 ? exit.bottom : step.y < 0};
}

}  // namespace

CellGrid::CellGrid(scaledit_stream stream, std::int64_t width, std::int64_t height, std::int32_t window,
                   std::vector<scaledit_tile>& tiles, std::vector<std::int64_t>& order)
    : rows_(ceil_div(height, kCellSide)),
      columns_(ceil_div(width, kCellSide)),
      all_{static_cast<std::int32_t>(tiles.size()), static_cast<std::int32_t>(rows_ * columns_)},
      tile_of_cell_(static_cast<std::size_t>(rows_ * columns_)) {
    const auto raster_first = static_cast<std::int64_t>(order.size());

    // Appends the tokens of one cell, which are one run of the window's curve.
    const auto lay_cell = [&](Point origin, const Passage& passage, std::span<const Point> run) {
        const Point start = origin + passage.turn(run.front(), window);
        const std::int32_t row = start.y / kCellSide;
        const std::int32_t column = start.x / kCellSide;
        if (row >= rows_ || column >= columns_) {
            return;
        }
        const auto first = static_cast<std::int64_t>(order.size());
        for (const Point point : run) {
            const auto [x, y] = origin + passage.turn(point, window);
            if (x < width && y < height) {
                order.push_back(raster_first + y * width + x);
            }
        }
        const auto tokens = static_cast<std::int32_t>(static_cast<std::int64_t>(order.size()) - first);
        tile_of_cell_[static_cast<std::size_t>(row * columns_ + column)] = static_cast<std::int32_t>(tiles.size());
        tiles.push_back({first, tokens, stream, row, column});
    };

    const auto inside = hilbert_curve(window, window);
    const auto windows = hilbert_curve(static_cast<std::int32_t>(ceil_div(width, window)),
                                       static_cast<std::int32_t>(ceil_div(height, window)));
    Corner entry{};
    for (std::size_t i = 0; i < windows.size(); ++i) {
        const Point origin{windows[i].x * window, windows[i].y * window};
        const Point step = i + 1 < windows.size() ? windows[i + 1] - windows[i] : Point{1, 0};
        const Passage passage = pass(entry, step);
        for (std::size_t run = 0; run < inside.size(); run += kCellTokens) {
            lay_cell(origin, passage, std::span(inside).subspan(run, kCellTokens));
        }
        entry = enter(passage.exit(), step);
    }
}

void CellGrid::append(Interval rows, Interval columns, std::vector<scaledit_tile_range>& found) const {
    const Interval r{std::max<std::int64_t>(rows.first, 0), std::min(rows.last, rows_ - 1)};
    const Interval c{std::max<std::int64_t>(columns.first, 0), std::min(columns.last, columns_ - 1)};
    if (r.first == 0 && r.last == rows_ - 1 && c.first == 0 && c.last == columns_ - 1) {
        found.push_back(all_);
        return;
    }
    for (std::int64_t row = r.first; row <= r.last; ++row) {
        for (std::int64_t column = c.first; column <= c.last; ++column) {
            found.push_back({tile_of_cell_[static_cast<std::size_t>(row * columns_ + column)], 1});
        }
    }
}

}  // namespace scaledit
