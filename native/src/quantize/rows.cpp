#include "quantize/rows.h"

#include <bit>
#include <cstring>

namespace scaledit::quantize {
namespace {

float to_float(std::uint16_t bfloat) { return std::bit_cast<float>(static_cast<std::uint32_t>(bfloat) << 16); }

// Rounds to nearest, ties to even; a NaN stays one.
std::uint16_t to_bfloat(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
    const std::uint32_t result = (bits & 0x7fffffffU) > 0x7f800000U ? bits | 0x400000U : rounded;
    return static_cast<std::uint16_t>(result >> 16);
}

template <class Scalar>
Scalar* row_of(const scaledit_tensor& tensor, std::int64_t token, std::int64_t head) {
    return static_cast<Scalar*>(tensor.data) + token * tensor.token_stride + head * tensor.head_stride;
}

}  // namespace

void read_rows(const scaledit_tensor& tensor, std::int64_t head, std::int64_t first, int tokens, int head_dim,
               float* rows) {
    for (int row = 0; row < tokens; ++row, rows += head_dim) {
        if (tensor.dtype == SCALEDIT_FLOAT32) {
            std::memcpy(rows, row_of<const float>(tensor, first + row, head),
                        static_cast<std::size_t>(head_dim) * sizeof(float));
        } else {
            const auto* source = row_of<const std::uint16_t>(tensor, first + row, head);
            for (int i = 0; i < head_dim; ++i) {
                rows[i] = to_float(source[i]);
            }
        }
    }
}

void write_rows(const float* rows, int row_stride, const float* factor, const scaledit_tensor& tensor,
                std::int64_t head, std::int64_t first, int tokens, int head_dim) {
    for (int row = 0; row < tokens; ++row, rows += row_stride) {
        if (tensor.dtype == SCALEDIT_FLOAT32) {
            auto* target = row_of<float>(tensor, first + row, head);
            for (int i = 0; i < head_dim; ++i) {
                target[i] = rows[i] * factor[row];
            }
        } else {
            auto* target = row_of<std::uint16_t>(tensor, first + row, head);
            for (int i = 0; i < head_dim; ++i) {
                target[i] = to_bfloat(rows[i] * factor[row]);
            }
        }
    }
}

}  // namespace scaledit::quantize
