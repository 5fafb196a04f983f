// Shards of a picture: who owns what, what is imported, and that attention of the shards is that of the picture.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "attention_reference.h"
#include "geometry_view.h"
#include "token_mask.h"

namespace scaledit {
namespace {

constexpr std::int32_t kMostShards = 7;
constexpr std::int64_t kOwnWork = 10'000;  // pairs, as the header says

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

std::int32_t windows(const scaledit_geometry_options& o) {
    const auto along = [&](std::int64_t side) { return (side + o.window - 1) / o.window; };
    return static_cast<std::int32_t>(along(o.image_width) * along(o.image_height));
}

struct Shard {
    GeometryHandle geometry;
    GeometryView view;
};

std::vector<Shard> make_shards(const scaledit_geometry_options& options, std::int32_t count) {
    const GeometryHandle whole = make_geometry(options);
    std::vector<Shard> shards;
    for (std::int32_t index = 0; index < count; ++index) {
        scaledit_geometry* shard = nullptr;
        EXPECT_EQ(scaledit_geometry_shard(whole.get(), count, index, &shard), SCALEDIT_OK) << scaledit_last_error();
        shards.push_back({GeometryHandle(shard), view(options, shard)});
    }
    return shards;
}

// Every kind of mask on ragged grids, and some grids at random.
std::vector<scaledit_geometry_options> grids() {
    std::vector<scaledit_geometry_options> all = {
        grid(16, 16, 5, 4),
        grid(40, 56, 77, 4),
        without_text(grid(53, 38, 20, 2, 16, SCALEDIT_GUIDANCE_LOCAL)),
        grid(47, 61, 0, 4, 32, SCALEDIT_GUIDANCE_NONE),
        grid(61, 35, 130, 0),
        grid(17, 113, 9, 4),
    };
    std::mt19937 random(11);
    const auto draw = [&](int low, int high) { return std::uniform_int_distribution<>(low, high)(random); };
    for (int i = 0; i < 12; ++i) {
        scaledit_geometry_options o =
            grid(draw(1, 70), draw(1, 70), draw(0, 1) * draw(1, 100), std::vector{0, 2, 4}[size(draw(0, 2))],
                 draw(0, 1) == 0 ? 16 : 32, draw(0, 2));
        o.reach = draw(0, 2);
        o.guidance_margin = draw(0, 4);
        o.guidance_without_text = draw(0, 1);
        all.push_back(o);
    }
    return all;
}

// Calls with every number of shards that the grid has windows for.
template <class Body>
void for_each_sharding(const Body& body) {
    for (const scaledit_geometry_options& options : grids()) {
        for (std::int32_t count = 1; count <= std::min(kMostShards, windows(options)); ++count) {
            SCOPED_TRACE(testing::Message() << options << ", " << count << " shards");
            body(options, make_shards(options, count));
        }
    }
}

// The whole picture's order, and where its streams begin and end there.
struct Picture {
    explicit Picture(const scaledit_geometry_options& options)
        : whole(view(options)),
          image(whole.order.begin() + whole.info.text_tokens),
          guidance(image + whole.info.image_tokens) {}

    using Positions = std::vector<std::int64_t>::const_iterator;

    // What a shard owns.
    [[nodiscard]] std::vector<std::int64_t> owned(const GeometryView& shard) const {
        const Positions first = image + shard.info.first_image;
        std::vector<std::int64_t> tokens(first, first + shard.info.image_tokens);
        const Positions first_guidance = guidance + shard.info.first_guidance;
        tokens.insert(tokens.end(), first_guidance, first_guidance + shard.info.guidance_tokens);
        return tokens;
    }

