// How a tile of keys or values lies in memory once it is packed for a kernel.
//
// Kernels multiply chunks: 32 bits that hold one, two or four neighbours along the summed dimension. A packed matrix is
// cut into panels as wide as the micro-kernel's columns, and inside a panel the chunks of one summed index lie side by
// side: the kernel loads them as vectors, multiplies them with a chunk of the other operand that it broadcasts, and
// needs no sum across lanes.
//
//   keys    [head_dim x 64 tokens]   panels of tokens,   chunks of neighbouring channels
//   values  [64 tokens x head_dim]   panels of channels, chunks of neighbouring tokens
#pragma once

#include <cstddef>
#include <cstdint>

namespace scaledit::quantize {

inline constexpr int kTileTokens = 64;
inline constexpr int kMaxHeadDim = 128;

// INT8 keys are kept in [-127, 127] and their queries are kept as unsigned q + 128 (the processor multiplies u8 by s8
// only), so that the sum of products starts from KeyScales::start. All other elements are multiplied as they are.
enum class Element : std::uint8_t { kFloat32, kInt16, kInt8 };

constexpr int elements_per_chunk(Element element) {
    switch (element) {
        case Element::kFloat32:
            return 1;
        case Element::kInt16:
            return 2;
        case Element::kInt8:
            return 4;
    }
    return 0;
}

struct TileLayout {
    Element key;
    Element value;
    int panel;  // columns of a panel
};

// Stands before the chunks of a packed key tile.
struct KeyScales {
    alignas(64) float scale[kTileTokens];
    alignas(64) std::int32_t start[kTileTokens];
};

// Stands before the chunks of a packed value tile.
struct ValueScales {
    alignas(64) float scale[kMaxHeadDim];
};

constexpr std::size_t key_tile_bytes(const TileLayout& layout, int head_dim) {
    return sizeof(KeyScales) +
           sizeof(std::uint32_t) * kTileTokens * static_cast<std::size_t>(head_dim / elements_per_chunk(layout.key));
}

constexpr std::size_t value_tile_bytes(const TileLayout& layout, int head_dim) {
    return sizeof(ValueScales) +
           sizeof(std::uint32_t) * static_cast<std::size_t>(kTileTokens / elements_per_chunk(layout.value) * head_dim);
}

}  // namespace scaledit::quantize
