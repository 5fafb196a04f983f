#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "attention_reference.h"

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
    double float32_limit = 1e-5;  // grows with the logits, which float32 rounds too
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.name << ": " << c.geometry << ", " << c.heads << " heads x " << c.head_dim
               << (c.dtype == SCALEDIT_BFLOAT16 ? ", bfloat16" : ", float32") << (c.fused ? ", fused" : "");
}

float softmax_scale(std::int64_t head_dim) { return 1.0F / std::sqrt(static_cast<float>(head_dim)); }

std::string label(scaledit_instruction_set set, scaledit_arithmetic arithmetic) {
    return name_of(set) + (arithmetic == SCALEDIT_ARITHMETIC_INT8 ? " INT8" : " float32");
}

TEST(InstructionSets, AreTested) {
    const auto sets = supported_sets();
    ASSERT_FALSE(sets.empty());
    std::string names;
    for (const auto set : sets) {
        names += (names.empty() ? "" : ", ") + name_of(set);
    }
    std::printf("instruction sets tested here: %s\n", names.c_str());
    EXPECT_EQ(sets.front(), SCALEDIT_INSTRUCTION_SET_PORTABLE);
    EXPECT_EQ(scaledit_instruction_set_best(), sets.back());
}

class Attention : public testing::TestWithParam<Case> {};

