// Matrices in a GPU's memory, and what tests of kernels that treat rows of them expect.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "attention_reference.h"
#include "cuda/gpu.h"
#include "scaledit/scaledit.h"

namespace scaledit {

// A number that a result is to come close to, and what float32 may take off on the way.
struct Expected {
    double value;
    double slack;
};

// A matrix on the GPU with room before, between and behind its rows, and a copy of it.
class Matrix {
public:
    Matrix(std::int64_t row_count, std::int64_t channels, std::int32_t type = SCALEDIT_BFLOAT16, std::int64_t gap = 0)
        : rows(row_count),
          width(channels),
          stride(width + gap),
          first(gap),
          dtype(type),
          host(static_cast<std::size_t>((rows * stride + gap) * element_bytes()), kPoison),
          device(host) {}

    [[nodiscard]] std::int64_t element_bytes() const {
        return dtype == SCALEDIT_E4M3 ? 1 : dtype == SCALEDIT_BFLOAT16 ? 2 : 4;
    }
    [[nodiscard]] std::size_t at(std::int64_t row, std::int64_t channel) const {
        return static_cast<std::size_t>((first + row * stride + channel) * element_bytes());
    }
    [[nodiscard]] std::uint16_t bits(std::int64_t row, std::int64_t channel) const {
        std::uint16_t bits = 0;
        std::memcpy(&bits, &host[at(row, channel)], 2);
        return bits;
    }
    [[nodiscard]] double get(std::int64_t row, std::int64_t channel) const {
        if (dtype == SCALEDIT_FLOAT32) {
            float number = 0;
            std::memcpy(&number, &host[at(row, channel)], sizeof(number));
            return static_cast<double>(number);
        }
        return static_cast<double>(from_bfloat(bits(row, channel)));
    }
    [[nodiscard]] std::uint8_t code(std::int64_t row, std::int64_t channel) const {
        return static_cast<std::uint8_t>(host[at(row, channel)]);
    }
    [[nodiscard]] scaledit_matrix view(std::int64_t channel = 0) const {
        return {device.data() + at(0, channel), stride, dtype};
    }

    template <class Value>
    void fill(const Value& value) {  // value(row, channel), of bfloat16
        for (std::int64_t row = 0; row < rows; ++row) {
            for (std::int64_t channel = 0; channel < width; ++channel) {
                const std::uint16_t rounded = to_bfloat(value(row, channel));
                std::memcpy(&host[at(row, channel)], &rounded, 2);
            }
        }
        device.write(host);
    }
    void read() { host = device.read(); }

    // Whether all is as it was outside the rows' channels `from` ... `to - 1`.
    [[nodiscard]] bool is_untouched_outside(const std::vector<std::byte>& before, std::int64_t from,
                                            std::int64_t to) const {
        std::vector<std::byte> after = host;
        for (std::int64_t row = 0; row < rows; ++row) {
            std::copy_n(before.begin() + static_cast<std::ptrdiff_t>(at(row, from)), (to - from) * element_bytes(),
                        after.begin() + static_cast<std::ptrdiff_t>(at(row, from)));
        }
        return after == before;
    }

    std::int64_t rows;
    std::int64_t width;
    std::int64_t stride;
    std::int64_t first;
    std::int32_t dtype;
    std::vector<std::byte> host;
    DeviceMemory device;
};

// Rows as a model has them, and as none should: of any size, with a strong channel, of one number, of zeros.
inline void fill_rows(Matrix& matrix, std::mt19937& random) {
    std::normal_distribution<float> normal;
    matrix.fill([&](std::int64_t row, std::int64_t channel) {
        const float x = normal(random) * (channel == 5 ? 300.0F : 1.0F) + 0.5F;
        switch (row % 8) {
            case 3:
                return x * 1e4F;
            case 4:
                return x * 1e-3F;
            case 5:
                return -1234.0F;
            case 6:
                return 0.0F;
            default:
                return x;
        }
    });
}

inline void expect_bfloat16(double got, const Expected& expected, const std::string& where) {
    constexpr double kHalfStep = 0x1p-8;
    ASSERT_LE(std::abs(got - expected.value), 1.001 * kHalfStep * std::abs(expected.value) + expected.slack)
        << where << ": " << got << ", expected " << expected.value;
}

// As approximated by tanh. ex2.approx has a relative error of 2^-22, to which comes what its argument is rounded by.
inline Expected gelu(double x) {
    const double twice = 2 * std::sqrt(2 / 3.141592653589793) * (x + 0.044715 * x * x * x);
    const double value = x / (1 + std::exp(-twice));
    return {value, std::abs(value) * (1e-6 + 4e-7 * std::abs(twice)) + 1e-35};
}

}  // namespace scaledit
