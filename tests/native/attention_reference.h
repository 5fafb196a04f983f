// Attention in float64 over a mask rebuilt from tiles and ranges, and the inputs of the tests that compare with it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "geometry_view.h"
#include "scaledit/scaledit.h"

namespace scaledit {

inline std::string name_of(scaledit_instruction_set set) {
    switch (set) {
        case SCALEDIT_INSTRUCTION_SET_PORTABLE:
            return "portable";
        case SCALEDIT_INSTRUCTION_SET_AVX2:
            return "AVX2";
        case SCALEDIT_INSTRUCTION_SET_AVX512_VNNI:
            return "AVX-512 VNNI";
        default:
            return "best";
    }
}

// Those of this processor.
inline std::vector<scaledit_instruction_set> supported_sets() {
    std::vector<scaledit_instruction_set> sets;
    for (const auto set :
         {SCALEDIT_INSTRUCTION_SET_PORTABLE, SCALEDIT_INSTRUCTION_SET_AVX2, SCALEDIT_INSTRUCTION_SET_AVX512_VNNI}) {
        if (scaledit_instruction_set_supported(set) == SCALEDIT_OK) {
            sets.push_back(set);
        }
    }
    return sets;
}

inline float from_bfloat(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

// Nearest, ties to even.
inline std::uint16_t to_bfloat(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// A [tokens, heads, head_dim] tensor with room before, between and behind its rows.
struct Tensor {
    std::int64_t tokens = 0;
    std::int64_t heads = 0;
    std::int64_t head_dim = 0;
    std::int64_t token_stride = 0;
    std::int64_t head_stride = 0;
    std::int32_t dtype = SCALEDIT_FLOAT32;
    std::int64_t first = 0;  // of the tensor in its memory, in elements
    std::shared_ptr<std::vector<std::byte>> memory;

    [[nodiscard]] std::int64_t element_bytes() const { return dtype == SCALEDIT_FLOAT32 ? 4 : 2; }
    [[nodiscard]] std::byte* at(std::int64_t token, std::int64_t head, std::int64_t channel) const {
        const std::int64_t element = first + token * token_stride + head * head_stride + channel;
        return memory->data() + element * element_bytes();
    }
    [[nodiscard]] double get(std::int64_t token, std::int64_t head, std::int64_t channel) const {
        if (dtype == SCALEDIT_FLOAT32) {
            float value = 0;
            std::memcpy(&value, at(token, head, channel), sizeof(value));
            return static_cast<double>(value);
        }
        std::uint16_t bits = 0;
        std::memcpy(&bits, at(token, head, channel), sizeof(bits));
        return static_cast<double>(from_bfloat(bits));
    }
    void set(std::int64_t token, std::int64_t head, std::int64_t channel, float value) const {
        if (dtype == SCALEDIT_FLOAT32) {
            std::memcpy(at(token, head, channel), &value, sizeof(value));
        } else {
            const std::uint16_t bits = to_bfloat(value);
            std::memcpy(at(token, head, channel), &bits, sizeof(bits));
        }
    }
    [[nodiscard]] scaledit_tensor view() const { return {at(0, 0, 0), token_stride, head_stride, dtype}; }

    template <class Value>
    void fill(const Value& value) const {  // value(token, head, channel)
        for (std::int64_t token = 0; token < tokens; ++token) {
            for (std::int64_t head = 0; head < heads; ++head) {
                for (std::int64_t channel = 0; channel < head_dim; ++channel) {
                    set(token, head, channel, value(token, head, channel));
                }
            }
        }
    }
};

// Query, key, value and an output, the first three side by side in one buffer or each on its own.
struct Inputs {
    Tensor query, key, value, output;
};

constexpr std::byte kPoison{0xff};  // four of them are a NaN, two of them a bfloat16 NaN

inline Tensor make_tensor(std::int64_t tokens, std::int64_t heads, std::int64_t head_dim, std::int32_t dtype,
                          std::int64_t gap) {
    Tensor tensor{tokens, heads, head_dim, heads * (head_dim + gap) + gap, head_dim + gap, dtype, gap, nullptr};
    tensor.memory = std::make_shared<std::vector<std::byte>>(
        static_cast<std::size_t>((tokens * tensor.token_stride + 2 * gap) * tensor.element_bytes()), kPoison);
    return tensor;
}

inline Inputs make_inputs(std::int64_t tokens, std::int64_t heads, std::int64_t head_dim, std::int32_t dtype,
                          bool fused) {
    Inputs inputs{make_tensor(tokens, heads, head_dim, dtype, 0), make_tensor(tokens, heads, head_dim, dtype, 0),
                  make_tensor(tokens, heads, head_dim, dtype, 0), make_tensor(tokens, heads, head_dim, dtype, 24)};
    if (fused) {  // [tokens, 3, heads, head_dim]
        const std::int64_t row = heads * head_dim;
        Tensor part{tokens, heads, head_dim, 3 * row, head_dim, dtype, 0, nullptr};
        part.memory = std::make_shared<std::vector<std::byte>>(
            static_cast<std::size_t>(tokens * 3 * row * part.element_bytes()), kPoison);
        inputs.query = inputs.key = inputs.value = part;
        inputs.key.first = row;
        inputs.value.first = 2 * row;
    }
    return inputs;
}

// Normal numbers; keys with a bias for each head and channel, as FLUX has them.
inline void fill_normal(const Inputs& inputs, std::uint32_t seed, float key_bias) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> bias(static_cast<std::size_t>(inputs.key.heads * inputs.key.head_dim));
    for (float& of_channel : bias) {
        of_channel = key_bias * normal(random);
    }
    const auto draw = [&](auto...) { return normal(random); };
    inputs.query.fill(draw);
    inputs.value.fill(draw);
    inputs.key.fill([&](std::int64_t /*token*/, std::int64_t head, std::int64_t channel) {
        return normal(random) + bias[static_cast<std::size_t>(head * inputs.key.head_dim + channel)];
    });
}

// [tokens, heads, head_dim] and [heads, tokens], without gaps.
struct Result {
    std::vector<double> output;
    std::vector<double> log_sum_exp;
};

// The tokens that those of a tile attend to.
inline std::vector<std::int64_t> allowed_tokens(const GeometryView& geometry, std::size_t tile) {
    std::vector<std::int64_t> allowed;
    for (auto r = geometry.offsets[tile]; r < geometry.offsets[tile + 1]; ++r) {
        const auto& range = geometry.ranges[static_cast<std::size_t>(r)];
        for (std::int32_t t = range.first; t < range.first + range.count; ++t) {
            const auto& of = geometry.tiles[static_cast<std::size_t>(t)];
            for (std::int64_t token = of.first; token < of.first + of.tokens; ++token) {
                allowed.push_back(token);
            }
        }
    }
    return allowed;
}

inline Result reference(const GeometryView& geometry, const Inputs& inputs, double scale) {
    const auto& [query, key, value, unused] = inputs;
    Result result{std::vector<double>(static_cast<std::size_t>(query.tokens * query.heads * query.head_dim)),
                  std::vector<double>(static_cast<std::size_t>(query.tokens * query.heads))};
    const auto rows = [&](const Tensor& tensor, std::int64_t head) {
        std::vector<double> numbers;
        for (std::int64_t token = 0; token < tensor.tokens; ++token) {
            for (std::int64_t channel = 0; channel < tensor.head_dim; ++channel) {
                numbers.push_back(tensor.get(token, head, channel));
            }
        }
        return numbers;
    };
    const std::int64_t head_dim = query.head_dim;
    for (std::int64_t head = 0; head < query.heads; ++head) {
        const auto queries = rows(query, head);
        const auto keys = rows(key, head);
        const auto values = rows(value, head);
        for (std::size_t tile = 0; tile < geometry.tiles.size(); ++tile) {
            const std::vector<std::int64_t> allowed = allowed_tokens(geometry, tile);
            const auto& own = geometry.tiles[tile];
            for (std::int64_t row = own.first; row < own.first + own.tokens; ++row) {
                std::vector<double> weights;
                double maximum = -INFINITY;
                for (const std::int64_t token : allowed) {
                    double score = 0;
                    for (std::int64_t i = 0; i < head_dim; ++i) {
                        score += queries[static_cast<std::size_t>(row * head_dim + i)] *
                                 keys[static_cast<std::size_t>(token * head_dim + i)];
                    }
                    weights.push_back(score * scale);
                    maximum = std::max(maximum, weights.back());
                }
                double sum = 0;
                for (double& weight : weights) {
                    weight = std::exp(weight - maximum);
                    sum += weight;
                }
                double* out = &result.output[static_cast<std::size_t>((row * query.heads + head) * head_dim)];
                for (std::size_t k = 0; k < allowed.size(); ++k) {
                    for (std::int64_t i = 0; i < head_dim; ++i) {
                        out[i] += weights[k] / sum * values[static_cast<std::size_t>(allowed[k] * head_dim + i)];
                    }
                }
                result.log_sum_exp[static_cast<std::size_t>(head * query.tokens + row)] = maximum + std::log(sum);
            }
        }
    }
    return result;
}

// The tensor's numbers without gaps.
inline std::vector<double> rows_within(const Tensor& tensor) {
    std::vector<double> rows;
    for (std::int64_t token = 0; token < tensor.tokens; ++token) {
        for (std::int64_t head = 0; head < tensor.heads; ++head) {
            for (std::int64_t channel = 0; channel < tensor.head_dim; ++channel) {
                rows.push_back(tensor.get(token, head, channel));
            }
        }
    }
    return rows;
}

// The same; expects the gaps to be poisoned still.
inline std::vector<double> rows_alone(const Tensor& tensor) {
    std::vector<std::byte> outside = *tensor.memory;
    for (std::int64_t token = 0; token < tensor.tokens; ++token) {
        for (std::int64_t head = 0; head < tensor.heads; ++head) {
            const std::ptrdiff_t offset = tensor.at(token, head, 0) - tensor.memory->data();
            std::fill_n(outside.begin() + offset, tensor.head_dim * tensor.element_bytes(), kPoison);
        }
    }
    EXPECT_TRUE(std::ranges::all_of(outside, [](std::byte b) { return b == kPoison; })) << "written beside the rows";
    return rows_within(tensor);
}

// Calls the C ABI with a poisoned output and workspace; expects every row written and nothing beside the rows.
inline Result attend(const scaledit_geometry* geometry, const Inputs& inputs, float scale,
                     scaledit_arithmetic arithmetic, scaledit_instruction_set set, int threads = 2) {
    const Tensor& output = inputs.output;
    std::ranges::fill(*output.memory, kPoison);
    Result result{{}, std::vector<double>(static_cast<std::size_t>(output.tokens * output.heads))};
    std::vector<float> log_sum_exp(result.log_sum_exp.size() + 1, std::bit_cast<float>(0xffffffffU));

    scaledit_attention_arguments arguments{};
    arguments.geometry = geometry;
    arguments.heads = static_cast<std::int32_t>(output.heads);
    arguments.head_dim = static_cast<std::int32_t>(output.head_dim);
    arguments.scale = scale;
    arguments.arithmetic = arithmetic;
    arguments.instruction_set = set;
    arguments.threads = threads;
    arguments.query = inputs.query.view();
    arguments.key = inputs.key.view();
    arguments.value = inputs.value.view();
    arguments.output = output.view();
    arguments.log_sum_exp = log_sum_exp.data();
    EXPECT_EQ(scaledit_attention_workspace(&arguments, &arguments.workspace_bytes), SCALEDIT_OK)
        << scaledit_last_error();
    constexpr std::size_t guard = 256;
    const std::size_t whole = (arguments.workspace_bytes + guard + 63) / 64 * 64;
    const std::unique_ptr<void, void (*)(void*)> workspace(std::aligned_alloc(64, whole), std::free);
    std::memset(workspace.get(), static_cast<int>(kPoison), whole);
    arguments.workspace = workspace.get();
    EXPECT_EQ(scaledit_attention(&arguments), SCALEDIT_OK) << scaledit_last_error();

    const auto* bytes = static_cast<const std::byte*>(workspace.get());
    EXPECT_TRUE(std::all_of(bytes + arguments.workspace_bytes, bytes + whole, [](std::byte b) { return b == kPoison; }))
        << "written behind the workspace";
    EXPECT_EQ(std::bit_cast<std::uint32_t>(log_sum_exp.back()), 0xffffffffU) << "written behind log_sum_exp";
    std::copy(log_sum_exp.begin(), log_sum_exp.end() - 1, result.log_sum_exp.begin());

    result.output = rows_alone(output);
    return result;
}

// What a call leaves of its rows where guidance tokens attend to nobody: the same as `of_all`, but for the guidance
// tokens', which are poisoned still.
inline void expect_guidance_left_out(const GeometryView& tiles, std::int64_t heads, const Result& result,
                                     const Result& of_all) {
    const std::int64_t written = tiles.info.text_tokens + tiles.info.image_tokens;
    const auto channels = static_cast<std::int64_t>(result.output.size()) / tiles.info.tokens;
    for (std::int64_t i = 0; i < channels * tiles.info.tokens; ++i) {
        const double x = result.output[static_cast<std::size_t>(i)];
        ASSERT_TRUE(i / channels < written ? x == of_all.output[static_cast<std::size_t>(i)] : std::isnan(x)) << i;
    }
    for (std::int64_t i = 0; i < heads * tiles.info.tokens; ++i) {
        const double x = result.log_sum_exp[static_cast<std::size_t>(i)];
        ASSERT_TRUE(i % tiles.info.tokens < written ? x == of_all.log_sum_exp[static_cast<std::size_t>(i)]
                                                    : std::isnan(x))
            << i;
    }
}

inline bool all_finite(const std::vector<double>& numbers) {
    return std::ranges::all_of(numbers, [](double x) { return std::isfinite(x); });
}

struct Difference {
    double l2;  // ||a - b|| / ||b||
    double l1;  // sum |a - b| / sum |b|
    double cosine;
    double largest;  // |a - b|
};

inline Difference compare(const std::vector<double>& a, const std::vector<double>& b) {
    double dot = 0;
    double a2 = 0;
    double b2 = 0;
    double d2 = 0;
    double d1 = 0;
    double b1 = 0;
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = a[i] - b[i];
        dot += a[i] * b[i];
        a2 += a[i] * a[i];
        b2 += b[i] * b[i];
        d2 += difference * difference;
        d1 += std::abs(difference);
        b1 += std::abs(b[i]);
        largest = std::max(largest, std::abs(difference));
    }
    if (b1 == 0) {
        return {std::sqrt(d2), d1, d2 == 0 ? 1.0 : 0.0, largest};
    }
    return {std::sqrt(d2 / b2), d1 / b1, dot / std::sqrt(a2 * b2), largest};
}

}  // namespace scaledit