    GeometryView whole;
    Positions image;
    Positions guidance;
};

TEST(Shards, OwnConsecutiveTokensAndHaveTheText) {
    for_each_sharding([](const scaledit_geometry_options& options, const std::vector<Shard>& shards) {
        const Picture picture(options);
        const scaledit_geometry_info& whole = picture.whole.info;
        std::int64_t next = 0;
        std::int64_t next_guidance = 0;
        for (const auto& [geometry, shard] : shards) {
            const scaledit_geometry_info& info = shard.info;
            EXPECT_EQ(info.text_tokens, whole.text_tokens);
            EXPECT_EQ(info.guidance_width, whole.guidance_width);
            EXPECT_EQ(info.guidance_height, whole.guidance_height);
            EXPECT_EQ(info.tokens, info.text_tokens + info.image_tokens + info.guidance_tokens + info.imported_tokens);
            EXPECT_EQ(info.first_image, next);
            EXPECT_EQ(info.first_guidance, next_guidance);
            EXPECT_GT(info.image_tokens, 0);

            std::vector<std::int64_t> expected(picture.whole.order.begin(), picture.image);
            const std::vector<std::int64_t> owned = picture.owned(shard);
            expected.insert(expected.end(), owned.begin(), owned.end());
            ASSERT_EQ(info.tokens, static_cast<std::int64_t>(shard.order.size()));
            EXPECT_TRUE(std::equal(expected.begin(), expected.end(), shard.order.begin()));

            std::int64_t first = 0;
            for (const scaledit_tile& tile : shard.tiles) {
                EXPECT_EQ(tile.first, first);
                first += tile.tokens;
            }
            EXPECT_EQ(first, info.tokens);
            next += info.image_tokens;
            next_guidance += info.guidance_tokens;
        }
        EXPECT_EQ(next, whole.image_tokens);
        EXPECT_EQ(next_guidance, whole.guidance_tokens);
        EXPECT_EQ(whole.imported_tokens, 0);
        EXPECT_EQ(whole.first_image, 0);
        EXPECT_EQ(whole.first_guidance, 0);
    });
}

// From the mask's definition, token by token: shard by shard what it owns and the own tokens attend to.
TEST(Shards, ImportWhatTheMaskNeedsAndNoMore) {
    for_each_sharding([](const scaledit_geometry_options& options, const std::vector<Shard>& shards) {
        const Picture picture(options);
        const TokenMask mask(options, picture.whole.info);
        for (const Shard& shard : shards) {
            std::vector<Token> own;
            for (const std::int64_t token : picture.owned(shard.view)) {
                own.push_back(mask.token(token));
            }
            std::vector<std::int64_t> needed;
            for (const Shard& owner : shards) {
                for (const std::int64_t key : picture.owned(owner.view)) {
                    const Token token = mask.token(key);
                    if (&owner != &shard &&
                        std::ranges::any_of(own, [&](const Token& query) { return mask.attends(query, token); })) {
                        needed.push_back(key);
                    }
                }
            }
            const std::vector<std::int64_t>& order = shard.view.order;
            EXPECT_EQ(needed, std::vector(order.end() - shard.view.info.imported_tokens, order.end()));
        }
    });
}

using Keys = std::shared_ptr<const std::vector<std::int64_t>>;  // raster indices, ascending

// The keys of each token of the whole picture; tokens of a tile have one list.
std::vector<Keys> keys_by_token(const GeometryView& geometry, std::int64_t tokens) {
    std::vector<Keys> keys(size(tokens), std::make_shared<std::vector<std::int64_t>>());
    for (std::size_t tile = 0; tile < geometry.tiles.size(); ++tile) {
        std::vector<std::int64_t> of_tile;
        for (const std::int64_t position : allowed_tokens(geometry, tile)) {
            of_tile.push_back(geometry.order[size(position)]);
        }
        std::ranges::sort(of_tile);
        EXPECT_EQ(std::ranges::adjacent_find(of_tile), of_tile.end()) << "a key twice in tile " << tile;
        const scaledit_tile& own = geometry.tiles[tile];
        const auto shared = std::make_shared<const std::vector<std::int64_t>>(std::move(of_tile));
        for (std::int64_t position = own.first; position < own.first + own.tokens; ++position) {
            keys[size(geometry.order[size(position)])] = shared;
        }
    }
    return keys;
}

TEST(Shards, TokensAttendToWhatTheyDoInTheWholePicture) {
    for_each_sharding([](const scaledit_geometry_options& options, const std::vector<Shard>& shards) {
        const GeometryView whole = view(options);
        const auto expected = keys_by_token(whole, whole.info.tokens);
        std::vector<std::int64_t> text;  // keys of the first text token in all shards
        for (const auto& [geometry, shard] : shards) {
            const auto keys = keys_by_token(shard, whole.info.tokens);
            const std::int64_t queries = shard.info.tokens - shard.info.imported_tokens;
            for (std::int64_t position = 0; position < shard.info.tokens; ++position) {
                const auto token = size(shard.order[size(position)]);
                if (position < shard.info.text_tokens) {
                    EXPECT_EQ(*keys[token], *keys[0]);
                } else if (position < queries) {
                    ASSERT_EQ(*keys[token], *expected[token]) << "token " << token;
                } else {
                    ASSERT_TRUE(keys[token]->empty()) << "token " << token;
                }
            }
            if (shard.info.text_tokens > 0) {
                text.insert(text.end(), keys[0]->begin(), keys[0]->end());
            }
            EXPECT_EQ(shard.info.query_tiles, static_cast<std::int64_t>(shard.schedule.size()));
        }
        if (whole.info.text_tokens > 0) {
            std::ranges::sort(text);
            EXPECT_EQ(text, *expected[0]) << "each key in one shard";
        }
    });
}

// No shard has more than its share, half of a window at each end, and half of a guidance tile at each end.
TEST(Shards, HaveAboutTheSameWork) {
    std::vector<scaledit_geometry_options> all = grids();
    all.push_back(grid(256, 256, 512, 4));
    all.push_back(grid(250, 131, 512, 4));
    for (const scaledit_geometry_options& options : all) {
        const GeometryView whole = view(options);
        const auto work_of = [&](const GeometryView& shard, std::size_t tile) {
            const auto keys = static_cast<std::int64_t>(allowed_tokens(shard, tile).size());
            const std::int64_t asked_by = shard.tiles[tile].stream == SCALEDIT_IMAGE ? options.text_tokens : 0;
            return shard.tiles[tile].tokens * (keys + asked_by + kOwnWork);
        };
        std::vector<std::int64_t> of_windows(size(windows(options)));
        std::int64_t of_guidance = 0;  // the most of a tile
        std::int64_t total = 0;
        const std::int64_t columns = (options.image_width + options.window - 1) / options.window;
        for (std::size_t tile = 0; tile < whole.tiles.size(); ++tile) {
            const scaledit_tile& t = whole.tiles[tile];
            if (t.stream == SCALEDIT_IMAGE) {
                const std::int32_t cells = options.window / 8;
                of_windows[size(t.row / cells * columns + t.column / cells)] += work_of(whole, tile);
            } else if (t.stream == SCALEDIT_GUIDANCE) {
                of_guidance = std::max(of_guidance, work_of(whole, tile));
            }
            total += t.stream == SCALEDIT_TEXT ? 0 : work_of(whole, tile);
        }
        const auto most = static_cast<double>(std::ranges::max(of_windows) + of_guidance);
        for (std::int32_t count = 1; count <= std::min(kMostShards, windows(options)); ++count) {
            double largest = 0;
            for (const auto& [geometry, shard] : make_shards(options, count)) {
                std::int64_t work = 0;
                for (std::size_t tile = 0; tile < shard.tiles.size(); ++tile) {
                    const scaledit_tile& t = shard.tiles[tile];
                    if (t.stream != SCALEDIT_TEXT && t.first < shard.info.tokens - shard.info.imported_tokens) {
                        work += work_of(shard, tile);
                    }
                }
                largest = std::max(largest, static_cast<double>(work));
            }
            const double share = static_cast<double>(total) / count;
            EXPECT_LE(largest, share + most) << options << ", " << count << " shards";
            if (options.image_width == 256) {
                EXPECT_LE(largest, 1.02 * share) << options << ", " << count << " shards";
            }
        }
    }
}

// Rows of the whole picture's inputs, in the order of a shard.
void pick_rows(const Tensor& whole, const Tensor& part, const std::vector<std::int64_t>& positions) {
    part.fill([&](std::int64_t token, std::int64_t head, std::int64_t channel) {
        return static_cast<float>(whole.get(positions[size(token)], head, channel));
    });
}

struct Partial {
    const double* output;  // [head_dim]
    double log_sum_exp;
};

// One query's outputs over parts of its keys, joined.
std::vector<double> joined(const std::vector<Partial>& parts, std::int64_t head_dim) {
    const double most = std::ranges::max(parts, {}, &Partial::log_sum_exp).log_sum_exp;
    std::vector<double> output(size(head_dim));
    double sum = 0;
    for (const Partial& part : parts) {
        const double weight = std::exp(part.log_sum_exp - most);
        sum += weight;
        for (std::size_t i = 0; i < output.size(); ++i) {
            output[i] += weight * part.output[i];
        }
    }
    for (double& number : output) {
        number /= sum;
    }
    return output;
}

// Outputs and workspaces begin poisoned; rows of imported tokens stay so.
void expect_attention(const scaledit_geometry_options& options, const std::vector<Shard>& shards,
                      scaledit_arithmetic arithmetic, double limit) {
    constexpr std::int64_t kHeads = 2;
    constexpr std::int64_t kHeadDim = 64;
    const GeometryHandle geometry = make_geometry(options);
    const GeometryView whole = view(options, geometry.get());
    const Inputs inputs = make_inputs(whole.info.tokens, kHeads, kHeadDim, SCALEDIT_FLOAT32, false);
    fill_normal(inputs, 3, 2.0F);
    const float scale = 0.125F;
    const Result expected =
        attend(geometry.get(), inputs, scale, SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_INSTRUCTION_SET_BEST);
    std::vector<std::int64_t> positions(size(whole.info.tokens));  // by raster index
    for (std::size_t position = 0; position < whole.order.size(); ++position) {
        positions[size(whole.order[position])] = static_cast<std::int64_t>(position);
    }

    const auto row = [&](std::int64_t token, std::int64_t head) { return size((token * kHeads + head) * kHeadDim); };
    std::vector<Result> results;
    std::vector<double> found;
    std::vector<double> reference;
    for (const auto& [handle, shard] : shards) {
        std::vector<std::int64_t> sources;
        for (const std::int64_t raster : shard.order) {
            sources.push_back(positions[size(raster)]);
        }
        const Inputs own = make_inputs(shard.info.tokens, kHeads, kHeadDim, SCALEDIT_FLOAT32, false);
        pick_rows(inputs.query, own.query, sources);
        pick_rows(inputs.key, own.key, sources);
        pick_rows(inputs.value, own.value, sources);
        results.push_back(attend(handle.get(), own, scale, arithmetic, SCALEDIT_INSTRUCTION_SET_BEST));
        const Result& result = results.back();
        const bool guidance_asks = options.guidance_attention != SCALEDIT_GUIDANCE_NONE;
        const std::int64_t guidance = shard.info.text_tokens + shard.info.image_tokens;
        const std::int64_t written = guidance + (guidance_asks ? shard.info.guidance_tokens : 0);
        for (std::int64_t token = shard.info.text_tokens; token < shard.info.tokens; ++token) {
            for (std::int64_t head = 0; head < kHeads; ++head) {
                const auto numbers = std::span(result.output).subspan(row(token, head), size(kHeadDim));
                ASSERT_EQ(std::ranges::count_if(numbers, [](double number) { return std::isfinite(number); }),
                          token < written ? kHeadDim : 0)
                    << "token " << token;
                if (token < written) {
                    const auto same =
                        std::span(expected.output).subspan(row(sources[size(token)], head), numbers.size());
                    found.insert(found.end(), numbers.begin(), numbers.end());
                    reference.insert(reference.end(), same.begin(), same.end());
                }
            }
        }
    }
    for (std::int64_t token = 0; token < whole.info.text_tokens; ++token) {
        for (std::int64_t head = 0; head < kHeads; ++head) {
            std::vector<Partial> parts;
            for (std::size_t shard = 0; shard < shards.size(); ++shard) {
                const std::int64_t tokens = shards[shard].view.info.tokens;
                parts.push_back({&results[shard].output[row(token, head)],
                                 results[shard].log_sum_exp[size(head * tokens + token)]});
            }
            const std::vector<double> text = joined(parts, kHeadDim);
            found.insert(found.end(), text.begin(), text.end());
            const auto first = expected.output.begin() + static_cast<std::ptrdiff_t>(row(token, head));
            reference.insert(reference.end(), first, first + kHeadDim);
        }
    }
    const Difference off = compare(found, reference);
    EXPECT_LE(off.l2, limit);
}

TEST(Shards, AttendTogetherAsTheWholePicture) {
    for_each_sharding([](const scaledit_geometry_options& options, const std::vector<Shard>& shards) {
        expect_attention(options, shards, SCALEDIT_ARITHMETIC_FLOAT32, 1e-6);
    });
}

// Each shard smooths its keys by their own mean: the log-sum-exp by which text is joined has it back.
TEST(Shards, AttendTogetherInInt8) {
    for_each_sharding([](const scaledit_geometry_options& options, const std::vector<Shard>& shards) {
        expect_attention(options, shards, SCALEDIT_ARITHMETIC_INT8, 0.02);
    });
}

// What 4096 x 4096 pixels exchange: the border's cells, and guidance.
TEST(Shards, ImportTheBorderAndGuidance) {
    const auto imported = [](std::int32_t count) {
        std::vector<std::int64_t> tokens;
        for (const auto& [geometry, shard] : make_shards(grid(256, 256, 512, 4), count)) {
            tokens.push_back(shard.info.imported_tokens);
        }
        return tokens;
    };
    EXPECT_EQ(imported(1), std::vector<std::int64_t>{0});
    const auto all_but = [](std::int64_t own) { return 64 * 64 - own; };  // guidance tokens attend to all of them
    EXPECT_EQ(imported(2), std::vector<std::int64_t>(2, 32 * 64 + all_but(2048))) << "a column of cells";
    EXPECT_EQ(imported(4), std::vector<std::int64_t>(4, 33 * 64 + all_but(1024)))
        << "two sides of 16 cells and the corner";
}

}  // namespace
}  // namespace scaledit
