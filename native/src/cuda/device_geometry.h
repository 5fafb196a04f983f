// A geometry as the kernels read it: one flat block of 32-bit numbers, the same bytes on host and device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/tile_pairs.h"
#include "geometry/geometry.h"

namespace scaledit::cuda {

// Consecutive tokens of the sequence.
struct TokenRange {
    std::int32_t first;
    std::int32_t tokens;
};

constexpr int kGroupTiles = 3;

// Neighbouring query tiles that a block works on together, each with keys of its own but most of them shared. Key tiles
// come in stages of two, or of one where there is no other of the same kind.
struct TileGroup {
    std::int32_t tile[kGroupTiles];    // -1 where there are fewer
    std::int32_t whole[kGroupTiles];   // stages of two that each attends to
    std::int32_t halves[kGroupTiles];  // stages of one, which for every tile come after those
    std::int32_t stages;               // in all
    std::int32_t runs_first;
    std::int32_t runs_end;
};

// Consecutive stages that the same tiles of a group attend to: stage t has key tiles first + 2 t and second + 2 t.
//
// First come stages of two for all tiles, then those of two for some, then those of one for all and for some. What is
// not for all comes one by one for each tile in turn, so none waits long while the others' pass.
struct KeyRun {
    std::int32_t first;
    std::int32_t second;  // -1: stages of one
    std::int32_t stages;
    std::uint32_t cells;  // bit i: tile[i] of the group
};

// Where each array begins in the block, in bytes, each on a 16-byte boundary.
struct DeviceGeometryLayout {
    std::size_t queries;   // TokenRange[tiles]: the rows of a query tile
    std::size_t keys;      // TokenRange[ranges]: keys, tiles that follow each other joined to one range
    std::size_t offsets;   // int32[tiles + 1] into keys
    std::size_t schedule;  // int32[tiles]: most keys first
    std::size_t groups;  // TileGroup[group_count]: long_groups of text and guidance, most keys first, then the image's
    std::size_t runs;    // KeyRun[]
    std::size_t pairs;   // TilePair[pair_count], long_pairs of them first
    std::size_t pair_runs;  // PairRun[]
    std::int32_t group_count;
    std::int32_t long_groups;
    std::int32_t pair_count;
    std::int32_t long_pairs;
    std::size_t bytes;  // of it all
};

// The groups and their runs of key tiles.
struct GroupLists {
    std::vector<TileGroup> groups;
    std::vector<KeyRun> runs;
    std::int32_t long_groups;
};
GroupLists group_tiles(const Geometry& geometry);

// Builds the lists to know their sizes: worth keeping. Throws Error (SCALEDIT_UNSUPPORTED) for a geometry beyond 32-bit
// counts.
DeviceGeometryLayout layout(const Geometry& geometry);

std::vector<std::byte> pack(const Geometry& geometry);

}  // namespace scaledit::cuda
