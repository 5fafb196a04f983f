// What the GPU's kernels read of a geometry; none of it needs a GPU.
#include "cuda/device_geometry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/tile_pairs.h"
#include "geometry/geometry.h"
#include "geometry/query_lists.h"
#include "geometry_view.h"

namespace scaledit {
namespace {

template <typename Element>
std::vector<Element> part(const std::vector<std::byte>& block, std::size_t at, std::int64_t count) {
    std::vector<Element> elements(static_cast<std::size_t>(count));
    EXPECT_LE(at + elements.size() * sizeof(Element), block.size());
    std::memcpy(elements.data(), block.data() + at, elements.size() * sizeof(Element));
    return elements;
}

// The tiles that a tile meets.
std::vector<std::int32_t> met_by(const TileLists& lists, std::int32_t tile) {
    std::vector<std::int32_t> keys;
    for (const scaledit_tile_range& range : lists.ranges_of(tile)) {
        for (std::int32_t i = 0; i < range.count; ++i) {
            keys.push_back(range.first + i);
        }
    }
    return keys;
}

// How many tokens attend to each tile.
std::vector<std::int32_t> tokens_that_attend(const Geometry& geometry) {
    const auto tiles = geometry.tiles();
    std::vector<std::int32_t> attend(tiles.size());
    for (std::size_t query = 0; query < tiles.size(); ++query) {
        for (const std::int32_t key : met_by(geometry.keys(), static_cast<std::int32_t>(query))) {
            attend[static_cast<std::size_t>(key)] += tiles[query].tokens;
        }
    }
    return attend;
}

TEST(DeviceGeometry, HoldsTheSameTokensAsTheTileLists) {
    for (const auto& [width, height, text] : {std::tuple{37, 29, 77}, {1, 1, 0}, {64, 48, 512}, {200, 7, 1}}) {
        const Geometry geometry(geometry_options(width, height, text));
        const auto block = cuda::pack(geometry);
        const auto at = cuda::layout(geometry);
        ASSERT_EQ(block.size(), at.bytes);
        for (const std::size_t begin : {at.queries, at.keys, at.offsets, at.key_tokens, at.query_tokens, at.schedule,
                                        at.groups, at.runs, at.pairs, at.pair_runs, at.key_pairs, at.key_pair_runs}) {
            EXPECT_EQ(begin % 16, 0U);
        }
        const auto& info = geometry.info();
        const auto queries = part<cuda::TokenRange>(block, at.queries, info.tiles);
        const auto keys = part<cuda::TokenRange>(block, at.keys, info.ranges);
        const auto offsets = part<std::int32_t>(block, at.offsets, info.tiles + 1);
        const auto key_tokens = part<std::int32_t>(block, at.key_tokens, info.tiles);
        EXPECT_EQ(part<std::int32_t>(block, at.query_tokens, info.tiles), tokens_that_attend(geometry));
        const auto schedule = part<std::int32_t>(block, at.schedule, info.query_tiles);
        EXPECT_TRUE(std::ranges::equal(schedule, geometry.schedule()));
        std::int64_t pairs = 0;
        for (std::size_t tile = 0; tile < queries.size(); ++tile) {
            EXPECT_EQ(queries[tile].first, geometry.tiles()[tile].first);
            EXPECT_EQ(queries[tile].tokens, geometry.tiles()[tile].tokens);
            const std::int64_t pairs_before = pairs;
            const auto ranges = geometry.ranges(static_cast<std::int64_t>(tile));
            ASSERT_EQ(static_cast<std::size_t>(offsets[tile + 1] - offsets[tile]), ranges.size());
            for (std::size_t r = 0; r < ranges.size(); ++r) {
                const auto& range = keys[static_cast<std::size_t>(offsets[tile]) + r];
                const auto first_tile = static_cast<std::size_t>(ranges[r].first);
                EXPECT_EQ(range.first, geometry.tiles()[first_tile].first);
                pairs += std::int64_t{range.tokens} * queries[tile].tokens;
            }
            EXPECT_EQ(std::int64_t{key_tokens[tile]} * queries[tile].tokens, pairs - pairs_before);
        }
        EXPECT_EQ(pairs, info.pairs);
    }
}

// Every tile that attends to any is in one group, every key of a tile in one stage of its group, stages of two before
// those of one.
void expect_groups(const Geometry& geometry) {
    const cuda::GroupLists lists = cuda::group_tiles(geometry);
    std::vector<int> seen(geometry.tiles().size());
    EXPECT_LE(lists.long_groups, static_cast<std::int32_t>(lists.groups.size()));
    for (std::size_t g = 0; g < lists.groups.size(); ++g) {
        const cuda::TileGroup& group = lists.groups[g];
        std::vector<std::pair<std::int32_t, std::int32_t>> stages;
        std::vector<cuda::Successors> successors;
        std::vector<std::uint32_t> cells;
        for (std::int32_t r = group.runs_first; r < group.runs_end; ++r) {
            const cuda::KeyRun& run = lists.runs[static_cast<std::size_t>(r)];
            for (std::int32_t i = 0; i < run.stages; ++i) {
                stages.emplace_back(run.first + 2 * i, run.second < 0 ? -1 : run.second + 2 * i);
                successors.push_back(i + 1 < run.stages ? run.within : run.last);
                cells.push_back(run.cells);
            }
        }
        ASSERT_EQ(static_cast<std::int32_t>(stages.size()), group.stages);
        ASSERT_LE(group.stages - group.together, cuda::kMostApart);
        // The turns follow each other, and after the last comes query tile 0.
        std::uint32_t turn = 0;
        for (std::int32_t stage = 0; stage < group.stages; ++stage) {
            for (std::uint32_t i = 0; i < cuda::kGroupTiles; ++i) {
                if (group.tile[i] >= 0 &&
                    (stage < group.together || (group.apart[i] >> (stage - group.together) & 1U) != 0)) {
                    EXPECT_EQ(turn, i);
                    turn = successors[static_cast<std::size_t>(stage)] >> 2 * i & 3U;
                }
            }
        }
        EXPECT_EQ(turn, 0U);
        for (std::size_t i = 0; i < cuda::kGroupTiles; ++i) {
            const std::int32_t tile = group.tile[i];
            std::vector<std::int32_t> listed;
            std::int32_t halves = 0;
            std::int32_t whole = 0;
            for (std::int32_t stage = 0; stage < group.stages; ++stage) {
                const bool attends =
                    tile >= 0 && (stage < group.together || (group.apart[i] >> (stage - group.together) & 1U) != 0);
                EXPECT_EQ(attends, (cells[static_cast<std::size_t>(stage)] >> i & 1U) != 0);
                if (!attends) {
                    continue;
                }
                const auto& [first, second] = stages[static_cast<std::size_t>(stage)];
                listed.push_back(first);
                if (second < 0) {
                    ++halves;
                } else {
                    listed.push_back(second);
                    ++whole;
                    EXPECT_EQ(halves, 0);
                }
            }
            EXPECT_EQ(whole, group.whole[i]);
            EXPECT_EQ(halves, group.halves[i]);
            if (tile < 0) {
                EXPECT_EQ(group.apart[i], 0U);
                continue;
            }
            ++seen[static_cast<std::size_t>(tile)];
            EXPECT_EQ(geometry.tiles()[static_cast<std::size_t>(tile)].stream == SCALEDIT_IMAGE,
                      static_cast<std::int32_t>(g) >= lists.long_groups);
            std::sort(listed.begin(), listed.end());
            EXPECT_EQ(listed, met_by(geometry.keys(), tile));
        }
    }
    for (std::size_t tile = 0; tile < seen.size(); ++tile) {
        EXPECT_EQ(seen[tile], geometry.ranges(static_cast<std::int64_t>(tile)).empty() ? 0 : 1);
    }
}

TEST(DeviceGeometry, GroupsHoldTheSameKeysAsTheTileLists) {
    for (const auto& [width, height, text] :
         {std::tuple{37, 29, 77}, {1, 1, 0}, {64, 48, 512}, {200, 7, 1}, {9, 9, 0}, {200, 200, 3}}) {
        for (const std::int32_t reach : {0, 1, 3, 9, 4096}) {
            scaledit_geometry_options options = geometry_options(width, height, text);
            options.reach = reach;
            expect_groups(Geometry(options));
        }
    }
}

// Every tile that meets any is in one pair, all that a tile meets in one run of its pair, runs ascend.
void expect_pairs(const Geometry& geometry, const TileLists& tile_lists) {
    const cuda::PairLists lists = cuda::pair_tiles(geometry, tile_lists);
    std::vector<int> seen(geometry.tiles().size());
    std::int64_t before = std::numeric_limits<std::int64_t>::max();
    ASSERT_LE(lists.long_pairs, static_cast<std::int32_t>(lists.pairs.size()));
    for (std::size_t i = 0; i < lists.pairs.size(); ++i) {
        const cuda::TilePair& pair = lists.pairs[i];
        std::vector<std::int32_t> listed[cuda::kPairTiles];
        std::int32_t end = 0;
        std::int64_t met = 0;
        for (std::int32_t r = pair.runs_first; r < pair.runs_end; ++r) {
            const cuda::TileRun& run = lists.runs[static_cast<std::size_t>(r)];
            EXPECT_LE(end, run.first);
            EXPECT_LT(run.first, run.end);
            EXPECT_TRUE(1 <= run.cells && run.cells < 1U << cuda::kPairTiles);
            end = run.end;
            met += run.end - run.first;
            for (std::uint32_t cell = 0; cell < cuda::kPairTiles; ++cell) {
                for (std::int32_t tile = run.first; (run.cells >> cell & 1U) != 0 && tile < run.end; ++tile) {
                    listed[cell].push_back(tile);
                }
            }
        }
        for (std::size_t cell = 0; cell < cuda::kPairTiles; ++cell) {
            if (pair.tile[cell] < 0) {
                EXPECT_EQ(cell, 1U);
                EXPECT_TRUE(listed[cell].empty());
                continue;
            }
            const auto tile = static_cast<std::size_t>(pair.tile[cell]);
            ++seen[tile];
            EXPECT_EQ(geometry.tiles()[tile].stream == SCALEDIT_IMAGE,
                      static_cast<std::int32_t>(i) >= lists.long_pairs);
            EXPECT_EQ(listed[cell], met_by(tile_lists, pair.tile[cell]));
        }
        if (static_cast<std::int32_t>(i) < lists.long_pairs) {
            EXPECT_LE(met, before) << "the longest first";
            before = met;
        }
    }
    for (std::size_t tile = 0; tile < seen.size(); ++tile) {
        EXPECT_EQ(seen[tile], tile_lists.ranges_of(static_cast<std::int64_t>(tile)).empty() ? 0 : 1);
    }
}

TEST(DeviceGeometry, PairsHoldTheSameAsTheTileLists) {
    for (const auto& [width, height, text] :
         {std::tuple{37, 29, 77}, {1, 1, 0}, {64, 48, 512}, {200, 7, 1}, {9, 9, 0}}) {
        for (const std::int32_t reach : {0, 1, 3, 4096}) {
            for (const std::int32_t guidance :
                 {SCALEDIT_GUIDANCE_GLOBAL, SCALEDIT_GUIDANCE_LOCAL, SCALEDIT_GUIDANCE_NONE}) {
                scaledit_geometry_options options = geometry_options(width, height, text);
                options.reach = reach;
                options.guidance_attention = guidance;
                const Geometry geometry(options);
                expect_pairs(geometry, geometry.keys());
                const QueryLists queries(geometry);
                expect_pairs(geometry, queries.lists());
                for (std::size_t tile = 0; tile < geometry.tiles().size(); ++tile) {
                    // The kernels of gradients leave no key out.
                    EXPECT_FALSE(queries.lists().ranges_of(static_cast<std::int64_t>(tile)).empty());
                }
            }
        }
    }
}

// Where there is no guidance, image tiles that attend to nobody follow those that do. Where guidance attends to nobody,
// a shard may own some to which nobody in it attends.
TEST(DeviceGeometry, ListsHoldTheSameOfShards) {
    int unmet = 0;
    for (const auto& [width, height, text, ratio, guidance] :
         {std::tuple{37, 29, 77, 0, SCALEDIT_GUIDANCE_GLOBAL}, std::tuple{64, 48, 512, 4, SCALEDIT_GUIDANCE_GLOBAL},
          std::tuple{200, 7, 1, 0, SCALEDIT_GUIDANCE_GLOBAL}, std::tuple{24, 72, 0, 2, SCALEDIT_GUIDANCE_GLOBAL},
          std::tuple{36, 52, 13, 2, SCALEDIT_GUIDANCE_LOCAL}, std::tuple{78, 131, 0, 4, SCALEDIT_GUIDANCE_NONE},
          std::tuple{122, 152, 100, 2, SCALEDIT_GUIDANCE_NONE}}) {
        const Geometry whole(grid(width, height, text, ratio, 16, guidance));
        for (const std::int32_t shards : {1, 2, 3, 5}) {
            for (std::int32_t index = 0; index < shards; ++index) {
                const Geometry shard = whole.shard(shards, index);
                expect_groups(shard);
                expect_pairs(shard, shard.keys());
                expect_pairs(shard, QueryLists(shard).lists());
                const auto attend = tokens_that_attend(shard);
                EXPECT_EQ(part<std::int32_t>(cuda::pack(shard), cuda::layout(shard).query_tokens, shard.info().tiles),
                          attend);
                unmet += static_cast<int>(std::ranges::count(attend, 0));
            }
        }
    }
    EXPECT_GT(unmet, 0);
}

// Text attends to everything: few heads leave blocks waiting for it.
TEST(DeviceGeometry, SplitsTextWhereItWouldTakeLongest) {
    const auto split_of = [](std::int64_t width, std::int64_t height, std::int64_t text, std::int32_t heads) {
        return cuda::split(cuda::layout(Geometry(geometry_options(width, height, text))), heads);
    };
    EXPECT_EQ(split_of(256, 256, 512, 24).groups, 0);
    EXPECT_EQ(split_of(256, 256, 0, 1).groups, 22) << "without text guidance attends to most";
    const cuda::Split six = split_of(256, 256, 512, 6);
    EXPECT_EQ(six.groups, 3) << "512 tokens are 8 tiles";
    EXPECT_EQ(six.parts, 7) << "3 groups of 6 heads in 7 parts are 126 jobs for 132 multiprocessors";
    EXPECT_EQ(six.rows(), 3 * 7 * 3 * 64);
    EXPECT_GT(split_of(48, 40, 512, 3).parts, 1) << "as the tests on a GPU take for granted";
    EXPECT_GT(split_of(48, 40, 512, 2).parts, 1);
    for (const std::int32_t heads : {1, 2, 3, 24, 4096}) {
        for (const std::int64_t text : {1, 77, 512, 4096}) {
            const cuda::Split split = split_of(37, 29, text, heads);
            EXPECT_TRUE(split.groups == 0 || split.parts > 1);
            EXPECT_LE(std::int64_t{split.groups} * split.parts * heads, 132);
        }
    }
}

// The most stages that a query tile takes in one job of the kernel for Hoppers.
std::int32_t most_turns(const Geometry& geometry, std::int32_t heads) {
    const cuda::GroupLists lists = cuda::group_tiles(geometry);
    const cuda::Split split = cuda::split(cuda::layout(geometry), heads);
    std::int32_t most = 0;
    for (std::size_t g = 0; g < lists.groups.size(); ++g) {
        const cuda::TileGroup& group = lists.groups[g];
        for (std::size_t i = 0; i < cuda::kGroupTiles; ++i) {
            const std::int32_t turns = group.whole[i] + group.halves[i];
            most = std::max(most, static_cast<std::int32_t>(g) < split.groups ? turns / split.parts : turns);
        }
    }
    return most;
}

// As the tests on a GPU take for granted: sums of more than kFlushTurns are joined, those of parts too.
TEST(DeviceGeometry, HasLongRows) {
    EXPECT_EQ(most_turns(Geometry(grid(72, 64, 512, 4)), 24), 40);
    EXPECT_EQ(most_turns(Geometry(grid(96, 80, 512, 4)), 16), 32);
    EXPECT_GT(32, cuda::kFlushTurns);
    EXPECT_EQ(cuda::split(cuda::layout(Geometry(grid(72, 64, 512, 4))), 24).parts, 1);
    EXPECT_EQ(cuda::split(cuda::layout(Geometry(grid(96, 80, 512, 4))), 16).parts, 2);
}

TEST(DeviceGeometry, HoldsThePairs) {
    const Geometry geometry(geometry_options(37, 29, 77));
    const auto block = cuda::pack(geometry);
    const auto at = cuda::layout(geometry);
    const auto expect_held = [&](const TileLists& tile_lists, std::size_t pairs, std::size_t runs, std::int32_t count,
                                 std::int32_t long_pairs) {
        const cuda::PairLists lists = cuda::pair_tiles(geometry, tile_lists);
        ASSERT_EQ(count, static_cast<std::int32_t>(lists.pairs.size()));
        EXPECT_EQ(long_pairs, lists.long_pairs);
        EXPECT_EQ(std::memcmp(block.data() + pairs, lists.pairs.data(), lists.pairs.size() * sizeof(cuda::TilePair)),
                  0);
        EXPECT_EQ(std::memcmp(block.data() + runs, lists.runs.data(), lists.runs.size() * sizeof(cuda::TileRun)), 0);
    };
    expect_held(geometry.keys(), at.pairs, at.pair_runs, at.pair_count, at.long_pairs);
    expect_held(QueryLists(geometry).lists(), at.key_pairs, at.key_pair_runs, at.key_pair_count, at.long_key_pairs);
}

TEST(DeviceGeometry, IsAskedForBeforeAGpuIs) {
    const GeometryHandle geometry = make_geometry(geometry_options(37, 29, 77));
    std::size_t bytes = 0;
    ASSERT_EQ(scaledit_cuda_geometry_bytes(geometry.get(), &bytes), SCALEDIT_OK);
    EXPECT_EQ(bytes % 16, 0U);
    EXPECT_GT(bytes, 0U);
    EXPECT_EQ(scaledit_cuda_geometry_bytes(nullptr, &bytes), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_EQ(scaledit_cuda_geometry_bytes(geometry.get(), nullptr), SCALEDIT_INVALID_ARGUMENT);
    alignas(16) std::byte memory[16];
    EXPECT_EQ(scaledit_cuda_geometry_upload(geometry.get(), memory, sizeof(memory), nullptr),
              SCALEDIT_INVALID_ARGUMENT);
    EXPECT_NE(std::string(scaledit_last_error()).find("bytes is 16, expected at least"), std::string::npos);
    EXPECT_EQ(scaledit_cuda_geometry_upload(geometry.get(), memory + 1, bytes, nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_EQ(scaledit_cuda_geometry_upload(geometry.get(), nullptr, bytes, nullptr), SCALEDIT_INVALID_ARGUMENT);
    EXPECT_EQ(scaledit_cuda_attention(nullptr), SCALEDIT_INVALID_ARGUMENT);
}

#if !SCALEDIT_CUDA
TEST(DeviceGeometry, ABuildWithoutCudaSaysSo) {
    EXPECT_EQ(scaledit_cuda_supported(0), SCALEDIT_UNSUPPORTED);
    EXPECT_NE(std::string(scaledit_last_error()).find("has no CUDA"), std::string::npos) << scaledit_last_error();
}
#endif

}  // namespace
}  // namespace scaledit
