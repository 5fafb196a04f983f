#include "geometry/geometry.h"

#include <algorithm>
#include <span>

#include "abi/guard.h"
#include "abi/handle.h"

using scaledit::abi::expect_count;
using scaledit::abi::expect_pointer;
using scaledit::abi::guard;

namespace {

constexpr const char* kGeometry = "a geometry from scaledit_geometry_create";

// Copies an array of the geometry into one of the caller's.
template <typename Element>
scaledit_status copy(const scaledit_geometry* geometry, std::span<const Element> (scaledit::Geometry::*array)() const,
                     Element* destination, const char* name, std::int64_t count, const char* unit) {
    return guard([&] {
        expect_pointer(geometry, "geometry", kGeometry);
        const std::span<const Element> source = (geometry->value.*array)();
        expect_pointer(destination, name, "an array");
        expect_count(count, "count", static_cast<std::int64_t>(source.size()), unit);
        std::copy(source.begin(), source.end(), destination);
    });
}

}  // namespace

scaledit_status scaledit_geometry_defaults(scaledit_geometry_options* options) {
    return guard([&] {
        expect_pointer(options, "options", "a scaledit_geometry_options");
        *options = {.text_tokens = 0,
                    .image_width = 0,
                    .image_height = 0,
                    .ratio = 4,
                    .window = 16,
                    .reach = 1,
                    .guidance_margin = 3,
                    .guidance_attention = SCALEDIT_GUIDANCE_GLOBAL,
                    .guidance_without_text = 0};
    });
}

scaledit_status scaledit_geometry_create(const scaledit_geometry_options* options, scaledit_geometry** geometry) {
    return guard([&] {
        expect_pointer(geometry, "geometry", "where to put the new geometry");
        *geometry = nullptr;
        expect_pointer(options, "options", "a scaledit_geometry_options");
        *geometry = new scaledit_geometry(scaledit::Geometry(*options));
    });
}

scaledit_status scaledit_geometry_shard(const scaledit_geometry* geometry, int32_t shards, int32_t index,
                                        scaledit_geometry** shard) {
    return guard([&] {
        expect_pointer(shard, "shard", "where to put the new geometry");
        *shard = nullptr;
        expect_pointer(geometry, "geometry", kGeometry);
        *shard = new scaledit_geometry(geometry->value.shard(shards, index));
    });
}

void scaledit_geometry_destroy(scaledit_geometry* geometry) { delete geometry; }

scaledit_status scaledit_geometry_describe(const scaledit_geometry* geometry, scaledit_geometry_info* info) {
    return guard([&] {
        expect_pointer(geometry, "geometry", kGeometry);
        expect_pointer(info, "info", "a scaledit_geometry_info");
        *info = geometry->value.info();
    });
}

scaledit_status scaledit_geometry_order(const scaledit_geometry* geometry, int64_t* order, int64_t count) {
    return copy(geometry, &scaledit::Geometry::order, order, "order", count, "token");
}

scaledit_status scaledit_geometry_tiles(const scaledit_geometry* geometry, scaledit_tile* tiles, int64_t count) {
    return copy(geometry, &scaledit::Geometry::tiles, tiles, "tiles", count, "tile");
}

scaledit_status scaledit_geometry_ranges(const scaledit_geometry* geometry, int64_t* offsets, int64_t offset_count,
                                         scaledit_tile_range* ranges, int64_t range_count) {
    return guard([&] {
        expect_pointer(geometry, "geometry", kGeometry);
        const auto& info = geometry->value.info();
        expect_pointer(offsets, "offsets", "an array");
        expect_count(offset_count, "offset_count", info.tiles + 1, "tile and one more");
        expect_pointer(ranges, "ranges", "an array");
        expect_count(range_count, "range_count", info.ranges, "range");
        std::ranges::copy(geometry->value.offsets(), offsets);
        std::ranges::copy(geometry->value.all_ranges(), ranges);
    });
}

scaledit_status scaledit_geometry_schedule(const scaledit_geometry* geometry, int32_t* schedule, int64_t count) {
    return copy(geometry, &scaledit::Geometry::schedule, schedule, "schedule", count, "query tile");
}
