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

// Neighbouring query tiles that a block works on together, each with keys of its own but most of them shared.
struct TilePair {
    std::int32_t tile[2];    // second: -1 where a tile is alone
    std::int32_t listed[2];  // key tiles that each attends to
    std::int32_t runs_first;
    std::int32_t runs_end;
};

// Consecutive key tiles that the same tiles of a pair attend to. First come those of both; then, one by one in turn,
// those of one alone: so no tile waits long for its next key tile while the other's pass.
struct TileRun {
    std::int32_t first;
    std::int32_t count;
    std::uint32_t cells;  // bit i: tile[i] of the pair
};

// Where each array begins in the block, in bytes, each on a 16-byte boundary.
struct DeviceGeometryLayout {
    std::size_t queries;   // TokenRange[tiles]: the rows of a query tile
    std::size_t keys;      // TokenRange[ranges]: keys, tiles that follow each other joined to one range
    std::size_t offsets;   // int32[tiles + 1] into keys
    std::size_t schedule;  // int32[tiles]: most keys first
    std::size_t pairs;     // TilePair[pair_count]: long_pairs of text and guidance, most keys first, then the image's
    std::size_t runs;      // TileRun[]
    std::int32_t pair_count;
    std::int32_t long_pairs;
    std::size_t bytes;  // of it all
};

// The pairs and their runs of key tiles.
struct PairLists {
    std::vector<TilePair> pairs;
    std::vector<TileRun> runs;
    std::int32_t long_pairs;
};
PairLists pair_up(const Geometry& geometry);

// Builds the lists to know their sizes: worth keeping. Throws Error (SCALEDIT_UNSUPPORTED) for a geometry beyond 32-bit
// counts.
DeviceGeometryLayout layout(const Geometry& geometry);

std::vector<std::byte> pack(const Geometry& geometry);

}  // namespace scaledit::cuda
