// A geometry as a caller of the C ABI sees it.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <vector>

#include "scaledit/scaledit.h"

inline std::ostream& operator<<(std::ostream& out, const scaledit_geometry_options& o) {
    return out << o.image_width << " x " << o.image_height << " tokens, text_tokens " << o.text_tokens << ", ratio "
               << o.ratio << ", window " << o.window << ", reach " << o.reach << ", guidance_margin "
               << o.guidance_margin << ", guidance_attention " << o.guidance_attention << ", guidance_without_text "
               << o.guidance_without_text;
}

namespace scaledit {

struct DestroyGeometry {
    void operator()(scaledit_geometry* geometry) const { scaledit_geometry_destroy(geometry); }
};
using GeometryHandle = std::unique_ptr<scaledit_geometry, DestroyGeometry>;

inline scaledit_geometry_options geometry_options(std::int64_t width, std::int64_t height, std::int64_t text = 0) {
    scaledit_geometry_options options{};
    EXPECT_EQ(scaledit_geometry_defaults(&options), SCALEDIT_OK);
    options.text_tokens = text;
    options.image_width = width;
    options.image_height = height;
    return options;
}

inline scaledit_geometry_options grid(std::int64_t width, std::int64_t height, std::int64_t text, std::int32_t ratio,
                                      std::int32_t window = 16, std::int32_t guidance = SCALEDIT_GUIDANCE_GLOBAL) {
    scaledit_geometry_options options = geometry_options(width, height, text);
    options.ratio = ratio;
    options.window = window;
    options.guidance_attention = guidance;
    return options;
}

inline scaledit_geometry_options without_text(scaledit_geometry_options options) {
    options.guidance_without_text = 1;
    return options;
}

inline GeometryHandle make_geometry(const scaledit_geometry_options& options) {
    scaledit_geometry* geometry = nullptr;
    EXPECT_EQ(scaledit_geometry_create(&options, &geometry), SCALEDIT_OK) << scaledit_last_error();
    return GeometryHandle(geometry);
}

// Everything that the C ABI tells about a geometry.
struct GeometryView {
    scaledit_geometry_options options{};
    scaledit_geometry_info info{};
    std::vector<std::int64_t> order;
    std::vector<scaledit_tile> tiles;
    std::vector<std::int64_t> offsets;
    std::vector<scaledit_tile_range> ranges;
    std::vector<std::int32_t> schedule;
};

inline GeometryView view(const scaledit_geometry_options& options, const scaledit_geometry* geometry) {
    GeometryView v;
    v.options = options;
    EXPECT_EQ(scaledit_geometry_describe(geometry, &v.info), SCALEDIT_OK);
    v.order.assign(static_cast<std::size_t>(v.info.tokens), -1);
    v.tiles.assign(static_cast<std::size_t>(v.info.tiles), {-1, -1, -1, -1, -1});
    v.offsets.assign(static_cast<std::size_t>(v.info.tiles + 1), -1);
    v.ranges.assign(static_cast<std::size_t>(v.info.ranges), {-1, -1});
    v.schedule.assign(static_cast<std::size_t>(v.info.query_tiles), -1);
    EXPECT_EQ(scaledit_geometry_order(geometry, v.order.data(), v.info.tokens), SCALEDIT_OK);
    EXPECT_EQ(scaledit_geometry_tiles(geometry, v.tiles.data(), v.info.tiles), SCALEDIT_OK);
    EXPECT_EQ(scaledit_geometry_ranges(geometry, v.offsets.data(), v.info.tiles + 1, v.ranges.data(), v.info.ranges),
              SCALEDIT_OK);
    EXPECT_EQ(scaledit_geometry_schedule(geometry, v.schedule.data(), v.info.query_tiles), SCALEDIT_OK);
    return v;
}

inline GeometryView view(const scaledit_geometry_options& options) {
    return view(options, make_geometry(options).get());
}

}  // namespace scaledit
