// The gradients of attention in bfloat16 on an NVIDIA GPU, over a geometry's tile lists.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device_geometry.h"
#include "cuda/kernels.h"
#include "cuda/packed.h"
#include "geometry/geometry.h"
#include "scaledit/scaledit.h"

namespace scaledit::cuda {

// The workspace of a call: where each part of it begins, in bytes.
struct BackwardWorkspace {
    std::size_t statistics;  // float [heads, tiles, 2, kTileTokens]
    std::size_t next;        // int32[2]: jobs that are given out, of queries' gradients and of keys'
    std::size_t bytes;
};

constexpr BackwardWorkspace backward_workspace(std::int64_t tiles, std::int32_t heads) {
    BackwardWorkspace at{};
    at.next = static_cast<std::size_t>(heads * tiles) * 2 * kTileTokens * sizeof(float);
    at.bytes = at.next + kWorkspaceAlignment;
    return at;
}

// Sizes, strides and overlaps are checked already; query's GPU runs the kernels of a bfloat16 `kernel`. Throws as
// attend().
void propagate_back(const Geometry& geometry, const DeviceGeometryLayout& at, Kernel kernel,
                    const scaledit_cuda_attention_backward_arguments& arguments);

}  // namespace scaledit::cuda
