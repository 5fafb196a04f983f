#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace scaledit::cuda {

// A [tokens, heads, head_dim] tensor of a GPU; head_dim is contiguous.
struct DeviceTensor {
    __nv_bfloat16* data;
    std::int64_t token_stride;
    std::int64_t head_stride;

    __device__ __nv_bfloat16* row(std::int64_t token, int head) const {
        return data + token * token_stride + head * head_stride;
    }
};

// Where a 16-byte chunk of a row lies, so that eight rows of a matrix meet eight different groups of banks; two rows of
// 64 bytes share the 128 bytes that shared memory serves at once.
__device__ constexpr int swizzled_chunk(int row_bytes, int row, int chunk) {
    return row_bytes >= 128 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
}

}  // namespace scaledit::cuda
