// What the geometry half of the C ABI refuses, and how it says so; one geometry shared by threads.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "geometry_view.h"

namespace scaledit {
namespace {

constexpr std::int32_t kMostNegative = std::numeric_limits<std::int32_t>::min();

struct BadOption {
    std::function<void(scaledit_geometry_options&)> spoil;
    const char* message;
};

TEST(AbiGeometry, RefusesOptions) {
    using Options = scaledit_geometry_options;
    const std::vector<BadOption> cases = {
        {[](Options& o) { o.text_tokens = -1; }, "text_tokens is -1, expected 0 to 65536"},
        {[](Options& o) { o.text_tokens = 65537; }, "text_tokens is 65537, expected 0 to 65536"},
        {[](Options& o) { o.image_width = 0; }, "image_width is 0, expected 1 to 4096 tokens"},
        {[](Options& o) { o.image_width = 4097; }, "image_width is 4097, expected 1 to 4096 tokens"},
        {[](Options& o) { o.image_height = -5; }, "image_height is -5, expected 1 to 4096 tokens"},
        {[](Options& o) { o.image_height = std::numeric_limits<std::int64_t>::max(); },
         "image_height is 9223372036854775807, expected 1 to 4096 tokens"},
        {[](Options& o) { o.ratio = 3; }, "ratio is 3, expected 1, 2, 4 or 8, or 0 for no guidance tokens"},
        {[](Options& o) { o.ratio = 16; }, "ratio is 16, expected 1, 2, 4 or 8, or 0 for no guidance tokens"},
        {[](Options& o) { o.ratio = -4; }, "ratio is -4, expected 1, 2, 4 or 8, or 0 for no guidance tokens"},
        {[](Options& o) { o.window = 8; }, "window is 8, expected 16, 32 or 64 tokens"},
        {[](Options& o) { o.window = 0; }, "window is 0, expected 16, 32 or 64 tokens"},
        {[](Options& o) { o.reach = -1; }, "reach is -1, expected 0 or more cells"},
        {[](Options& o) { o.reach = kMostNegative; }, "reach is -2147483648, expected 0 or more cells"},
        {[](Options& o) { o.guidance_margin = -1; }, "guidance_margin is -1, expected 0 or more guidance tokens"},
        {[](Options& o) { o.guidance_attention = 3; },
         "guidance_attention is 3, expected 0 (global), 1 (local) or 2 (none)"},
        {[](Options& o) { o.guidance_without_text = 2; }, "guidance_without_text is 2, expected 0 or 1"},
    };
    for (const BadOption& bad : cases) {
        scaledit_geometry_options options = geometry_options(20, 30, 40);
        bad.spoil(options);
        int not_touched = 0;
        auto* geometry = reinterpret_cast<scaledit_geometry*>(&not_touched);
        EXPECT_EQ(scaledit_geometry_create(&options, &geometry), SCALEDIT_INVALID_ARGUMENT) << bad.message;
        EXPECT_STREQ(scaledit_last_error(), bad.message);
        EXPECT_EQ(geometry, nullptr);
    }
}

TEST(AbiGeometry, Defaults) {
    scaledit_geometry_options options;
    std::memset(&options, 0x5a, sizeof(options));
    ASSERT_EQ(scaledit_geometry_defaults(&options), SCALEDIT_OK);
    EXPECT_EQ(options.text_tokens, 0);
    EXPECT_EQ(options.image_width, 0);
    EXPECT_EQ(options.image_height, 0);
    EXPECT_EQ(options.ratio, 4);
    EXPECT_EQ(options.window, 16);
    EXPECT_EQ(options.reach, 1);
    EXPECT_EQ(options.guidance_margin, 3);
    EXPECT_EQ(options.guidance_attention, SCALEDIT_GUIDANCE_GLOBAL);
    EXPECT_EQ(options.guidance_without_text, 0);
}

TEST(AbiGeometry, RefusesNull) {
    const scaledit_geometry_options options = geometry_options(20, 30, 40);
    const GeometryHandle handle = make_geometry(options);
    const scaledit_geometry* const geometry = handle.get();
    scaledit_geometry* created = nullptr;
    scaledit_geometry_info info{};
    ASSERT_EQ(scaledit_geometry_describe(geometry, &info), SCALEDIT_OK);
    std::int64_t number = 0;
    std::int32_t index = 0;
    scaledit_tile tile{};
    scaledit_tile_range range{};

    const auto refused = [](scaledit_status status, const char* message) {
        EXPECT_EQ(status, SCALEDIT_INVALID_ARGUMENT);
        EXPECT_STREQ(scaledit_last_error(), message);
    };
    refused(scaledit_geometry_defaults(nullptr), "options is null, expected a scaledit_geometry_options");
    refused(scaledit_geometry_create(nullptr, &created), "options is null, expected a scaledit_geometry_options");
    refused(scaledit_geometry_create(&options, nullptr), "geometry is null, expected where to put the new geometry");

    const char* const no_geometry = "geometry is null, expected a geometry from scaledit_geometry_create";
    refused(scaledit_geometry_describe(nullptr, &info), no_geometry);
    refused(scaledit_geometry_order(nullptr, &number, 1), no_geometry);
    refused(scaledit_geometry_tiles(nullptr, &tile, 1), no_geometry);
    refused(scaledit_geometry_ranges(nullptr, &number, 1, &range, 1), no_geometry);
    refused(scaledit_geometry_schedule(nullptr, &index, 1), no_geometry);

    refused(scaledit_geometry_describe(geometry, nullptr), "info is null, expected a scaledit_geometry_info");
    refused(scaledit_geometry_order(geometry, nullptr, info.tokens), "order is null, expected an array");
    refused(scaledit_geometry_tiles(geometry, nullptr, info.tiles), "tiles is null, expected an array");
    refused(scaledit_geometry_ranges(geometry, nullptr, info.tiles + 1, &range, info.ranges),
            "offsets is null, expected an array");
    refused(scaledit_geometry_ranges(geometry, &number, info.tiles + 1, nullptr, info.ranges),
            "ranges is null, expected an array");
    refused(scaledit_geometry_schedule(geometry, nullptr, info.tiles), "schedule is null, expected an array");
    scaledit_geometry_destroy(nullptr);
}

// 20 x 30 tokens, 40 of text: 3 x 4 cells, 5 x 8 guidance tokens in one cell, one tile of text.
TEST(AbiGeometry, RefusesCountsAndWritesNothing) {
    const GeometryHandle handle = make_geometry(geometry_options(20, 30, 40));
    const scaledit_geometry* const geometry = handle.get();
    std::vector<std::int64_t> numbers(1000, -7);
    std::vector<std::int32_t> indices(1000, -7);
    std::vector<scaledit_tile> tiles(1000, {-7, -7, -7, -7, -7});
    std::vector<scaledit_tile_range> ranges(1000, {-7, -7});

    const auto refused = [](scaledit_status status, const std::string& message) {
        EXPECT_EQ(status, SCALEDIT_INVALID_ARGUMENT);
        EXPECT_EQ(scaledit_last_error(), message);
    };
    refused(scaledit_geometry_order(geometry, numbers.data(), 679), "count is 679, expected 680, one for each token");
    refused(scaledit_geometry_order(geometry, numbers.data(), 681), "count is 681, expected 680, one for each token");
    refused(scaledit_geometry_tiles(geometry, tiles.data(), 15), "count is 15, expected 14, one for each tile");
    refused(scaledit_geometry_tiles(geometry, tiles.data(), -14), "count is -14, expected 14, one for each tile");
    refused(scaledit_geometry_schedule(geometry, indices.data(), 0),
            "count is 0, expected 14, one for each query tile");

    scaledit_geometry_info info{};
    ASSERT_EQ(scaledit_geometry_describe(geometry, &info), SCALEDIT_OK);
    refused(scaledit_geometry_ranges(geometry, numbers.data(), 14, ranges.data(), info.ranges),
            "offset_count is 14, expected 15, one for each tile and one more");
    refused(scaledit_geometry_ranges(geometry, numbers.data(), 15, ranges.data(), info.ranges + 1),
            "range_count is " + std::to_string(info.ranges + 1) + ", expected " + std::to_string(info.ranges) +
                ", one for each range");

    EXPECT_EQ(std::count(numbers.begin(), numbers.end(), -7), 1000);
    EXPECT_EQ(std::count(indices.begin(), indices.end(), -7), 1000);
    EXPECT_TRUE(std::all_of(tiles.begin(), tiles.end(), [](const scaledit_tile& t) { return t.first == -7; }));
    EXPECT_TRUE(std::all_of(ranges.begin(), ranges.end(), [](const scaledit_tile_range& r) { return r.first == -7; }));
}

// 20 x 30 tokens are 2 x 2 windows.
TEST(AbiGeometry, RefusesShards) {
    const GeometryHandle whole = make_geometry(geometry_options(20, 30, 40));
    scaledit_geometry* shard = nullptr;
    ASSERT_EQ(scaledit_geometry_shard(whole.get(), 2, 1, &shard), SCALEDIT_OK);
    const GeometryHandle second(shard);

    int not_touched = 0;
    const auto refused = [&](const scaledit_geometry* geometry, std::int32_t shards, std::int32_t index,
                             const char* message) {
        shard = reinterpret_cast<scaledit_geometry*>(&not_touched);
        EXPECT_EQ(scaledit_geometry_shard(geometry, shards, index, &shard), SCALEDIT_INVALID_ARGUMENT);
        EXPECT_STREQ(scaledit_last_error(), message);
        EXPECT_EQ(shard, nullptr);
    };
    refused(whole.get(), 0, 0, "shards is 0, expected 1 to 4, one for each window");
    refused(whole.get(), 5, 0, "shards is 5, expected 1 to 4, one for each window");
    refused(whole.get(), kMostNegative, 0, "shards is -2147483648, expected 1 to 4, one for each window");
    refused(whole.get(), 3, 3, "index is 3, expected 0 to 2");
    refused(whole.get(), 3, -1, "index is -1, expected 0 to 2");
    refused(second.get(), 1, 0, "geometry is a shard's, expected a whole picture's");
    refused(nullptr, 1, 0, "geometry is null, expected a geometry from scaledit_geometry_create");
    EXPECT_EQ(scaledit_geometry_shard(whole.get(), 1, 0, nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_STREQ(scaledit_last_error(), "shard is null, expected where to put the new geometry");
}

TEST(AbiGeometry, MessageStaysUntilTheNextFailureOfTheThread) {
    scaledit_geometry_options options = geometry_options(0, 1);
    scaledit_geometry* geometry = nullptr;
    ASSERT_EQ(scaledit_geometry_create(&options, &geometry), SCALEDIT_INVALID_ARGUMENT);
    const std::string message = scaledit_last_error();
    make_geometry(geometry_options(1, 1));
    EXPECT_EQ(scaledit_last_error(), message) << "a success leaves it";
    std::thread([] { EXPECT_STREQ(scaledit_last_error(), "") << "another thread has its own"; }).join();
}

TEST(AbiGeometry, OneGeometryServesManyThreads) {
    const scaledit_geometry_options options = geometry_options(61, 47, 100);
    const GeometryHandle geometry = make_geometry(options);
    const GeometryView expected = view(options, geometry.get());

    std::array<GeometryView, 8> seen;
    std::array<std::string, 8> messages;
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < seen.size(); ++t) {
        threads.emplace_back([&, t] {
            for (int round = 0; round < 20; ++round) {
                seen[t] = view(options, geometry.get());
                std::int64_t order = 0;
                scaledit_geometry_order(geometry.get(), &order, static_cast<std::int64_t>(t));
                messages[t] = scaledit_last_error();
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    const auto same_range = [](const scaledit_tile_range& a, const scaledit_tile_range& b) {
        return a.first == b.first && a.count == b.count;
    };
    for (std::size_t t = 0; t < seen.size(); ++t) {
        EXPECT_EQ(seen[t].order, expected.order);
        EXPECT_EQ(seen[t].offsets, expected.offsets);
        EXPECT_EQ(seen[t].schedule, expected.schedule);
        EXPECT_TRUE(std::equal(seen[t].ranges.begin(), seen[t].ranges.end(), expected.ranges.begin(),
                               expected.ranges.end(), same_range));
        EXPECT_EQ(messages[t], "count is " + std::to_string(t) + ", expected " + std::to_string(expected.info.tokens) +
                                   ", one for each token");
    }
}

// Sanitizers reserve more addresses than any limit leaves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(AbiGeometryDeathTest, OutOfMemoryIsAStatus) {
    const auto build_with_little_memory = [] {
        const rlimit limit{100U << 20, 100U << 20};  // bytes; the order alone takes 134 MB
        const scaledit_geometry_options options = geometry_options(4096, 4096);
        scaledit_geometry* geometry = nullptr;
        const bool limited = setrlimit(RLIMIT_AS, &limit) == 0;
        const scaledit_status status = scaledit_geometry_create(&options, &geometry);
        std::fputs(scaledit_last_error(), stderr);
        std::_Exit(limited && geometry == nullptr ? status : -1);
    };
    EXPECT_EXIT(build_with_little_memory(), testing::ExitedWithCode(SCALEDIT_OUT_OF_MEMORY), "^out of memory$");
}
#endif

TEST(AbiGeometry, Version) { EXPECT_STREQ(scaledit_version(), SCALEDIT_VERSION); }

}  // namespace
}  // namespace scaledit
