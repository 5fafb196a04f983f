// What is behind the C ABI's opaque handle.
#pragma once

#include <mutex>
#include <optional>
#include <utility>

#include "cuda/device_geometry.h"
#include "geometry/geometry.h"
#include "geometry/query_lists.h"

struct scaledit_geometry {
    explicit scaledit_geometry(scaledit::Geometry geometry) : value(std::move(geometry)) {}

    // How it lies in a GPU's memory; found when first asked for.
    [[nodiscard]] const scaledit::cuda::DeviceGeometryLayout& device_layout() const {
        std::call_once(once_, [this] { layout_ = scaledit::cuda::layout(value); });
        return *layout_;
    }

    // Which queries attend to each key; found when first asked for.
    [[nodiscard]] const scaledit::QueryLists& queries() const {
        std::call_once(queries_once_, [this] { queries_.emplace(value); });
        return *queries_;
    }

    const scaledit::Geometry value;

private:
    mutable std::once_flag once_;
    mutable std::optional<scaledit::cuda::DeviceGeometryLayout> layout_;
    mutable std::once_flag queries_once_;
    mutable std::optional<scaledit::QueryLists> queries_;
};
