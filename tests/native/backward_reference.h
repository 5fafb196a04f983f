// The gradients of attention in float64, and the tensors of the tests that compare with them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "attention_reference.h"

namespace scaledit {

// [tokens, heads, head_dim] each, without gaps.
struct Gradients {
    std::vector<double> query, key, value;

    bool operator==(const Gradients&) const = default;
};

// All that the backward pass reads and writes.
struct Backward {
    Inputs inputs;
    Tensor output_gradient, query_gradient, key_gradient, value_gradient;

    Backward(std::int64_t tokens, std::int64_t heads, std::int64_t head_dim, std::int32_t dtype, bool fused,
             float key_bias, std::uint32_t seed)
        : inputs(make_inputs(tokens, heads, head_dim, dtype, fused)),
          output_gradient(make_tensor(tokens, heads, head_dim, dtype, 8)) {
        fill_normal(inputs, seed, key_bias);
        std::mt19937 random(seed + 1);
        std::normal_distribution<float> normal;
        output_gradient.fill([&](auto...) { return normal(random); });
        // The gradients lie side by side where the inputs do.
        const Inputs gradients = make_inputs(tokens, heads, head_dim, dtype, fused);
        query_gradient = fused ? gradients.query : make_tensor(tokens, heads, head_dim, dtype, 24);
        key_gradient = fused ? gradients.key : make_tensor(tokens, heads, head_dim, dtype, 8);
        value_gradient = fused ? gradients.value : make_tensor(tokens, heads, head_dim, dtype, 16);
    }

    [[nodiscard]] float scale() const { return 1.0F / std::sqrt(static_cast<float>(inputs.query.head_dim)); }

    void poison() const {
        for (const Tensor* gradient : {&query_gradient, &key_gradient, &value_gradient}) {
            std::ranges::fill(*gradient->memory, kPoison);
        }
    }

    // What was written; expects every row written and nothing beside the rows.
    [[nodiscard]] Gradients gradients() const {
        if (query_gradient.memory == key_gradient.memory) {
            return {rows_within(query_gradient), rows_within(key_gradient), rows_within(value_gradient)};
        }
        return {rows_alone(query_gradient), rows_alone(key_gradient), rows_alone(value_gradient)};
    }
};

// The gradients of sum(output * output_gradient) in float64, from the output in float64.
inline Gradients reference_gradients(const GeometryView& geometry, const Backward& backward) {
    const auto& [query, key, value, unused] = backward.inputs;
    const auto scale = static_cast<double>(backward.scale());
    const Result forward = reference(geometry, backward.inputs, scale);
    const auto heads = static_cast<std::size_t>(query.heads);
    const auto width = static_cast<std::size_t>(query.head_dim);
    const auto tokens = static_cast<std::size_t>(query.tokens);
    const std::vector<double> queries = rows_within(query);
    const std::vector<double> keys = rows_within(key);
    const std::vector<double> values = rows_within(value);
    const std::vector<double> output_gradients = rows_within(backward.output_gradient);
    const std::vector<double> zeros(tokens * heads * width);
    Gradients result{zeros, zeros, zeros};
    const auto dot = [&](const std::vector<double>& a, std::size_t of_a, const std::vector<double>& b,
                         std::size_t of_b) {
        double sum = 0;
        for (std::size_t i = 0; i < width; ++i) {
            sum += a[of_a + i] * b[of_b + i];
        }
        return sum;
    };
    const auto add = [&](std::vector<double>& to, std::size_t of_to, double factor, const std::vector<double>& from,
                         std::size_t of_from) {
        for (std::size_t i = 0; i < width; ++i) {
            to[of_to + i] += factor * from[of_from + i];
        }
    };
    for (std::size_t tile = 0; tile < geometry.tiles.size(); ++tile) {
        const std::vector<std::int64_t> allowed = allowed_tokens(geometry, tile);
        const auto& own = geometry.tiles[tile];
        for (auto token = own.first; token < own.first + own.tokens; ++token) {
            for (std::size_t head = 0; head < heads; ++head) {
                const auto row = static_cast<std::size_t>(token);
                const std::size_t q = (row * heads + head) * width;
                const double delta = dot(output_gradients, q, forward.output, q);
                for (const std::int64_t other : allowed) {
                    const std::size_t k = (static_cast<std::size_t>(other) * heads + head) * width;
                    const double weight =
                        std::exp(scale * dot(queries, q, keys, k) - forward.log_sum_exp[head * tokens + row]);
                    const double score_gradient = scale * weight * (dot(output_gradients, q, values, k) - delta);
                    add(result.value, k, weight, output_gradients, q);
                    add(result.query, q, score_gradient, keys, k);
                    add(result.key, k, score_gradient, queries, q);
                }
            }
        }
    }
    return result;
}

}  // namespace scaledit
