// Rows of a [tokens, heads, head_dim] tensor, read and written as float32.
#pragma once

#include <cstdint>

#include "scaledit/scaledit.h"

namespace scaledit::quantize {

// rows[tokens * head_dim] = the tensor's rows first ... first + tokens - 1 of one head.
void read_rows(const scaledit_tensor& tensor, std::int64_t head, std::int64_t first, int tokens, int head_dim,
               float* rows);

// tensor[first + row, head] = rows[row] * factor[row]; rows lie `row_stride` apart.
void write_rows(const float* rows, int row_stride, const float* factor, const scaledit_tensor& tensor,
                std::int64_t head, std::int64_t first, int tokens, int head_dim);

}  // namespace scaledit::quantize