// Few keys leave few terms over which rounding errors average out, so the limits are for whole outputs.
TEST_P(Attention, AgreesWithFloat64) {
    const Case& c = GetParam();
    const GeometryHandle geometry = make_geometry(c.geometry);
    const GeometryView tiles = view(c.geometry, geometry.get());
    const Inputs inputs = make_inputs(tiles.info.tokens, c.heads, c.head_dim, c.dtype, c.fused);
    fill_normal(inputs, 7, c.key_bias);
    const float scale = softmax_scale(c.head_dim);
    const Result expected = reference(tiles, inputs, static_cast<double>(scale));
    const bool bfloat = c.dtype == SCALEDIT_BFLOAT16;

    for (const auto set : supported_sets()) {
        const Result exact = attend(geometry.get(), inputs, scale, SCALEDIT_ARITHMETIC_FLOAT32, set);
        const Difference off = compare(exact.output, expected.output);
        const Difference off_log = compare(exact.log_sum_exp, expected.log_sum_exp);
        EXPECT_TRUE(all_finite(exact.output));
        EXPECT_LE(off.l2, bfloat ? 2e-3 : c.float32_limit) << name_of(set);  // bfloat16 rounds by up to 2^-9
        EXPECT_LE(off_log.largest, 2 * c.float32_limit) << name_of(set);

        const Result quantised = attend(geometry.get(), inputs, scale, SCALEDIT_ARITHMETIC_INT8, set);
        const Difference off8 = compare(quantised.output, expected.output);
        const Difference off8_log = compare(quantised.log_sum_exp, expected.log_sum_exp);
        EXPECT_TRUE(all_finite(quantised.output));
        EXPECT_GE(off8.cosine, 0.9998) << name_of(set);
        EXPECT_LE(off8.l1, 0.015) << name_of(set);
        EXPECT_LE(off8_log.largest, 0.1) << name_of(set);
        std::printf("%-26s %-12s float32 L2 %.1e, log-sum-exp %.1e; INT8 cosine %.6f, L1 %.5f, log-sum-exp %.1e\n",
                    c.name.c_str(), name_of(set).c_str(), off.l2, off_log.largest, off8.cosine, off8.l1,
                    off8_log.largest);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Grids, Attention,
    testing::Values(Case{"one token", grid(1, 1, 0, 0)},  //
                    Case{"one image token", grid(1, 1, 0, 4)}, Case{"one of each, 64", grid(1, 1, 1, 1), 3, 64},
                    Case{"7x5", grid(7, 5, 77, 4), 3},
                    Case{"7x5 bfloat16", grid(7, 5, 1, 2), 3, 64, SCALEDIT_BFLOAT16, true},
                    Case{"37x29", grid(37, 29, 77, 4), 2, 64, SCALEDIT_FLOAT32, true},
                    Case{"37x29 bfloat16", grid(37, 29, 77, 4), 1, 128, SCALEDIT_BFLOAT16, true},
                    Case{"20x19 ratio 1", grid(20, 19, 1, 1), 2, 64},
                    Case{"36x20 ratio 2 local", grid(36, 20, 0, 2, 16, SCALEDIT_GUIDANCE_LOCAL), 1, 128},
                    Case{"36x20 ratio 2 without text", without_text(grid(36, 20, 13, 2)), 1, 128},
                    Case{"33x17 ratio 8", grid(33, 17, 77, 8), 2, 64, SCALEDIT_FLOAT32, true},
                    Case{"23x31 no guidance", grid(23, 31, 13, 0), 1, 128},
                    Case{"40x24 text 512", grid(40, 24, 512, 4), 1, 64},
                    Case{"45x41 window 32", grid(45, 41, 65, 4, 32), 1, 64},
                    Case{"32x32 large key bias", grid(32, 32, 64, 4), 1, 128, SCALEDIT_FLOAT32, false, 50.0F, 1e-4}),
    [](const auto& parameter) { return "Case" + std::to_string(parameter.index); });

TEST(AttentionOfGuidance, MayBeLeftOut) {
    for (const auto& [width, height, text, ratio] : {std::tuple{37, 29, 77, 4}, {1, 1, 0, 1}, {40, 24, 512, 1}}) {
        const auto with = grid(width, height, text, ratio);
        const auto without = grid(width, height, text, ratio, 16, SCALEDIT_GUIDANCE_NONE);
        const GeometryHandle geometry = make_geometry(with);
        const GeometryHandle of_others = make_geometry(without);
        const GeometryView tiles = view(without, of_others.get());
        const Inputs inputs = make_inputs(tiles.info.tokens, 3, 64, SCALEDIT_FLOAT32, true);
        fill_normal(inputs, 19, 1.0F);
        for (const auto arithmetic : {SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_ARITHMETIC_INT8}) {
            for (const auto set : supported_sets()) {
                expect_guidance_left_out(tiles, 3, attend(of_others.get(), inputs, 0.125F, arithmetic, set),
                                         attend(geometry.get(), inputs, 0.125F, arithmetic, set));
            }
        }
    }
}

TEST(AttentionThreads, DoNotChangeABit) {
    const auto options = grid(37, 29, 77, 4);
    const GeometryHandle geometry = make_geometry(options);
    const std::int64_t tokens = view(options, geometry.get()).info.tokens;
    for (const auto dtype : {SCALEDIT_FLOAT32, SCALEDIT_BFLOAT16}) {
        const Inputs inputs = make_inputs(tokens, 3, 64, dtype, true);
        fill_normal(inputs, 11, 1.0F);
        for (const auto set : supported_sets()) {
            for (const auto arithmetic : {SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_ARITHMETIC_INT8}) {
                const Result alone = attend(geometry.get(), inputs, 0.125F, arithmetic, set, 1);
                for (const int threads : {2, 3, 7}) {
                    const Result together = attend(geometry.get(), inputs, 0.125F, arithmetic, set, threads);
                    EXPECT_EQ(alone.output, together.output) << label(set, arithmetic) << ", " << threads;
                    EXPECT_EQ(alone.log_sum_exp, together.log_sum_exp) << label(set, arithmetic) << ", " << threads;
                }
            }
        }
    }
}

// All multiply the same integers; what differs is the rounding of exponentials and of sums in float32.
TEST(InstructionSets, AgreeWithEachOther) {
    const auto options = grid(37, 29, 77, 4);
    const GeometryHandle geometry = make_geometry(options);
    const Inputs inputs = make_inputs(view(options, geometry.get()).info.tokens, 2, 128, SCALEDIT_FLOAT32, false);
    fill_normal(inputs, 13, 2.0F);
    for (const auto arithmetic : {SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_ARITHMETIC_INT8}) {
        const Result portable = attend(geometry.get(), inputs, 0.088F, arithmetic, SCALEDIT_INSTRUCTION_SET_PORTABLE);
        for (const auto set : supported_sets()) {
            const Result result = attend(geometry.get(), inputs, 0.088F, arithmetic, set);
            const Difference off = compare(result.output, portable.output);
            const double limit = arithmetic == SCALEDIT_ARITHMETIC_INT8 ? 5e-5 : 1e-6;
            EXPECT_LE(off.l2, limit) << label(set, arithmetic);
            std::printf("%s against portable: L2 %.1e\n", label(set, arithmetic).c_str(), off.l2);
        }
    }
}

// More heads than are packed at once.
TEST(AttentionHeads, OfManyGroupsAreAllWritten) {
    const auto options = grid(1, 1, 0, 0);
    const GeometryHandle geometry = make_geometry(options);
    const Inputs inputs = make_inputs(1, 500, 128, SCALEDIT_FLOAT32, false);
    fill_normal(inputs, 17, 1.0F);
    const Result result =
        attend(geometry.get(), inputs, 0.1F, SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_INSTRUCTION_SET_PORTABLE);
    std::int64_t wrong = 0;
    for (std::int64_t head = 0; head < 500; ++head) {
        for (std::int64_t channel = 0; channel < 128; ++channel) {
            const double value = result.output[static_cast<std::size_t>(head * 128 + channel)];
            wrong += value != inputs.value.get(0, head, channel) ? 1 : 0;
        }
    }
    EXPECT_EQ(wrong, 0);
}

// Inputs on which quantised attention is known to fail. The limits are for L2 against float64.
struct Adversary {
    std::string name;
    std::function<void(const Inputs&)> spoil;
    double float32_limit;
    double int8_limit;
};

std::ostream& operator<<(std::ostream& out, const Adversary& adversary) { return out << adversary.name; }

class AdversarialAttention : public testing::TestWithParam<Adversary> {
protected:
    const scaledit_geometry_options options_ = grid(21, 18, 70, 4);
    const GeometryHandle geometry_ = make_geometry(options_);
    const GeometryView tiles_ = view(options_, geometry_.get());
};

TEST_P(AdversarialAttention, AgreesWithFloat64) {
    const Inputs inputs = make_inputs(tiles_.info.tokens, 2, 64, SCALEDIT_FLOAT32, false);
    fill_normal(inputs, 19, 0.0F);
    GetParam().spoil(inputs);
    const Result expected = reference(tiles_, inputs, 0.125);
    for (const auto set : supported_sets()) {
        const Result exact = attend(geometry_.get(), inputs, 0.125F, SCALEDIT_ARITHMETIC_FLOAT32, set);
        EXPECT_TRUE(all_finite(exact.output)) << name_of(set);
        EXPECT_LE(compare(exact.output, expected.output).l2, GetParam().float32_limit) << name_of(set);
        const Result quantised = attend(geometry_.get(), inputs, 0.125F, SCALEDIT_ARITHMETIC_INT8, set);
        EXPECT_TRUE(all_finite(quantised.output)) << name_of(set);
        EXPECT_LE(compare(quantised.output, expected.output).l2, GetParam().int8_limit) << name_of(set);
        std::printf("%-28s %-12s float32 L2 %.1e; INT8 L2 %.1e\n", GetParam().name.c_str(), name_of(set).c_str(),
                    compare(exact.output, expected.output).l2, compare(quantised.output, expected.output).l2);
    }
}

const auto kZero = [](auto...) { return 0.0F; };

INSTANTIATE_TEST_SUITE_P(
    Inputs, AdversarialAttention,
    testing::Values(
        Adversary{"all keys equal",
                  [](const Inputs& in) {
                      in.key.fill([](auto, auto, auto channel) { return static_cast<float>(channel) - 30.0F; });
                  },
                  1e-5, 1e-3},
        Adversary{"all queries equal",
                  [](const Inputs& in) {
                      in.query.fill([](auto, auto, auto channel) { return 0.1F * static_cast<float>(channel % 7); });
                  },
                  1e-5, 0.03},
        Adversary{"all zero queries", [](const Inputs& in) { in.query.fill(kZero); }, 1e-5, 1e-3},
        Adversary{"all zero keys", [](const Inputs& in) { in.key.fill(kZero); }, 1e-5, 1e-3},
        Adversary{"all zero values", [](const Inputs& in) { in.value.fill(kZero); }, 0.0, 0.0},
        Adversary{"denormal queries and keys",
                  [](const Inputs& in) {
                      in.query.fill([](auto...) { return 1e-40F; });
                      in.key.fill([](auto token, auto, auto) { return token % 2 == 0 ? 1e-40F : -1e-40F; });
                  },
                  1e-5, 1e-3},
        // One key far above all others: what is left for them must not be lost in the rounding of the weights.
        Adversary{"one overshadowing key",
                  [](const Inputs& in) {
                      in.key.fill([&](auto token, auto head, auto channel) {
                          const double factor = token == 3 ? 8.0 : 0.3;
                          return static_cast<float>(factor * (in.query.get(9, head, channel) + 1.0));
                      });
                      in.query.fill([](auto, auto, auto channel) { return 0.05F * static_cast<float>(channel % 5); });
                  },
                  1e-5, 0.02},
        // A row of weights 2^-150 apart from the row's maximum.
        Adversary{"steep softmax",
                  [](const Inputs& in) {
                      in.query.fill([&](auto token, auto head, auto channel) {
                          return static_cast<float>(40.0 * in.key.get((token * 7) % in.key.tokens, head, channel));
                      });
                  },
                  1e-4, 0.06}),
    [](const auto& parameter) { return "Case" + std::to_string(parameter.index); });

// Values of one channel alone are zero, and of another alone are huge.
TEST_F(AdversarialAttention, ChannelsAreIndependent) {
    const Inputs inputs = make_inputs(tiles_.info.tokens, 2, 64, SCALEDIT_FLOAT32, false);
    fill_normal(inputs, 23, 0.0F);
    for (std::int64_t token = 0; token < tiles_.info.tokens; ++token) {
        inputs.value.set(token, 1, 5, 0.0F);
        inputs.value.set(token, 1, 6, 1e30F * static_cast<float>(inputs.value.get(token, 1, 6)));
    }
    const Result expected = reference(tiles_, inputs, 0.125);
    const auto channel = [&](const Result& result, std::int64_t of) {
        std::vector<double> numbers;
        for (std::int64_t token = 0; token < tiles_.info.tokens; ++token) {
            numbers.push_back(result.output[static_cast<std::size_t>((token * 2 + 1) * 64 + of)]);
        }
        return numbers;
    };
    for (const auto set : supported_sets()) {
        for (const auto arithmetic : {SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_ARITHMETIC_INT8}) {
            const Result result = attend(geometry_.get(), inputs, 0.125F, arithmetic, set);
            const double limit = arithmetic == SCALEDIT_ARITHMETIC_INT8 ? 0.02 : 1e-5;
            EXPECT_EQ(channel(result, 5), channel(expected, 5)) << label(set, arithmetic);
            EXPECT_LE(compare(channel(result, 6), channel(expected, 6)).l2, limit) << label(set, arithmetic);
            EXPECT_LE(compare(channel(result, 7), channel(expected, 7)).l2, limit) << label(set, arithmetic);
        }
    }
}

// One key so large that its scores dwarf all others: no row may turn into NaN or leave the range of the values.
TEST_F(AdversarialAttention, HugeNumbersStayInRange) {
    for (const float huge : {1e4F, 1e6F, 1e15F, 1e30F}) {
        const Inputs inputs = make_inputs(tiles_.info.tokens, 2, 64, SCALEDIT_FLOAT32, false);
        fill_normal(inputs, 29, 0.0F);
        inputs.key.set(40, 0, 3, huge);
        inputs.key.set(100, 1, 60, -huge);
        inputs.query.set(2, 1, 60, huge < 1e20F ? huge : 1.0F);
        double highest = 0;
        for (std::int64_t token = 0; token < tiles_.info.tokens; ++token) {
            for (std::int64_t i = 0; i < 128; ++i) {
                highest = std::max(highest, std::abs(inputs.value.get(token, i / 64, i % 64)));
            }
        }
        const Result expected = reference(tiles_, inputs, 0.125);
        for (const auto set : supported_sets()) {
            for (const auto arithmetic : {SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_ARITHMETIC_INT8}) {
                const Result result = attend(geometry_.get(), inputs, 0.125F, arithmetic, set);
                EXPECT_TRUE(all_finite(result.output)) << label(set, arithmetic) << ", " << huge;
                EXPECT_TRUE(all_finite(result.log_sum_exp)) << label(set, arithmetic) << ", " << huge;
                for (const double number : result.output) {
                    ASSERT_LE(std::abs(number), highest * 1.001) << label(set, arithmetic) << ", " << huge;
                }
                if (arithmetic == SCALEDIT_ARITHMETIC_FLOAT32 && huge <= 1e6F) {
                    EXPECT_LE(compare(result.output, expected.output).l2, 1e-4) << label(set, arithmetic) << huge;
                }
            }
        }
    }
}

// What is no number shows in every row that it reaches, and in no other.
class AttentionOfNoNumber : public testing::TestWithParam<scaledit_geometry_options> {
protected:
    static constexpr float kInfinity = std::numeric_limits<float>::infinity();

    void SetUp() override { fill_normal(inputs_, 37, 1.0F); }

    // Calls check(label, result, result before) for every arithmetic and instruction set, the inputs' head 1 spoilt by
    // set(token, 1, channel, number) of one of their tensors.
    template <class Check>
    void with(const Tensor& tensor, std::int64_t token, float number, const Check& check) const {
        for (const auto arithmetic : {SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_ARITHMETIC_INT8}) {
            for (const auto set : supported_sets()) {
                const Result before = attend(geometry_.get(), inputs_, 0.125F, arithmetic, set);
                const auto number_before = static_cast<float>(tensor.get(token, 1, kChannel));
                tensor.set(token, 1, kChannel, number);
                const Result result = attend(geometry_.get(), inputs_, 0.125F, arithmetic, set);
                SCOPED_TRACE(label(set, arithmetic) + ", " + std::to_string(number) + " in token " +
                             std::to_string(token));
                check(arithmetic, result, before);
                tensor.set(token, 1, kChannel, number_before);
            }
        }
    }

    // Whether each token attends to one.
    [[nodiscard]] std::vector<bool> that_attend_to(std::int64_t key) const {
        std::vector<bool> found(static_cast<std::size_t>(tokens_));
        for (std::size_t tile = 0; tile < tiles_.tiles.size(); ++tile) {
            const bool attends = std::ranges::count(allowed_tokens(tiles_, tile), key) > 0;
            const auto& own = tiles_.tiles[tile];
            std::fill_n(found.begin() + own.first, own.tokens, attends);
        }
        return found;
    }

    // A row of the output, and its log-sum-exp.
    [[nodiscard]] std::vector<double> row(const Result& result, std::int64_t token, std::int64_t head) const {
        const auto first = result.output.begin() + (token * 2 + head) * 64;
        std::vector<double> numbers(first, first + 64);
        numbers.push_back(result.log_sum_exp[static_cast<std::size_t>(head * tokens_ + token)]);
        return numbers;
    }

    static bool is_nan(const std::vector<double>& row) {
        return std::ranges::all_of(row, [](double x) { return std::isnan(x); });
    }

    static constexpr std::int64_t kChannel = 5;
    const scaledit_geometry_options options_ = GetParam();
    const GeometryHandle geometry_ = make_geometry(options_);
    const GeometryView tiles_ = view(options_, geometry_.get());
    const std::int64_t tokens_ = tiles_.info.tokens;
    const Inputs inputs_ = make_inputs(tokens_, 2, 64, SCALEDIT_FLOAT32, false);
    // The first and last of tiles that are full and of some that are not.
    const std::vector<std::int64_t> some_ =
        tokens_ == 1 ? std::vector<std::int64_t>{0}
                     : std::vector{std::int64_t{0}, std::int64_t{63}, tokens_ / 2, tokens_ - 1};
};

// One of a processor, one of a GPU, and one that signals.
const float kNans[] = {std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0x7fffffffU),
                       std::bit_cast<float>(0xff800001U)};

