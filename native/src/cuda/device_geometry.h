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

// Neighbouring query tiles that a block works on together, each with key tiles of its own but most of them shared. Key
// tiles come in stages of two, or of one where there is no other of the same kind.
//
// First come stages for all query tiles, then up to kMostApart for some: those of two before those of one, and one by
// one for each query tile in turn, so that none waits long while the others' pass. Query tile 0 attends to the first of
// all: with it every group begins.
constexpr int kMostApart = 64;
struct TileGroup {
    std::uint64_t apart[kGroupTiles];  // bit i: the query tile attends to stage together + i
    std::int32_t tile[kGroupTiles];    // -1 where there are fewer
    std::int32_t whole[kGroupTiles];   // stages of two that each attends to
    std::int32_t halves[kGroupTiles];  // stages of one, which for every query tile come after those
    std::int32_t together;             // stages for all, of two
    std::int32_t stages;               // in all
    std::int32_t runs_first;
    std::int32_t runs_end;
};

// Who comes after each query tile of a group, two bits each: the query tiles that attend to a stage take turns, and so
// do the stages.
using Successors = std::uint32_t;

// Consecutive stages of a group: stage t has key tiles first + 2 t and second + 2 t.
struct KeyRun {
    std::int32_t first;
    std::int32_t second;  // -1: stages of one
    std::int32_t stages;
    std::uint32_t cells;  // bit i: tile[i] of the group attends to them
    Successors within;    // in all stages of the run but the last
    Successors last;      // there; after the group's last turn comes the next group's first, of query tile 0
};

// Where each array begins in the block, in bytes, each on a 16-byte boundary.
struct DeviceGeometryLayout {
    std::size_t queries;       // TokenRange[tiles]: the rows of a query tile
    std::size_t keys;          // TokenRange[ranges]: keys, tiles that follow each other joined to one range
    std::size_t offsets;       // int32[tiles + 1] into keys
    std::size_t key_tokens;    // int32[tiles]: how many tokens each attends to
    std::size_t query_tokens;  // int32[tiles]: how many attend to each
    std::size_t schedule;      // int32[query_tiles]: most keys first
    std::size_t groups;  // TileGroup[group_count]: long_groups of text and guidance, most keys first, then the image's
    std::size_t runs;    // KeyRun[]
    std::size_t pairs;   // TilePair[pair_count], long_pairs of them first
    std::size_t pair_runs;  // TileRun[]
    std::size_t key_pairs;  // TilePair[key_pair_count], long_key_pairs of them first: keys with the queries they meet
    std::size_t key_pair_runs;
    std::int32_t group_count;
    std::int32_t long_groups;
    std::int64_t stages;  // of all groups
    // How many of the first groups are equally long and have query tiles that all attend to the same keys, as text has;
    // and their stages.
    std::int32_t alike_groups;
    std::int32_t alike_stages;
    std::int32_t pair_count;
    std::int32_t long_pairs;
    std::int32_t key_pair_count;
    std::int32_t long_key_pairs;
    std::size_t bytes;  // of it all
};

// FP8 products are summed with few bits: after so many stages a query tile's sum is added to a float32 one.
constexpr int kFlushTurns = 24;

constexpr int kMostBlocks = 144;  // that share out groups: a whole Hopper's multiprocessors

// The first groups, split over their keys, so that no block is left alone with one: each part has about the same
// stages, and the parts' results are joined.
struct Split {
    std::int32_t groups;  // 0: none is split
    std::int32_t parts;   // of each
    // Room for the rows of all parts, [groups][parts][kGroupTiles][64].
    [[nodiscard]] constexpr std::int64_t rows() const { return std::int64_t{groups} * parts * kGroupTiles * 64; }
};
// Where a group takes longer than half of a multiprocessor's share of all, in as many parts as fill a GPU once. The
// same for every GPU, so that results are.
Split split(const DeviceGeometryLayout& at, std::int32_t heads);

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
