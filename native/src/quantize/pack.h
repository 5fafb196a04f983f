// Packs tiles of queries, keys and values for the kernels, as float32 or quantised.
//
// Quantised here, once for all instruction sets, so that every kernel multiplies the same integers:
//   queries and keys  symmetric INT8, one scale for each token: amax / 127
//   values            symmetric, 13 bits with sign, one scale for each channel of a tile: amax / 4095
// A layout whose elements are float32 holds the same integers as floats.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantize/tile_layout.h"

namespace scaledit::quantize {

inline constexpr float kValueLimit = 4095.0F;

enum class Arithmetic : std::uint8_t { kFloat32, kInt8 };

// sums[head_dim] += the sum of rows[tokens * head_dim] over tokens.
void add_to_sums(const float* rows, int tokens, int head_dim, double* sums);

// chunks[row * kMaxHeadDim ...] = rows[tokens * head_dim]; scale[row] turns a row's elements back into its numbers.
void pack_queries(Arithmetic arithmetic, Element element, const float* rows, int tokens, int head_dim,
                  std::uint32_t* chunks, float* scale);

// Writes one key tile; tokens that it lacks become zeros.
void pack_keys(Arithmetic arithmetic, const TileLayout& layout, const float* rows, int tokens, int head_dim,
               std::byte* tile);

// Writes one value tile; tokens that it lacks become zeros.
void pack_values(Arithmetic arithmetic, const TileLayout& layout, const float* rows, int tokens, int head_dim,
                 std::byte* tile);

}  // namespace scaledit::quantize
