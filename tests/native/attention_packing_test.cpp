// What the kernels of every instruction set multiply, checked without them: packed tiles are read back as the processor
// would, in plain integers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <vector>

#include "quantize/pack.h"
#include "quantize/tile_layout.h"

namespace scaledit::quantize {
namespace {

struct Case {
    const char* name;
    TileLayout layout;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

// One element of a packed operand; `position` counts elements.
double element(Element type, const std::uint32_t* chunks, int position, bool is_query) {
    const auto* bytes = reinterpret_cast<const std::byte*>(chunks);
    switch (type) {
        case Element::kFloat32: {
            float value = 0;
            std::memcpy(&value, bytes + position * 4, sizeof(value));
            return static_cast<double>(value);
        }
        case Element::kInt16: {
            std::int16_t value = 0;
            std::memcpy(&value, bytes + position * 2, sizeof(value));
            return value;
        }
        case Element::kInt8:
            return is_query ? std::to_integer<std::uint8_t>(bytes[position])
                            : static_cast<std::int8_t>(std::to_integer<std::uint8_t>(bytes[position]));
    }
    return NAN;
}

class Packing : public testing::TestWithParam<Case> {
protected:
    std::vector<float> normal_rows(int tokens, int head_dim) {
        std::vector<float> rows(static_cast<std::size_t>(tokens * head_dim));
        std::ranges::generate(rows, [&] { return normal_(random_); });
        return rows;
    }

    const TileLayout layout_ = GetParam().layout;

private:
    std::mt19937 random_{3};
    std::normal_distribution<float> normal_;
};

// The integers of a row, as a definition rather than as fast code.
std::vector<double> integers(const float* numbers, int count, int stride, float limit) {
    float maximum = 0;
    for (int i = 0; i < count; ++i) {
        maximum = std::max(maximum, std::abs(numbers[i * stride]));
    }
    std::vector<double> result;
    for (int i = 0; i < count; ++i) {
        result.push_back(std::nearbyint(numbers[i * stride] * (maximum == 0 ? 0.0F : limit / maximum)));
    }
    return result;
}

TEST_P(Packing, ScoresAreProductsOfIntegers) {
    for (const int head_dim : {64, 128}) {
        for (const int tokens : {1, 37, 64}) {
            const auto queries = normal_rows(kTileTokens, head_dim);
            auto keys = normal_rows(tokens, head_dim);
            std::fill_n(keys.begin(), head_dim, 0.0F);  // a row of zeros
            std::vector<std::uint32_t> query_chunks(std::size_t{kTileTokens} * kMaxHeadDim);
            std::vector<float> scale(kTileTokens);
            pack_queries(Arithmetic::kInt8, layout_.key, queries.data(), kTileTokens, head_dim, query_chunks.data(),
                         scale.data());
            alignas(64) std::byte tile[sizeof(KeyScales) + sizeof(float) * kTileTokens * kMaxHeadDim];
            std::ranges::fill(tile, std::byte{0xff});
            pack_keys(Arithmetic::kInt8, layout_, keys.data(), tokens, head_dim, tile);
            const auto* header = reinterpret_cast<const KeyScales*>(tile);
            const auto* chunks = reinterpret_cast<const std::uint32_t*>(header + 1);
            const int per_chunk = elements_per_chunk(layout_.key);
            const int depth = head_dim / per_chunk;

            for (int query = 0; query < kTileTokens; ++query) {
                const auto q = integers(queries.data() + query * head_dim, head_dim, 1, 127);
                for (int key = 0; key < kTileTokens; ++key) {
                    double sum = layout_.key == Element::kInt8 ? header->start[key] : 0;
                    for (int i = 0; i < head_dim; ++i) {
                        const int chunk =
                            (key / layout_.panel * depth + i / per_chunk) * layout_.panel + key % layout_.panel;
                        sum += element(layout_.key, query_chunks.data() + query * kMaxHeadDim, i, true) *
                               element(layout_.key, chunks, chunk * per_chunk + i % per_chunk, false);
                    }
                    double expected = 0;
                    if (key < tokens) {
                        const auto k = integers(keys.data() + key * head_dim, head_dim, 1, 127);
                        for (std::size_t i = 0; i < k.size(); ++i) {
                            expected += q[i] * k[i];
                        }
                    }
                    ASSERT_EQ(sum, expected) << query << ", " << key << " of " << tokens << ", " << head_dim;
                }
            }
        }
    }
}

TEST_P(Packing, ValuesAreIntegersOfTheirChannel) {
    for (const int head_dim : {64, 128}) {
        for (const int tokens : {1, 37, 64}) {
            auto values = normal_rows(tokens, head_dim);
            for (int token = 0; token < tokens; ++token) {
                values[static_cast<std::size_t>(token * head_dim + 9)] = 0.0F;
            }
            alignas(64) std::byte tile[sizeof(ValueScales) + sizeof(float) * kTileTokens * kMaxHeadDim];
            std::ranges::fill(tile, std::byte{0xff});
            pack_values(Arithmetic::kInt8, layout_, values.data(), tokens, head_dim, tile);
            const auto* header = reinterpret_cast<const ValueScales*>(tile);
            const auto* chunks = reinterpret_cast<const std::uint32_t*>(header + 1);
            const int per_chunk = elements_per_chunk(layout_.value);
            const int depth = kTileTokens / per_chunk;

            for (int channel = 0; channel < head_dim; ++channel) {
                const auto expected = integers(values.data() + channel, tokens, head_dim, kValueLimit);
                for (int token = 0; token < kTileTokens; ++token) {
                    const int chunk =
                        (channel / layout_.panel * depth + token / per_chunk) * layout_.panel + channel % layout_.panel;
                    const double packed = element(layout_.value, chunks, chunk * per_chunk + token % per_chunk, false);
                    ASSERT_EQ(packed, token < tokens ? expected[static_cast<std::size_t>(token)] : 0.0);
                    if (token < tokens) {
                        const auto number =
                            static_cast<double>(values[static_cast<std::size_t>(token * head_dim + channel)]);
                        ASSERT_NEAR(packed * static_cast<double>(header->scale[channel]), number, 1e-3);
                    }
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Layouts, Packing,
                         testing::Values(Case{"Portable", {Element::kFloat32, Element::kFloat32, 8}},
                                         Case{"Avx2", {Element::kInt16, Element::kInt16, 16}},
                                         Case{"Avx512Vnni", {Element::kInt8, Element::kInt16, 32}}),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace scaledit::quantize
