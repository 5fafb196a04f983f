// Hilbert curves over grids of any size.
#pragma once

#include <cstdint>
#include <vector>

namespace scaledit {

struct Point {
    std::int32_t x;
    std::int32_t y;

    friend bool operator==(Point, Point) = default;
    friend Point operator+(Point a, Point b) { return {a.x + b.x, a.y + b.y}; }
    friend Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
};

// Every point of a width x height grid once, beginning at (0, 0) and ending at the other end of the longer side. Each
// step leads to one of the four neighbours, but for one diagonal step where the longer side is odd and the shorter
// even: the colours of a chessboard allow no other walk between these corners. (With a shorter side of 2 the walk ends
// beside its corner instead.) Over a square of side 2^k this is the Hilbert curve of order k, which ends at (width - 1,
// 0): each quadrant, and each quadrant of a quadrant, is one run.
//
// The recursion is the generalised Hilbert curve of J. Cerveny, https://github.com/jakubcerveny/gilbert.
std::vector<Point> hilbert_curve(std::int32_t width, std::int32_t height);

}  // namespace scaledit