TEST_P(AttentionOfNoNumber, InAQuery) {
    for (const float number : {kNans[0], kNans[1], kNans[2], kInfinity, -kInfinity}) {
        for (const std::int64_t token : some_) {
            with(inputs_.query, token, number, [&](auto, const Result& result, const Result& before) {
                for (std::int64_t other = 0; other < tokens_; ++other) {
                    ASSERT_EQ(row(result, other, 0), row(before, other, 0)) << other;
                    ASSERT_TRUE(other == token ? is_nan(row(result, other, 1))
                                               : row(result, other, 1) == row(before, other, 1))
                        << other;
                }
            });
        }
    }
}

// In INT8 the mean of the keys is another one then.
TEST_P(AttentionOfNoNumber, InAKey) {
    for (const float number : kNans) {
        for (const std::int64_t token : some_) {
            const std::vector<bool> reached = that_attend_to(token);
            with(inputs_.key, token, number, [&](auto arithmetic, const Result& result, const Result& before) {
                for (std::int64_t other = 0; other < tokens_; ++other) {
                    ASSERT_EQ(row(result, other, 0), row(before, other, 0)) << other;
                    const std::vector<double> now = row(result, other, 1);
                    if (reached[static_cast<std::size_t>(other)]) {
                        ASSERT_TRUE(is_nan(now)) << other;
                    } else if (arithmetic == SCALEDIT_ARITHMETIC_FLOAT32) {
                        ASSERT_EQ(now, row(before, other, 1)) << other;
                    } else {
                        ASSERT_LE(compare(now, row(before, other, 1)).l2, 0.05) << other;
                    }
                }
            });
        }
    }
}

