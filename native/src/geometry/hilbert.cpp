#include "geometry/hilbert.h"

#include <cstddef>
#include <cstdlib>

namespace scaledit {
namespace {

// Lengths and directions of a rectangle's sides; one coordinate of each is 0.
std::int32_t length(Point side) { return std::abs(side.x + side.y); }
Point direction(Point side) { return {(side.x > 0) - (side.x < 0), (side.y > 0) - (side.y < 0)}; }
Point half(Point side) { return {side.x / 2, side.y / 2}; }

// Half a side, rounded to an even length: a part of even length ends in the row in which it began.
Point even_half(Point side) {
    const bool odd = length(half(side)) % 2 != 0;
    return odd && length(side) > 2 ? half(side) + direction(side) : half(side);
}

void walk_line(Point start, Point side, std::vector<Point>& path) {
    for (std::int32_t step = 0; step < length(side); ++step, start = start + direction(side)) {
        path.push_back(start);
    }
}

// Walks the rectangle that `along` and `across` span at `start`, from `start` to the other end of `along`.
void walk(Point start, Point along, Point across, std::vector<Point>& path) {
    if (length(across) == 1) {
        walk_line(start, along, path);
    } else if (length(along) == 1) {
        walk_line(start, across, path);
    } else if (2 * length(along) > 3 * length(across)) {
        // Too long for Hilbert's figure: two shorter ones in a row.
        const Point first = even_half(along);
        walk(start, first, across, path);
        walk(start + first, along - first, across, path);
    } else {
        // Hilbert's figure: up one side, over to the other one, and down there.
        const Point up = even_half(across);
        const Point left = half(along);
        const Point summit = start + along - direction(along) + up - direction(across);
        walk(start, up, left, path);
        walk(start + up, along, across - up, path);
        walk(summit, Point{} - up, left - along, path);
    }
}

}  // namespace

std::vector<Point> hilbert_curve(std::int32_t width, std::int32_t height) {
    std::vector<Point> path;
    path.reserve(static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
    if (width == 0 || height == 0) {
        return path;
    }
    const Point right{width, 0};
    const Point down{0, height};
    width >= height ? walk({}, right, down, path) : walk({}, down, right, path);
    return path;
}

}  // namespace scaledit
