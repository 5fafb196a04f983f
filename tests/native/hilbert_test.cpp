// The generalised Hilbert curve over grids of any size.
#include "geometry/hilbert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <utility>
#include <vector>

namespace scaledit {
namespace {

TEST(Hilbert, VisitsEveryPointOnceByNeighbours) {
    for (std::int32_t width = 1; width <= 40; ++width) {
        for (std::int32_t height = 1; height <= 40; ++height) {
            SCOPED_TRACE(testing::Message() << width << " x " << height);
            const std::vector<Point> path = hilbert_curve(width, height);
            ASSERT_EQ(path.size(), static_cast<std::size_t>(width * height));
            EXPECT_EQ(path.front(), (Point{0, 0}));

            std::set<std::pair<std::int32_t, std::int32_t>> seen;
            int diagonal_steps = 0;
            for (std::size_t i = 0; i < path.size(); ++i) {
                ASSERT_TRUE(0 <= path[i].x && path[i].x < width && 0 <= path[i].y && path[i].y < height);
                ASSERT_TRUE(seen.insert({path[i].x, path[i].y}).second) << "twice";
                if (i > 0) {
                    const Point step = path[i] - path[i - 1];
                    ASSERT_EQ(std::max(std::abs(step.x), std::abs(step.y)), 1);
                    diagonal_steps += step.x != 0 && step.y != 0;
                }
            }
            const auto [shorter, longer] = std::minmax(width, height);
            const bool needs_diagonal = longer % 2 == 1 && shorter % 2 == 0 && shorter > 2;
            EXPECT_EQ(diagonal_steps, needs_diagonal ? 1 : 0);
        }
    }
}

// Each quadrant of a square of side 2^k, and each quadrant of a quadrant, is one run of the curve.
TEST(Hilbert, QuadrantsAreRuns) {
    for (const std::int32_t side : {1, 2, 4, 8, 16, 32, 64}) {
        const std::vector<Point> path = hilbert_curve(side, side);
        EXPECT_EQ(path.back(), (Point{side - 1, 0}));
        for (std::int32_t quadrant = 1; quadrant <= side; quadrant *= 2) {
            const auto run = static_cast<std::size_t>(quadrant * quadrant);
            for (std::size_t i = 0; i < path.size(); ++i) {
                const Point first = path[i - i % run];
                ASSERT_EQ(path[i].x / quadrant, first.x / quadrant) << side << ", " << quadrant << ", " << i;
                ASSERT_EQ(path[i].y / quadrant, first.y / quadrant) << side << ", " << quadrant << ", " << i;
            }
        }
    }
}

TEST(Hilbert, OrderTwoIsHilbertsFigure) {
    const std::vector<Point> expected = {{0, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 3}, {1, 3}, {1, 2},
                                         {2, 2}, {2, 3}, {3, 3}, {3, 2}, {3, 1}, {2, 1}, {2, 0}, {3, 0}};
    EXPECT_EQ(hilbert_curve(4, 4), expected);
}

TEST(Hilbert, NothingToVisit) {
    EXPECT_TRUE(hilbert_curve(0, 0).empty());
    EXPECT_TRUE(hilbert_curve(0, 3).empty());
}

}  // namespace
}  // namespace scaledit