// A score of -infinity is a number to softmax: its key weighs nothing.
TEST_P(AttentionOfNoNumber, AnInfinityInAKey) {
    for (const float number : {kInfinity, -kInfinity}) {
        for (const std::int64_t token : some_) {
            const std::vector<bool> reached = that_attend_to(token);
            with(inputs_.key, token, number, [&](auto arithmetic, const Result& result, const Result& before) {
                const Result expected = reference(tiles_, inputs_, 0.125);
                for (std::int64_t other = 0; other < tokens_; ++other) {
                    ASSERT_EQ(row(result, other, 0), row(before, other, 0)) << other;
                    const std::vector<double> now = row(result, other, 1);
                    const bool score_is_minus_infinity =
                        inputs_.query.get(other, 1, kChannel) * static_cast<double>(number) < 0;
                    if (reached[static_cast<std::size_t>(other)] &&
                        (arithmetic == SCALEDIT_ARITHMETIC_INT8 || !score_is_minus_infinity || tokens_ == 1)) {
                        ASSERT_TRUE(is_nan(now)) << other;
                    } else {
                        const double limit = arithmetic == SCALEDIT_ARITHMETIC_FLOAT32 ? 1e-4 : 0.1;
                        ASSERT_LE(compare(now, row(expected, other, 1)).l2, limit) << other;
                    }
                }
            });
        }
    }
}

