// A geometry as the kernels read it: one flat block of 32-bit numbers, the same bytes on host and device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "geometry/geometry.h"

namespace scaledit::cuda {

// Consecutive tokens of the sequence.
struct TokenRange {
    std::int32_t first;
    std::int32_t tokens;
};

// Where each array begins in the block, in bytes, each on a 16-byte boundary.
struct DeviceGeometryLayout {
    std::size_t queries;   // TokenRange[tiles]: the rows of a query tile
    std::size_t keys;      // TokenRange[ranges]: keys, tiles that follow each other joined to one range
    std::size_t offsets;   // int32[tiles + 1] into keys
    std::size_t schedule;  // int32[tiles]: most keys first
    std::size_t bytes;     // of it all
};

// Throws Error (SCALEDIT_UNSUPPORTED) for a geometry beyond 32-bit counts.
DeviceGeometryLayout layout(const Geometry& geometry);

std::vector<std::byte> pack(const Geometry& geometry);

}  // namespace scaledit::cuda
