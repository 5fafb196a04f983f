// Geometry through the C ABI: order in memory, tiles and, token by token, who attends to whom.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <numeric>
#include <ostream>
#include <random>
#include <span>
#include <vector>

#include "geometry/hilbert.h"
#include "geometry_view.h"
#include "token_mask.h"

namespace scaledit {
namespace {

// ---------------------------------------------------------------------------------------------------------------
// What holds for every geometry.

void expect_sizes(const GeometryView& v) {
    const scaledit_geometry_options& o = v.options;
    const std::int64_t w = o.ratio == 0 ? 0 : o.image_width / o.ratio + (o.image_width % o.ratio != 0);
    const std::int64_t h = o.ratio == 0 ? 0 : o.image_height / o.ratio + (o.image_height % o.ratio != 0);
    EXPECT_EQ(v.info.text_tokens, o.text_tokens);
    EXPECT_EQ(v.info.image_tokens, o.image_width * o.image_height);
    EXPECT_EQ(v.info.guidance_width, w);
    EXPECT_EQ(v.info.guidance_height, h);
    EXPECT_EQ(v.info.guidance_tokens, w * h);
    EXPECT_EQ(v.info.tokens, v.info.text_tokens + v.info.image_tokens + v.info.guidance_tokens);
}

// Each token is listed once, and text, image and guidance keep to their parts of the sequence.
void expect_permutation(const GeometryView& v) {
    std::vector<std::int64_t> sorted = v.order;
    const auto image = sorted.begin() + v.info.text_tokens;
    const auto guidance = image + v.info.image_tokens;
    EXPECT_TRUE(std::is_sorted(sorted.begin(), image)) << "text keeps its order";
    std::sort(image, guidance);
    std::sort(guidance, sorted.end());
    for (std::size_t p = 0; p < sorted.size(); ++p) {
        ASSERT_EQ(sorted[p], static_cast<std::int64_t>(p));
    }
}

// Tiles follow each other without gap, and hold the tokens of their cell and no other.
void expect_tiles(const GeometryView& v, const TokenMask& mask) {
    std::int64_t next = 0;
    for (std::size_t t = 0; t < v.tiles.size(); ++t) {
        const scaledit_tile& tile = v.tiles[t];
        ASSERT_EQ(tile.first, next);
        ASSERT_TRUE(1 <= tile.tokens && tile.tokens <= 64) << tile.tokens;
        next += tile.tokens;
        ASSERT_LE(next, v.info.tokens);
        for (std::int64_t p = tile.first; p < next; ++p) {
            const Token token = mask.token(v.order[static_cast<std::size_t>(p)]);
            ASSERT_EQ(tile.stream, token.stream);
            if (token.stream == SCALEDIT_TEXT) {
                ASSERT_EQ(tile.row, token.row / 64);
                ASSERT_EQ(tile.column, 0);
            } else {
                ASSERT_EQ(tile.row, token.row / 8);
                ASSERT_EQ(tile.column, token.column / 8);
            }
        }
    }
    EXPECT_EQ(next, v.info.tokens);

    // A whole cell is one tile: there are no more tiles than cells.
    const auto cells = [](std::int64_t width, std::int64_t height) { return ((width + 7) / 8) * ((height + 7) / 8); };
    EXPECT_EQ(v.info.tiles, (v.info.text_tokens + 63) / 64 + cells(v.options.image_width, v.options.image_height) +
                                cells(v.info.guidance_width, v.info.guidance_height));
}

// Ranges ascend without touching, so that a query tile lists each key tile at most once.
void expect_ranges(const GeometryView& v) {
    ASSERT_EQ(v.offsets.front(), 0);
    ASSERT_EQ(v.offsets.back(), v.info.ranges);
    for (std::size_t t = 0; t < v.tiles.size(); ++t) {
        const bool to_nobody =
            v.tiles[t].stream == SCALEDIT_GUIDANCE && v.options.guidance_attention == SCALEDIT_GUIDANCE_NONE;
        ASSERT_EQ(v.offsets[t] == v.offsets[t + 1], to_nobody);
        std::int64_t beyond = -1;
        for (std::int64_t r = v.offsets[t]; r < v.offsets[t + 1]; ++r) {
            const scaledit_tile_range& range = v.ranges[static_cast<std::size_t>(r)];
            ASSERT_GT(range.first, beyond);
            ASSERT_GE(range.count, 1);
            beyond = range.first + range.count;
            ASSERT_LE(beyond, v.info.tiles);
        }
    }
}

// For each position of the sequence, whether its token is a key of a query tile.
std::vector<char> listed_keys(const GeometryView& v, std::size_t tile) {
    std::vector<char> listed(v.order.size());
    for (std::int64_t r = v.offsets[tile]; r < v.offsets[tile + 1]; ++r) {
        const scaledit_tile_range& range = v.ranges[static_cast<std::size_t>(r)];
        for (std::int32_t k = range.first; k < range.first + range.count; ++k) {
            const scaledit_tile& key = v.tiles[static_cast<std::size_t>(k)];
            std::fill_n(listed.begin() + key.first, key.tokens, char{1});
        }
    }
    return listed;
}

void expect_mask(const GeometryView& v, const TokenMask& mask) {
    std::vector<Token> tokens;
    std::transform(v.order.begin(), v.order.end(), std::back_inserter(tokens),
                   [&](std::int64_t raster) { return mask.token(raster); });
    std::int64_t pairs = 0;
    for (std::size_t t = 0; t < v.tiles.size(); ++t) {
        const std::vector<char> listed = listed_keys(v, t);
        for (std::int64_t q = v.tiles[t].first; q < v.tiles[t].first + v.tiles[t].tokens; ++q) {
            const Token& query = tokens[static_cast<std::size_t>(q)];
            for (std::size_t k = 0; k < tokens.size(); ++k) {
                const Token& key = tokens[k];
                const bool attends = mask.attends(query, key);
                pairs += attends;
                if ((listed[k] != 0) != attends) {
                    FAIL() << (attends ? "not listed: " : "listed: ") << query << " attending to " << key;
                }
            }
        }
    }
    EXPECT_EQ(v.info.pairs, pairs);
}

std::int64_t key_tokens(const GeometryView& v, std::size_t tile) {
    const std::vector<char> listed = listed_keys(v, tile);
    return std::accumulate(listed.begin(), listed.end(), std::int64_t{0});
}

void expect_schedule(const GeometryView& v) {
    std::vector<std::int64_t> keys(v.tiles.size());
    for (std::size_t t = 0; t < keys.size(); ++t) {
        keys[t] = key_tokens(v, t);
    }
    std::vector<std::int32_t> expected;
    for (std::size_t t = 0; t < keys.size(); ++t) {
        if (keys[t] > 0) {
            expected.push_back(static_cast<std::int32_t>(t));
        }
    }
    EXPECT_EQ(v.info.query_tiles, static_cast<std::int64_t>(expected.size()));
    std::stable_sort(expected.begin(), expected.end(), [&](std::int32_t a, std::int32_t b) {
        return keys[static_cast<std::size_t>(a)] > keys[static_cast<std::size_t>(b)];
    });
    EXPECT_EQ(v.schedule, expected);
}

void expect_all(const scaledit_geometry_options& options) {
    const GeometryView v = view(options);
    const TokenMask mask(options, v.info);
    expect_sizes(v);
    expect_permutation(v);
    expect_tiles(v, mask);
    expect_ranges(v);
    expect_mask(v, mask);
    expect_schedule(v);
}

// ---------------------------------------------------------------------------------------------------------------
// The mask.

scaledit_geometry_options random_options(unsigned seed) {
    std::mt19937 random(seed);
    const auto pick = [&](auto... choices) {
        const std::array all{choices...};
        return all[std::uniform_int_distribution<std::size_t>(0, all.size() - 1)(random)];
    };
    const auto between = [&](int low, int high) { return std::uniform_int_distribution(low, high)(random); };
    return {.text_tokens = pick(0, 1, 63, 64, 65, between(2, 200)),
            .image_width = between(1, pick(8, 24, 40, 70)),  // more of the small ones, which cost less
            .image_height = between(1, pick(8, 24, 40, 70)),
            .ratio = pick(0, 1, 2, 4, 8),
            .window = pick(16, 32, 64),
            .reach = pick(0, 1, 2, 3, 9),
            .guidance_margin = pick(0, 1, 3, 8, 70),
            .guidance_attention = pick(0, 1, 2),
            .guidance_without_text = pick(0, 1)};
}

TEST(GeometryMask, RandomGrids) {
    for (unsigned seed = 0; seed < 240; ++seed) {
        const scaledit_geometry_options options = random_options(seed);
        SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << options);
        expect_all(options);
        if (HasFailure()) {
            return;  // one geometry at a time is enough to read
        }
    }
}

TEST(GeometryMask, Corners) {
    for (const std::int64_t width : {1, 70}) {
        for (const std::int64_t height : {1, 70}) {
            for (const std::int32_t ratio : {0, 1, 2, 4, 8}) {
                scaledit_geometry_options options = geometry_options(width, height, 3);
                options.ratio = ratio;
                SCOPED_TRACE(testing::Message() << options);
                expect_all(options);
            }
        }
    }
}

// Reach and margin beyond every grid are no more than the grid.
TEST(GeometryMask, UnlimitedReachAndMargin) {
    scaledit_geometry_options options = geometry_options(37, 29, 5);
    options.reach = options.guidance_margin = std::numeric_limits<std::int32_t>::max();
    const GeometryView v = view(options);
    // text: text and image; image: all; guidance: text and guidance
    EXPECT_EQ(v.info.pairs, 5 * (5 + 1073) + 1073 * (5 + 1073 + 80) + 80 * (5 + 80));
    expect_all(options);
}

struct Counts {
    std::int64_t width, height;
    std::int32_t ratio, reach;
    scaledit_guidance_attention guidance;
    std::int32_t margin;
    std::int64_t image_to_image, image_to_guidance, guidance_to_guidance, fewest_keys, most_keys;
};

// golden/masks/counts.json: pairs of each kind, text left out.
constexpr Counts kGoldenCounts[] = {
    {1, 1, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 1, 1, 1, 1, 2},
    {5, 7, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 1225, 140, 16, 4, 39},
    {16, 16, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 65536, 4096, 256, 16, 272},
    {17, 16, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 69888, 5440, 400, 20, 292},
    {37, 29, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 411985, 78416, 6400, 80, 656},
    {37, 29, 4, 0, SCALEDIT_GUIDANCE_GLOBAL, 3, 228225, 78416, 6400, 80, 336},
    {37, 29, 4, 2, SCALEDIT_GUIDANCE_GLOBAL, 3, 822641, 78416, 6400, 80, 1153},
    {37, 29, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 0, 411985, 61712, 6400, 80, 640},
    {100, 3, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 20304, 3996, 625, 25, 88},
    {3, 100, 2, 1, SCALEDIT_GUIDANCE_LOCAL, 3, 20304, 8784, 4240, 20, 104},
    {64, 64, 8, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 1982464, 262144, 4096, 64, 640},
    {64, 64, 1, 1, SCALEDIT_GUIDANCE_LOCAL, 3, 1982464, 1982464, 1982464, 256, 1152},
    {64, 64, 2, 2, SCALEDIT_GUIDANCE_LOCAL, 1, 4734976, 802816, 409600, 256, 1856},
    {49, 33, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 20, 683937, 189189, 13689, 117, 693},
    {80, 48, 4, 1, SCALEDIT_GUIDANCE_GLOBAL, 3, 1835008, 524288, 57600, 240, 768},
};

TEST(GeometryMask, GoldenCounts) {
    for (const Counts& golden : kGoldenCounts) {
        scaledit_geometry_options options = geometry_options(golden.width, golden.height);
        options.ratio = golden.ratio;
        options.reach = golden.reach;
        options.guidance_attention = golden.guidance;
        options.guidance_margin = golden.margin;
        SCOPED_TRACE(testing::Message() << options);

        const GeometryView v = view(options);
        std::array<std::array<std::int64_t, 3>, 3> pairs{};  // [query stream][key stream]
        std::int64_t fewest = v.info.tokens;
        std::int64_t most = 0;
        for (std::size_t t = 0; t < v.tiles.size(); ++t) {
            const std::vector<char> listed = listed_keys(v, t);
            const auto guidance = listed.begin() + v.info.image_tokens;
            const auto of_image = std::accumulate(listed.begin(), guidance, std::int64_t{0});
            const auto of_guidance = std::accumulate(guidance, listed.end(), std::int64_t{0});
            auto& row = pairs[static_cast<std::size_t>(v.tiles[t].stream)];
            row[SCALEDIT_IMAGE] += of_image * v.tiles[t].tokens;
            row[SCALEDIT_GUIDANCE] += of_guidance * v.tiles[t].tokens;
            fewest = std::min(fewest, of_image + of_guidance);
            most = std::max(most, of_image + of_guidance);
        }
        EXPECT_EQ(pairs[SCALEDIT_IMAGE][SCALEDIT_IMAGE], golden.image_to_image);
        EXPECT_EQ(pairs[SCALEDIT_IMAGE][SCALEDIT_GUIDANCE], golden.image_to_guidance);
        EXPECT_EQ(pairs[SCALEDIT_GUIDANCE][SCALEDIT_GUIDANCE], golden.guidance_to_guidance);
        EXPECT_EQ(fewest, golden.fewest_keys);
        EXPECT_EQ(most, golden.most_keys);
        EXPECT_EQ(v.info.pairs, golden.image_to_image + golden.image_to_guidance + golden.guidance_to_guidance);
    }
}

// 4096 x 4096 pixels, 512 text tokens, the default mask.
TEST(GeometryMask, WorkAt4096Pixels) {
    const GeometryView v = view(geometry_options(256, 256, 512));
    EXPECT_EQ(v.info.tokens, 70144);
    EXPECT_EQ(v.info.tiles, 8 + 1024 + 64);
    const std::int64_t text = 512 * (512 + 65536);
    const std::int64_t image_to_text = 65536 * 512;
    const std::int64_t image_to_image = (3 * 32 - 2) * (3 * 32 - 2) * 64 * 64;  // 3 x 3 cells, 2 x 2 in the corners
    const std::int64_t image_to_guidance = (4 * 1 + 28 * 2) * (4 * 1 + 28 * 2) * 64 * 64;  // 1 or 2 cells a side
    const std::int64_t guidance = 4096 * (512 + 4096);
    EXPECT_EQ(v.info.pairs, text + image_to_text + image_to_image + image_to_guidance + guidance);
}

TEST(GeometryMask, NoGuidance) {
    scaledit_geometry_options options = geometry_options(20, 20, 10);
    options.ratio = 0;
    const GeometryView v = view(options);
    EXPECT_EQ(v.info.guidance_tokens, 0);
    EXPECT_EQ(v.info.guidance_width, 0);
    EXPECT_EQ(v.info.guidance_height, 0);
    EXPECT_EQ(v.info.tokens, 410);
}

// The largest picture: 65,536 pixels a side, guided at its own size. Lists stay short.
TEST(GeometryMask, LargestPicture) {
    scaledit_geometry_options options = geometry_options(4096, 4096, 512);
    options.ratio = 1;
    const GeometryHandle geometry = make_geometry(options);
    scaledit_geometry_info info{};
    ASSERT_EQ(scaledit_geometry_describe(geometry.get(), &info), SCALEDIT_OK);
    EXPECT_EQ(info.tokens, 512 + 2 * 4096 * 4096);
    EXPECT_EQ(info.tiles, 8 + 2 * 512 * 512);
    EXPECT_LE(info.ranges, 19 * info.tiles) << "text, and at most 9 cells of each grid";
}

// ---------------------------------------------------------------------------------------------------------------
// The order in memory.

struct Position {
    std::int64_t x, y;
};

// Where the image's tokens are, in the order of memory. The geometry has no text.
std::vector<Position> image_path(const GeometryView& v) {
    std::vector<Position> path;
    for (std::int64_t p = 0; p < v.info.image_tokens; ++p) {
        const std::int64_t raster = v.order[static_cast<std::size_t>(p)];
        path.push_back({raster % v.options.image_width, raster / v.options.image_width});
    }
    return path;
}

std::int64_t distance(Position a, Position b) { return std::abs(a.x - b.x) + std::abs(a.y - b.y); }

// Of the smallest rectangle around tokens.
std::int64_t box_area(std::span<const Position> tokens) {
    Position low = tokens.front();
    Position high = tokens.front();
    for (const Position& token : tokens) {
        low = {std::min(low.x, token.x), std::min(low.y, token.y)};
        high = {std::max(high.x, token.x), std::max(high.y, token.y)};
    }
    return (high.x - low.x + 1) * (high.y - low.y + 1);
}

// Windows lie in memory one after the other, along the generalised Hilbert curve over the grid of windows; a window's
// halves, and its cells, are runs too, and inside a full window each token is beside the one before it.
TEST(GeometryOrder, WindowsAreRuns) {
    for (const std::int32_t window : {16, 32, 64}) {
        for (const auto& [width, height] : {Position{128, 128}, {70, 41}, {200, 130}, {16, 300}, {5, 3}, {192, 257}}) {
            scaledit_geometry_options options = geometry_options(width, height);
            options.window = window;
            SCOPED_TRACE(testing::Message() << options);
            const std::vector<Position> path = image_path(view(options));
            const std::vector<Point> windows = hilbert_curve(static_cast<std::int32_t>((width + window - 1) / window),
                                                             static_cast<std::int32_t>((height + window - 1) / window));
            std::size_t first = 0;
            for (const Point where : windows) {
                const Position low{std::int64_t{where.x} * window, std::int64_t{where.y} * window};
                const Position high{std::min(low.x + window, width), std::min(low.y + window, height)};
                const auto tokens = static_cast<std::size_t>((high.x - low.x) * (high.y - low.y));
                const bool full = tokens == static_cast<std::size_t>(window) * static_cast<std::size_t>(window);
                for (std::size_t p = first; p < first + tokens; ++p) {
                    const auto& [x, y] = path[p];
                    ASSERT_TRUE(low.x <= x && x < high.x && low.y <= y && y < high.y) << "position " << p;
                    ASSERT_TRUE(!full || p == first || distance(path[p], path[p - 1]) == 1) << "position " << p;
                }
                for (std::size_t run = 64; full && run <= tokens; run *= 2) {
                    for (std::size_t begin = first; begin < first + tokens; begin += run) {
                        ASSERT_EQ(box_area(std::span(path).subspan(begin, run)), static_cast<std::int64_t>(run))
                            << "no rectangle at " << begin;
                    }
                }
                first += tokens;
            }
            EXPECT_EQ(first, path.size());
        }
    }
}

// Where all windows are full the whole curve goes from neighbour to neighbour, from window to window too. The one
// exception is the outer curve's own: a longer side of an odd number of windows beside a shorter one of an even number.
TEST(GeometryOrder, TheCurveIsUnbroken) {
    for (std::int64_t columns = 1; columns <= 9; ++columns) {
        for (std::int64_t rows = 1; rows <= 9; ++rows) {
            const std::vector<Position> path = image_path(view(geometry_options(16 * columns, 16 * rows)));
            int jumps = 0;
            for (std::size_t p = 1; p < path.size(); ++p) {
                jumps += distance(path[p], path[p - 1]) != 1;
            }
            const auto [shorter, longer] = std::minmax(columns, rows);
            const bool needs_diagonal = longer % 2 == 1 && shorter % 2 == 0 && shorter > 2;
            EXPECT_EQ(jumps, needs_diagonal ? 1 : 0) << columns << " x " << rows << " windows";
        }
    }
}

// A square of 2^k windows is one Hilbert curve from end to end.
TEST(GeometryOrder, SquareIsHilbertCurve) {
    const std::vector<Position> path = image_path(view(geometry_options(128, 128)));
    for (std::int64_t side = 8; side <= 128; side *= 2) {
        const auto run = static_cast<std::size_t>(side * side);
        for (std::size_t p = 0; p < path.size(); ++p) {
            const Position& begin = path[p - p % run];
            ASSERT_EQ(path[p].x / side, begin.x / side);
            ASSERT_EQ(path[p].y / side, begin.y / side);
        }
    }
}

// The guidance grid is laid out as an image of its size is.
TEST(GeometryOrder, GuidanceIsOrderedAsAnImage) {
    const GeometryView guided = view(geometry_options(150, 93, 7));
    const GeometryView alone = view(geometry_options(38, 24));
    ASSERT_EQ(guided.info.guidance_tokens, alone.info.image_tokens);
    const std::int64_t first = guided.info.text_tokens + guided.info.image_tokens;
    for (std::int64_t p = 0; p < alone.info.image_tokens; ++p) {
        ASSERT_EQ(guided.order[static_cast<std::size_t>(first + p)], first + alone.order[static_cast<std::size_t>(p)]);
    }
}

}  // namespace
}  // namespace scaledit
