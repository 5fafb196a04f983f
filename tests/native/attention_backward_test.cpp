#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "attention_reference.h"
#include "backward_reference.h"
#include "geometry/query_lists.h"

namespace scaledit {
namespace {

struct Case {
    std::string name;
    scaledit_geometry_options geometry;
    std::int64_t heads = 2;
    std::int64_t head_dim = 128;
    std::int32_t dtype = SCALEDIT_FLOAT32;
    bool fused = false;
    float key_bias = 2.0F;
    double limit = 1e-5;  // of every gradient's L2
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.name << ": " << c.geometry << ", " << c.heads << " heads x " << c.head_dim
               << (c.dtype == SCALEDIT_BFLOAT16 ? ", bfloat16" : ", float32") << (c.fused ? ", fused" : "");
}

Backward make(std::int64_t tokens, const Case& c, std::uint32_t seed) {
    return {tokens, c.heads, c.head_dim, c.dtype, c.fused, c.key_bias, seed};
}

// Forward and back, by the C ABI, with poisoned gradients and workspace; expects every row written and nothing beside
// the rows.
Gradients propagate(const scaledit_geometry* geometry, const Backward& backward, scaledit_instruction_set set,
                    int threads = 2) {
    const Inputs& inputs = backward.inputs;
    const Result forward = attend(geometry, inputs, backward.scale(), SCALEDIT_ARITHMETIC_FLOAT32, set, threads);
    const std::vector<float> log_sum_exp(forward.log_sum_exp.begin(), forward.log_sum_exp.end());
    backward.poison();
    scaledit_attention_backward_arguments arguments{};
    arguments.geometry = geometry;
    arguments.heads = static_cast<std::int32_t>(inputs.query.heads);
    arguments.head_dim = static_cast<std::int32_t>(inputs.query.head_dim);
    arguments.scale = backward.scale();
    arguments.instruction_set = set;
    arguments.threads = threads;
    arguments.query = inputs.query.view();
    arguments.key = inputs.key.view();
    arguments.value = inputs.value.view();
    arguments.output = inputs.output.view();
    arguments.log_sum_exp = log_sum_exp.data();
    arguments.output_gradient = backward.output_gradient.view();
    arguments.query_gradient = backward.query_gradient.view();
    arguments.key_gradient = backward.key_gradient.view();
    arguments.value_gradient = backward.value_gradient.view();
    EXPECT_EQ(scaledit_attention_backward_workspace(&arguments, &arguments.workspace_bytes), SCALEDIT_OK)
        << scaledit_last_error();
    constexpr std::size_t guard = 256;
    const std::size_t whole = (arguments.workspace_bytes + guard + 63) / 64 * 64;
    const std::unique_ptr<void, void (*)(void*)> workspace(std::aligned_alloc(64, whole), std::free);
    std::memset(workspace.get(), static_cast<int>(kPoison), whole);
    arguments.workspace = workspace.get();
    EXPECT_EQ(scaledit_attention_backward(&arguments), SCALEDIT_OK) << scaledit_last_error();
    const auto* bytes = static_cast<const std::byte*>(workspace.get());
    EXPECT_TRUE(std::all_of(bytes + arguments.workspace_bytes, bytes + whole, [](std::byte b) { return b == kPoison; }))
        << "written behind the workspace";
    return backward.gradients();
}

class AttentionBackward : public testing::TestWithParam<Case> {};

TEST_P(AttentionBackward, AgreesWithFloat64) {
    const Case& c = GetParam();
    const GeometryHandle geometry = make_geometry(c.geometry);
    const GeometryView tiles = view(c.geometry, geometry.get());
    const Backward backward = make(tiles.info.tokens, c, 31);
    const Gradients expected = reference_gradients(tiles, backward);
    // bfloat16 rounds the gradients, and the output that delta is computed from.
    const double limit = c.dtype == SCALEDIT_BFLOAT16 ? 1e-2 : c.limit;
    for (const auto set : supported_sets()) {
        const Gradients gradients = propagate(geometry.get(), backward, set);
        EXPECT_TRUE(all_finite(gradients.query) && all_finite(gradients.key) && all_finite(gradients.value));
        const double of_value = compare(gradients.value, expected.value).l2;
        // Of a single key all gradients of scores are 0, and what is left is rounding.
        const bool alone = tiles.info.pairs == 1;
        const double of_query =
            alone ? compare(gradients.query, expected.query).largest : compare(gradients.query, expected.query).l2;
        const double of_key =
            alone ? compare(gradients.key, expected.key).largest : compare(gradients.key, expected.key).l2;
        EXPECT_LE(of_query, limit) << name_of(set);
        EXPECT_LE(of_key, limit) << name_of(set);
        EXPECT_LE(of_value, limit) << name_of(set);
        std::printf("%-26s %-12s L2 of query's gradient %.1e, key's %.1e, value's %.1e\n", c.name.c_str(),
                    name_of(set).c_str(), of_query, of_key, of_value);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Grids, AttentionBackward,
    testing::Values(Case{"one token", grid(1, 1, 0, 0)},  //
                    Case{"one image token", grid(1, 1, 0, 4)}, Case{"one of each, 64", grid(1, 1, 1, 1), 3, 64},
                    Case{"7x5", grid(7, 5, 77, 4), 3},
                    Case{"7x5 bfloat16", grid(7, 5, 1, 2), 3, 64, SCALEDIT_BFLOAT16, true},
                    Case{"37x29", grid(37, 29, 77, 4), 2, 64, SCALEDIT_FLOAT32, true},
                    Case{"37x29 bfloat16", grid(37, 29, 77, 4), 1, 128, SCALEDIT_BFLOAT16, true},
                    Case{"20x19 ratio 1", grid(20, 19, 1, 1), 2, 64},
                    Case{"36x20 ratio 2 local", grid(36, 20, 0, 2, 16, SCALEDIT_GUIDANCE_LOCAL), 1, 128},
                    Case{"36x20 ratio 2 without text", without_text(grid(36, 20, 13, 2)), 1, 128},
                    Case{"21x30 guidance left out", grid(21, 30, 13, 2, 16, SCALEDIT_GUIDANCE_NONE), 2, 64},
                    Case{"33x17 ratio 8", grid(33, 17, 77, 8), 2, 64, SCALEDIT_FLOAT32, true},
                    Case{"23x31 no guidance", grid(23, 31, 13, 0), 1, 128},
                    Case{"40x24 text 512", grid(40, 24, 512, 4), 1, 64},
                    Case{"45x41 window 32", grid(45, 41, 65, 4, 32), 1, 64},
                    // Logits of hundreds, whose log-sum-exp float32 rounds.
                    Case{"32x32 large key bias", grid(32, 32, 64, 4), 1, 128, SCALEDIT_FLOAT32, false, 50.0F, 1e-4}),
    [](const auto& parameter) { return "Case" + std::to_string(parameter.index); });

TEST(AttentionBackwardThreads, DoNotChangeABit) {
    const auto options = grid(37, 29, 77, 4);
    const GeometryHandle geometry = make_geometry(options);
    const std::int64_t tokens = view(options, geometry.get()).info.tokens;
    const Backward backward = make(tokens, Case{"", options, 3, 64}, 37);
    for (const auto set : supported_sets()) {
        const Gradients alone = propagate(geometry.get(), backward, set, 1);
        for (const int threads : {2, 3, 7}) {
            const Gradients together = propagate(geometry.get(), backward, set, threads);
            EXPECT_EQ(alone.query, together.query) << name_of(set) << ", " << threads;
            EXPECT_EQ(alone.key, together.key) << name_of(set) << ", " << threads;
            EXPECT_EQ(alone.value, together.value) << name_of(set) << ", " << threads;
        }
    }
}

// More heads than are packed at once.
TEST(AttentionBackwardHeads, OfManyGroupsAreAllWritten) {
    const auto options = grid(1, 1, 0, 0);
    const GeometryHandle geometry = make_geometry(options);
    const Backward backward = make(1, Case{"", options, 500, 128}, 41);
    const Gradients gradients = propagate(geometry.get(), backward, SCALEDIT_INSTRUCTION_SET_BEST);
    EXPECT_LE(compare(gradients.value, rows_within(backward.output_gradient)).l2, 1e-6);
}

// What is no number shows in every gradient that it reaches, and in no other.
TEST(AttentionBackwardOfNoNumber, ReachesThoseThatMeetIt) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const float nan_of_a_gpu = std::bit_cast<float>(0x7fffffffU);
    for (const auto& options : {grid(13, 10, 70, 4), grid(61, 13, 0, 0)}) {
        const GeometryHandle geometry = make_geometry(options);
        const GeometryView tiles = view(options, geometry.get());
        const std::int64_t tokens = tiles.info.tokens;
        const Backward backward = make(tokens, Case{"", options, 2, 64}, 43);
        std::vector<std::vector<bool>> attends;  // [query][key]
        for (std::size_t tile = 0; tile < tiles.tiles.size(); ++tile) {
            std::vector<bool> keys(static_cast<std::size_t>(tokens));
            for (const std::int64_t key : allowed_tokens(tiles, tile)) {
                keys[static_cast<std::size_t>(key)] = true;
            }
            attends.insert(attends.end(), static_cast<std::size_t>(tiles.tiles[tile].tokens), keys);
        }
        for (const auto set : supported_sets()) {
            const Gradients before = propagate(geometry.get(), backward, set);
            const auto spoil = [&](const Tensor& tensor, std::size_t token, float number, bool of_key) {
                const auto number_before = static_cast<float>(tensor.get(static_cast<std::int64_t>(token), 1, 7));
                tensor.set(static_cast<std::int64_t>(token), 1, 7, number);
                const Gradients now = propagate(geometry.get(), backward, set);
                tensor.set(static_cast<std::int64_t>(token), 1, 7, number_before);
                std::vector<bool> queries(attends.size());
                std::vector<bool> keys(attends.size());
                for (std::size_t query = 0; query < attends.size(); ++query) {
                    queries[query] = of_key ? attends[query][token] : query == token;
                    for (std::size_t key = 0; queries[query] && key < attends.size(); ++key) {
                        keys[key] = keys[key] || attends[query][key];
                    }
                }
                const auto expect = [&](const std::vector<double>& gradient, const std::vector<double>& old,
                                        const std::vector<bool>& reached) {
                    for (std::size_t i = 0; i < gradient.size(); ++i) {
                        ASSERT_TRUE(i / 64 % 2 == 1 && reached[i / 128] ? std::isnan(gradient[i])
                                                                        : gradient[i] == old[i])
                            << name_of(set) << ", " << number << " in token " << token << ": " << i / 128;
                    }
                };
                expect(now.query, before.query, queries);
                expect(now.key, before.key, keys);
                expect(now.value, before.value, keys);
            };
            for (const std::size_t token : {std::size_t{0}, std::size_t{63}, attends.size() - 1}) {
                for (const float number : {nan_of_a_gpu, kInfinity, -kInfinity}) {
                    spoil(backward.inputs.query, token, number, false);
                }
                spoil(backward.inputs.key, token, nan_of_a_gpu, true);
            }
        }
    }
}

TEST(QueryLists, AreTheGeometrysTransposed) {
    for (const auto& options : {grid(1, 1, 0, 0), grid(37, 29, 77, 4), grid(36, 20, 0, 2, 16, SCALEDIT_GUIDANCE_LOCAL),
                                grid(36, 20, 5, 2, 16, SCALEDIT_GUIDANCE_NONE)}) {
        const Geometry geometry(options);
        const QueryLists queries(geometry);
        const auto tiles = geometry.info().tiles;
        std::vector<std::vector<bool>> attends(static_cast<std::size_t>(tiles));
        std::vector<std::vector<bool>> attended(static_cast<std::size_t>(tiles));
        const auto meets = [&](const TileLists& lists, std::int64_t tile) {
            std::vector<bool> met(static_cast<std::size_t>(tiles));
            std::int32_t end = -1;
            for (const auto& range : lists.ranges_of(tile)) {
                EXPECT_GT(range.first, end) << "ranges ascend and do not touch";
                end = range.first + range.count;
                std::fill_n(met.begin() + range.first, range.count, true);
            }
            return met;
        };
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
            attends[static_cast<std::size_t>(tile)] = meets(geometry.keys(), tile);
            attended[static_cast<std::size_t>(tile)] = meets(queries.lists(), tile);
        }
        for (std::size_t query = 0; query < attends.size(); ++query) {
            for (std::size_t key = 0; key < attends.size(); ++key) {
                ASSERT_EQ(attends[query][key], attended[key][query]) << options << ": " << query << ", " << key;
            }
        }
        std::vector<std::int32_t> schedule(queries.lists().schedule.begin(), queries.lists().schedule.end());
        const auto count = [&](std::int32_t tile) {
            return std::ranges::count(attended[static_cast<std::size_t>(tile)], true);
        };
        EXPECT_TRUE(std::ranges::is_sorted(schedule, [&](auto a, auto b) { return count(a) > count(b); }));
        std::ranges::sort(schedule);
        for (std::size_t i = 0; i < schedule.size(); ++i) {
            ASSERT_EQ(schedule[i], static_cast<std::int32_t>(i));
        }
    }
}

}  // namespace
}  // namespace scaledit