TEST_P(AttentionOfNoNumber, InEveryKey) {
    for (const float number : {kNans[0], kInfinity, -kInfinity}) {
        inputs_.key.fill([&](auto, auto, auto) { return number; });
        for (const float sign : {1.0F, -1.0F}) {
            inputs_.query.fill([&](auto, auto, auto) { return sign; });
            for (const auto arithmetic : {SCALEDIT_ARITHMETIC_FLOAT32, SCALEDIT_ARITHMETIC_INT8}) {
                for (const auto set : supported_sets()) {
                    const Result result = attend(geometry_.get(), inputs_, 0.125F, arithmetic, set);
                    EXPECT_TRUE(is_nan(result.output)) << label(set, arithmetic) << ", " << number;
                    EXPECT_TRUE(is_nan(result.log_sum_exp)) << label(set, arithmetic) << ", " << number;
                }
            }
        }
    }
}

TEST_P(AttentionOfNoNumber, InAValue) {
    for (const float number : {kNans[0], kNans[1], kNans[2], kInfinity, -kInfinity}) {
        for (const std::int64_t token : some_) {
            const std::vector<bool> reached = that_attend_to(token);
            with(inputs_.value, token, number, [&](auto, const Result& result, const Result& before) {
                for (std::int64_t other = 0; other < tokens_; ++other) {
                    ASSERT_EQ(row(result, other, 0), row(before, other, 0)) << other;
                    std::vector<double> now = row(result, other, 1);
                    const std::vector<double> then = row(before, other, 1);
                    if (reached[static_cast<std::size_t>(other)]) {
                        ASSERT_FALSE(std::isfinite(now[kChannel])) << other;
                        now[kChannel] = then[kChannel];
                    }
                    ASSERT_EQ(now, then) << other;
                }
            });
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Grids, AttentionOfNoNumber,
                         testing::Values(grid(1, 1, 0, 0), grid(13, 10, 70, 4), grid(61, 13, 0, 0)),
                         [](const auto& parameter) { return "Case" + std::to_string(parameter.index); });

TEST(AttentionWorkspace, GrowsWithThreadsAndHeadsAlone) {
    const auto options = grid(37, 29, 77, 4);
    const GeometryHandle geometry = make_geometry(options);
    const Inputs inputs = make_inputs(view(options, geometry.get()).info.tokens, 2, 128, SCALEDIT_BFLOAT16, true);
    scaledit_attention_arguments arguments{};
    arguments.geometry = geometry.get();
    arguments.heads = 2;
    arguments.head_dim = 128;
    arguments.scale = 0.1F;
    arguments.instruction_set = SCALEDIT_INSTRUCTION_SET_BEST;
    arguments.threads = 1;
    arguments.query = arguments.key = arguments.value = arguments.output = inputs.query.view();
    const auto bytes = [&] {
        std::size_t result = 0;
        EXPECT_EQ(scaledit_attention_workspace(&arguments, &result), SCALEDIT_OK) << scaledit_last_error();
        return result;
    };
    const std::size_t one = bytes();
    arguments.threads = 3;
    const std::size_t three = bytes();
    arguments.threads = 5;
    EXPECT_EQ(bytes() - three, three - one);
    EXPECT_GT(three, one);
    arguments.heads = 4;
    EXPECT_GT(bytes(), three);
    arguments.instruction_set = scaledit_instruction_set_best();
    const std::size_t named = bytes();
    arguments.instruction_set = SCALEDIT_INSTRUCTION_SET_BEST;
    EXPECT_EQ(bytes(), named);
}

}  // namespace
}  // namespace scaledit
